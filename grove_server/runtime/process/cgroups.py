"""Limits of containers by control groups: memory, processor time, number of processes; where the system allows them.

Version 2 is used where it has the controllers, version 1 for those it lacks. A hierarchy is used below the group that
this server is in, if that may be written: so whatever limits the server limits its pods with it, and a service manager
that delegated the group keeps what is its own. Version 2 gives controllers only to groups without processes of their
own, so a server that is alone in its group moves into a leaf ``server`` of it first. A privileged server in a group
with others takes a group of its own at the top of the hierarchy instead.

Layout: ``<base>/grove-<id>/<pod uid>.<container>``; the launcher makes each run's group below that and removes it.
Making a group costs a quarter of a millisecond of the kernel's time, so a container has none where nothing is to be
limited; but for version 2, by whose groups the launcher kills.

Rules: what cannot be limited is said, never passed over; a limit that cannot be written is an error of
that start and becomes a condition of its pod. Nothing is read back by polling.

Sources: Linux kernel, Documentation/admin-guide/cgroup-v2.rst (delegation, no internal processes) and cgroup-v1.

Not here: putting processes into groups, and killing by them (the launcher).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTROLLERS: Final = ("memory", "cpu", "pids")
# What an amount of each controller is called for people.
_WORDS: Final = {"memory": "memory", "cpu": "processor time", "pids": "the number of processes"}
_CPU_PERIOD_US: Final = 100_000
# The kernel refuses quotas below 1 ms.
_CPU_QUOTA_US_MIN: Final = 1_000
_MOUNT_LINE: Final = re.compile(r"^\S+ (?P<point>\S+) (?P<type>cgroup2?) (?P<options>\S+) ")
_LEAF: Final = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may use: bytes, thousandths of a core, processes and threads; None is no limit."""

    memory_bytes: int | None = None
    cpu_milli: int | None = None
    process_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One tree of groups that this server may use: its version, where it begins, which controllers are used in it."""

    version: int
    base: Path
    controllers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of one container: where the launcher puts its runs, version 2 first, and what went wrong."""

    unified: Path | None = None
    others: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()


class ControlGroups:
    """The groups of this server's containers; of none where the system allows none."""

    def __init__(self, hierarchies: tuple[Hierarchy, ...] = (), problems: tuple[str, ...] = ()) -> None:
        self.hierarchies = hierarchies
        self.problems = problems

    @property
    def enforced(self) -> tuple[str, ...]:
        """The controllers that limits can be set with, in the order of CONTROLLERS."""
        found = {name for hierarchy in self.hierarchies for name in hierarchy.controllers}
        return tuple(name for name in CONTROLLERS if name in found)

    @property
    def missing(self) -> str:
        """What cannot be limited, in words; empty if all can."""
        left = [_WORDS[name] for name in CONTROLLERS if name not in self.enforced]
        if not left:
            return ""
        why = f" ({'; '.join(self.problems)})" if self.problems else ""
        return f"{', '.join(left)} cannot be limited on this machine{why}"

    def prepare(self, pod_uid: str, container: str, limits: Limits) -> Groups:
        """Make the groups of a container with its limits; what the system refuses is among the problems."""
        unified: Path | None = None
        others: list[Path] = []
        problems: list[str] = []
        for hierarchy in self.hierarchies:
            folder = hierarchy.base / f"{pod_uid}.{container}"
            is_unified = hierarchy.version == 2  # noqa: PLR2004 -- it is the version's number
            files = tuple(_files(hierarchy, limits))
            if not files and not is_unified:
                continue
            try:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                for name, text in files:
                    _write(folder / name, text)
            except OSError as error:
                problems.append(f"{error.filename or folder}: {error.strerror}")
                continue
            if is_unified:
                unified = folder
            else:
                others.append(folder)
        return Groups(unified=unified, others=tuple(others), problems=tuple(problems))

    def remove(self, pod_uid: str) -> None:
        """Remove the groups of a pod whose processes are gone; one that still has some stays."""
        for hierarchy in self.hierarchies:
            for folder in _groups_in(hierarchy.base):
                if folder.name.partition(".")[0] == pod_uid:
                    remove_tree(folder)

    def close(self) -> None:
        """Remove the server's own groups, unless containers run in them."""
        for hierarchy in self.hierarchies:
            with contextlib.suppress(OSError):
                hierarchy.base.rmdir()

    def leftovers(self) -> set[str]:
        """Return the uids of the pods that have groups."""
        return {folder.name.partition(".")[0] for each in self.hierarchies for folder in _groups_in(each.base)}


def open_groups(name: str, *, proc: Path = Path("/proc")) -> ControlGroups:
    """Find the hierarchies that this server may use, and make its own group, ``grove-``*name*, in each."""
    hierarchies: list[Hierarchy] = []
    problems: list[str] = []
    own = _own_groups(proc)
    for version, mount, offered in _mounts(proc):
        wanted = tuple(c for c in offered if all(c not in h.controllers for h in hierarchies))
        key = "" if version == 2 else offered[0]  # noqa: PLR2004 -- it is the version's number
        parents = _parents(mount, own.get(key, "/"))
        _remove_stale(parents, f"grove-{name}")
        if not wanted and version == 1:
            continue
        opened = _open(version, mount, parents, f"grove-{name}", wanted)
        if isinstance(opened, str):
            problems.append(opened)
        else:
            hierarchies.append(opened)
    if not hierarchies and not problems:
        problems.append("no control groups are mounted")
    return ControlGroups(tuple(hierarchies), tuple(problems))


def memory_limit_bytes(*, proc: Path = Path("/proc")) -> int | None:
    """Return the most memory that this process's group, or one around it, may use; None if there is no such limit."""
    own = _own_groups(proc)
    found: list[int] = []
    for version, mount, offered in _mounts(proc):
        file = "memory.max" if version == 2 else "memory.limit_in_bytes"  # noqa: PLR2004 -- as above
        if version == 1 and "memory" not in offered:
            continue
        folder = mount / own.get("" if version == 2 else "memory", "/").lstrip("/")  # noqa: PLR2004 -- as above
        for each in (folder, *folder.parents):
            if not each.is_relative_to(mount):
                break
            with contextlib.suppress(OSError, ValueError):
                found.append(int((each / file).read_text(encoding="ascii")))
    # Version 1 has no word for "no limit" but a number that no machine has.
    return min((each for each in found if each < 1 << 60), default=None)


def remove_tree(folder: Path) -> None:
    """Remove a group and those below it, as far as they are empty."""
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if entry.is_dir():
                remove_tree(entry)
        folder.rmdir()


def _parents(mount: Path, own: str) -> list[Path]:
    """Return where our group may be made, the best place first."""
    # A server that was started before in the same group may be in its leaf already.
    group = mount / own.lstrip("/")
    if group.name == _LEAF and group != mount:
        group = group.parent
    return [group] if group == mount else [group, mount]


def _remove_stale(parents: list[Path], name: str) -> None:
    """Remove what a server that was killed left of this name, as far as nothing runs in it."""
    for parent in parents:
        remove_tree(parent / name)


def _open(version: int, mount: Path, parents: list[Path], name: str, wanted: tuple[str, ...]) -> Hierarchy | str:
    """Return the hierarchy with our group in it, or what stands against it."""
    reasons = []
    for parent in parents:
        base = parent / name
        try:
            base.mkdir(exist_ok=True)
            if version == 1:
                return Hierarchy(version=1, base=base, controllers=wanted)
            enabled = _enabled(parent, base, wanted, is_top=parent == mount)
        except OSError as error:
            reasons.append(f"{error.filename or base}: {error.strerror}")
            continue
        if enabled or not wanted:
            return Hierarchy(version=2, base=base, controllers=enabled)
        reasons.append(f"{parent}: {', '.join(wanted)} cannot be used here")
        with contextlib.suppress(OSError):
            base.rmdir()
    return "; ".join(reasons)


def _enabled(parent: Path, base: Path, wanted: tuple[str, ...], *, is_top: bool) -> tuple[str, ...]:
    """Hand controllers down from *parent* to the groups below *base*; return those that arrived."""
    if not is_top:
        _leave(parent)
    found = []
    for controller in wanted:
        try:
            for folder in (parent, base):
                _write(folder / "cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EINVAL, errno.ENOTSUP}:
                raise
            continue
        found.append(controller)
    return tuple(found)


def _leave(parent: Path) -> None:
    """Move this process into a leaf of *parent*, if it is alone there."""
    pids = (parent / "cgroup.procs").read_text(encoding="ascii").split()
    if pids == [str(os.getpid())]:
        leaf = parent / _LEAF
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", pids[0])


def _groups_in(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _files(hierarchy: Hierarchy, limits: Limits) -> Iterator[tuple[str, str]]:
    """Yield what to write for limits; a container's limits never change, so what is not limited is left alone."""
    is_unified = hierarchy.version == 2  # noqa: PLR2004 -- it is the version's number
    if "memory" in hierarchy.controllers and limits.memory_bytes is not None:
        yield ("memory.max" if is_unified else "memory.limit_in_bytes"), str(limits.memory_bytes)
    if "cpu" in hierarchy.controllers and limits.cpu_milli is not None:
        quota = max(limits.cpu_milli * _CPU_PERIOD_US // 1000, _CPU_QUOTA_US_MIN)
        if is_unified:
            yield "cpu.max", f"{quota} {_CPU_PERIOD_US}"
        else:
            yield "cpu.cfs_period_us", str(_CPU_PERIOD_US)
            yield "cpu.cfs_quota_us", str(quota)
    if "pids" in hierarchy.controllers and limits.process_count is not None:
        yield "pids.max", str(limits.process_count)


def _mounts(proc: Path) -> list[tuple[int, Path, tuple[str, ...]]]:
    """Return version, mount point and controllers of each hierarchy, version 2 first."""
    found = []
    with contextlib.suppress(OSError):
        for line in (proc / "self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            match = _MOUNT_LINE.match(line)
            if match is None:
                continue
            point = Path(match["point"])
            if match["type"] == "cgroup2":
                found.append((2, point, _offered(point)))
                continue
            options = match["options"].split(",")
            controllers = tuple(name for name in CONTROLLERS if name in options)
            if controllers:
                found.append((1, point, controllers))
    return sorted(found, key=lambda entry: (-entry[0], str(entry[1])))


def _offered(point: Path) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        words = (point / "cgroup.controllers").read_text(encoding="ascii").split()
        return tuple(name for name in CONTROLLERS if name in words)
    return ()


def _own_groups(proc: Path) -> Mapping[str, str]:
    """Return the group of this process by controller; that of version 2 by the empty name."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(","):
                found[name] = path
    return found


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
