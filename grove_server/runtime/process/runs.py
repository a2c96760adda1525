"""Runs: what is asked of the launcher, what came of it, and how it ended. Pure.

A *run* is one start of one container, numbered by its attempt; it has a keeper (the process that watches it) and a main
process. The names of these types are what the rest of the runtime speaks in; see `launching.py` for who makes them.

Not here: where a run's records lie on disk (`program/records.py`), and when a run is due (the node agent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

COMPLETED: Final = "Completed"
ERROR: Final = "Error"
OOM_KILLED: Final = "OOMKilled"
START_ERROR: Final = "StartError"
LOST: Final = "Lost"

# The exit code of a run whose end nobody saw, as the kubelet reports it (ContainerStatusUnknown).
LOST_EXIT_CODE: Final = 137

NAME_LENGTH_MAX: Final = 128

# Why a run ended that was no fault of the container: its pod was stopped with the server, or the machine went down.
STOPPED: Final = "Stopped"
REBOOTED: Final = "Rebooted"

# What a shortfall is about.
HOSTS: Final = "Hosts"
CGROUP: Final = "Cgroup"
FILE_COUNT: Final = "FileCount"
PROCESS_COUNT: Final = "ProcessCount"


class LaunchError(Exception):
    """A container, or a command in one, could not be started; nothing of it runs.

    ``reason`` is one of: ``CommandNotFound``, ``PermissionDenied``, ``NotExecutable``, ``ArgumentsTooLong``,
    ``WorkingDirectory``, ``BindFailed``, ``DiskFull``, ``Resources`` (processes, memory, files), ``RunEnded`` (a
    command for a run that is over), ``LauncherUnavailable`` (worth trying again), ``StartFailed`` (anything else).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOrder:
    """One start of a container.

    ``attempt`` grows with every start of the same container of the same pod. ``environment`` is all that the process
    gets, but for ``GROVE_RUN``, by which its descendants are found again. ``binds`` are (source, target) paths, mounted
    where only this container sees them; a bind that fails fails the start, while hosts, cgroups and limits that this
    machine forbids become ``shortfalls`` of the run. The container gets a cgroup of its own below ``cgroup_dir``, and
    below each of ``more_cgroup_dirs`` (other hierarchies). ``process_count_max`` is RLIMIT_NPROC: the kernel counts it
    per user, and root is free of it. ``log_bytes_max`` bounds one log file, ``log_files_max`` (at least 1) their
    number.
    """

    pod_uid: str
    namespace: str
    pod_name: str
    container: str
    attempt: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: str = "/"
    hosts_path: str | None = None
    binds: tuple[tuple[str, str], ...] = ()
    cgroup_dir: str | None = None
    more_cgroup_dirs: tuple[str, ...] = ()
    file_count_max: int | None = None
    process_count_max: int | None = None
    log_bytes_max: int = 10 * 1024 * 1024
    log_files_max: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Something of an order that this machine did not allow; ``about`` is one of the constants above."""

    about: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended. ``exit_code`` is 128 + signal if a signal ended it; times are epoch seconds."""

    exit_code: int
    signal: int | None
    finished_at: float
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of a container, as last known; a later state of the same run is another value with the same key.

    ``interrupted`` is STOPPED or REBOOTED for a run that the server found ended by that when it started, else empty.
    """

    pod_uid: str
    namespace: str
    pod_name: str
    container: str
    attempt: int
    keeper_pid: int
    keeper_ticks: int
    pid: int
    pid_ticks: int
    started_at: float
    shortfalls: tuple[Shortfall, ...] = ()
    cgroup_dirs: tuple[str, ...] = ()
    interrupted: str = ""
    ended: Ended | None = None

    @property
    def key(self) -> RunKey:
        """What identifies the run: pod uid, container, attempt."""
        return self.pod_uid, self.container, self.attempt


RunKey = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a command in a container came to: both streams in one, cut after the allowed bytes.

    ``exit_code`` is 128 + signal if a signal ended it, and 137 if its time ran out.
    """

    exit_code: int
    output: bytes
    timed_out: bool
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutput:
    """Some output of a streamed command; ``is_error`` tells stderr from stdout (a terminal has stdout alone)."""

    data: bytes
    is_error: bool = field(default=False)


def run_of(record: Mapping[str, Any]) -> Run:
    """Return a run as the launcher program's record has it; the record is of our own making."""
    return Run(
        pod_uid=record["pod_uid"],
        namespace=record["namespace"],
        pod_name=record["pod_name"],
        container=record["container"],
        attempt=record["attempt"],
        keeper_pid=record["keeper_pid"],
        keeper_ticks=record["keeper_ticks"],
        pid=record["pid"],
        pid_ticks=record["pid_ticks"],
        started_at=record["started_at"],
        shortfalls=tuple(Shortfall(about=about, message=message) for about, message in record["shortfalls"]),
        cgroup_dirs=tuple(record["cgroup_dirs"]),
    )


def ended_of(record: Mapping[str, Any]) -> Ended:
    """Return the end of a run as its record has it."""
    return Ended(
        exit_code=record["exit_code"],
        signal=record["signal"],
        finished_at=record["finished_at"],
        reason=record["reason"],
        message=record["message"],
    )


def unknown_run(key: RunKey, ended: Ended) -> Run:
    """Return a run of which nothing can be read any more but that there was one."""
    pod_uid, container, attempt = key
    return Run(
        pod_uid=pod_uid,
        namespace="",
        pod_name="",
        container=container,
        attempt=attempt,
        keeper_pid=0,
        keeper_ticks=0,
        pid=0,
        pid_ticks=0,
        started_at=ended.finished_at,
        ended=ended,
    )


def check_order(order: LaunchOrder) -> None:
    """Raise LaunchError for an order that no process can come of, or whose names would lead out of their folder."""
    for name in (order.pod_uid, order.container):
        if not name or name in {".", ".."} or "/" in name or len(name) > NAME_LENGTH_MAX:
            raise LaunchError("StartFailed", f"{name!r} cannot be the name of a folder")
    check_argv(order.argv)
    if order.log_files_max < 1 or order.log_bytes_max < 1:
        raise LaunchError("StartFailed", "a log has at least one file of at least one byte")


def check_argv(argv: Sequence[str]) -> None:
    """Raise LaunchError for a command that can be none."""
    if not argv or not argv[0]:
        raise LaunchError("StartFailed", "there is no command")
    if any("\0" in word for word in argv):
        raise LaunchError("StartFailed", "a command holds no NUL byte")


def header_of(order: LaunchOrder) -> dict[str, object]:
    """Return an order as the launcher program takes it."""
    header: dict[str, object] = {name: getattr(order, name) for name in LaunchOrder.__slots__}
    return {**header, "op": "launch", "environment": dict(order.environment)}
