"""What a process becomes before it is a container's main process, or a command in one.

Most of it is done by the keeper, in itself, before it forks: mounts, limits, the folder, stdout and stderr. A fork of
Python pays for each page it touches, so the child only leaves the session, asks to die with its keeper, waits until it
is on record, and becomes the program. Signals need no step: exec resets what is handled, and the launcher program
handles, rather than ignores, whatever it does not want. No shell takes part; the environment is the one given.

Not here: who waits for it (`keeper.py`, `execs.py`).
"""

from __future__ import annotations

import errno
import os
import resource
import signal

from grove_server.runtime.process.program import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, NoReturn

    from grove_server.runtime.process.program.records import Record

# What a shell says of a command that is not there, or is there and cannot be run.
NOT_FOUND_EXIT_CODE: Final = 127
CANNOT_RUN_EXIT_CODE: Final = 126

_REASONS: Final = {
    errno.ENOENT: "CommandNotFound",
    errno.ENOTDIR: "CommandNotFound",
    errno.EACCES: "PermissionDenied",
    errno.EPERM: "PermissionDenied",
    errno.ENOEXEC: "NotExecutable",
    errno.EISDIR: "NotExecutable",
    errno.E2BIG: "ArgumentsTooLong",
    errno.EAGAIN: "Resources",
    errno.ENOMEM: "Resources",
    errno.EMFILE: "Resources",
    errno.ENFILE: "Resources",
    errno.ENOSPC: "DiskFull",
    errno.EDQUOT: "DiskFull",
}
# Requests to end that reach every process of a server (a terminal's Ctrl-C, a service manager) and mean the server
# alone; and signals that Python ignores, which programs would inherit as ignored.
_UNWANTED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)


class StartFailure(Exception):  # noqa: N818 -- a failure of a start; its reason is data and not a class of errors
    """A process could not become what was ordered; ``reason`` is one of LaunchError's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def reason_of(error: OSError) -> str:
    """Return LaunchError's reason for an error of the kernel."""
    return _REASONS.get(error.errno or 0, "StartFailed")


def failure_of(error: OSError, what: str) -> StartFailure:
    """Return an error of the kernel as the failure of a start."""
    return StartFailure(reason_of(error), f"{what}: {error.strerror}")


def handle_signals() -> None:
    """Handle, by doing nothing, what this program does not want; what it starts gets the defaults back."""
    for number in _UNWANTED:
        signal.signal(number, _do_nothing)


def _do_nothing(_number: int, _frame: object) -> None:
    return


def mount(hosts_path: str | None, binds: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Mount what a container is to see, where only it and this process see it; return (about, message) shortfalls.

    Raises StartFailure for a bind that cannot be: a container must not run without its volumes.
    """
    try:
        _leave_mount_namespace()
        kernel.keep_mounts_here()
    except OSError as error:
        message = f"this machine allows no mount namespace here: {error.strerror}"
        if binds:
            raise StartFailure("BindFailed", message) from error
        return [("Hosts", message)]
    for source, target in binds:
        try:
            kernel.bind_mount(source, target)
        except OSError as error:
            raise StartFailure("BindFailed", str(error.strerror)) from error
    if hosts_path is None:
        return []
    try:
        kernel.bind_mount(hosts_path, "/etc/hosts")
    except OSError as error:
        return [("Hosts", str(error.strerror))]
    return []


def _leave_mount_namespace() -> None:
    """Enter a mount namespace of our own; without the right to it by way of a user namespace of our own."""
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def limit(order: Record) -> list[tuple[str, str]]:
    """Set the limits of an order, for this process and what it starts; return (about, message) shortfalls."""
    shortfalls = []
    for about, kind, most in (
        ("FileCount", resource.RLIMIT_NOFILE, order["file_count_max"]),
        ("ProcessCount", resource.RLIMIT_NPROC, order["process_count_max"]),
    ):
        if most is None:
            continue
        try:
            resource.setrlimit(kind, (most, most))
        except (OSError, ValueError) as error:
            shortfalls.append((about, f"cannot set the limit to {most}: {error}"))
    return shortfalls


def go_to(working_dir: str) -> None:
    """Change to the folder that a command runs in."""
    try:
        os.chdir(working_dir)
    except OSError as error:
        raise StartFailure("WorkingDirectory", f"{working_dir}: {error.strerror}") from error


def places_of(command: str, environment: Mapping[str, str]) -> list[str]:
    """Return where a command may lie: itself if it is a path, else in each folder of the environment's PATH."""
    if "/" in command:
        return [command]
    return [f"{folder or '.'}/{command}" for folder in environment.get("PATH", os.defpath).split(":")]


def become(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the program, as ``os.execvpe`` does but without the imports that it makes; raises OSError."""
    missing: OSError | None = None
    refused: OSError | None = None
    for place in places_of(argv[0], environment):
        try:
            os.execve(place, argv, environment)  # noqa: S606 -- no shell is what is wanted
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = error
        except OSError as error:
            # A file that is there and refuses says more than the folders in which there is none.
            refused = refused or error
    raise refused or missing or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
