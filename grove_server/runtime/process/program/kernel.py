"""What the kernel offers and Python 3.11 does not: namespaces, mounts, prctl; and who descends from whom.

Every call raises OSError with the kernel's errno. The process table is read from /proc; a process that vanishes while
it is read counts as absent.

Not here: what any of it is used for.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_SLAVE: Final = 1 << 19
ENVIRONMENT_BYTES_MAX: Final = 4 * 1024 * 1024

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
# Made once: each length of a buffer is a type of its own, and a keeper would pay for making it.
_boot_ids: Final[list[str]] = []
_LAUNCHER_NAME: Final = ctypes.create_string_buffer(b"grove-launcher")
_KEEPER_NAME: Final = ctypes.create_string_buffer(b"grove-keeper")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when its parent ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has ended, in place of process 1."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def name_launcher() -> None:
    """Let ``ps`` and ``top`` show this process as the launcher program."""
    _check(_libc.prctl(PR_SET_NAME, ctypes.addressof(_LAUNCHER_NAME), 0, 0, 0), "prctl(PR_SET_NAME)")


def name_keeper() -> None:
    """Let ``ps`` and ``top`` show this process as a keeper."""
    _check(_libc.prctl(PR_SET_NAME, ctypes.addressof(_KEEPER_NAME), 0, 0, 0), "prctl(PR_SET_NAME)")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _check(_libc.unshare(flags), "unshare")


def enter_namespace(descriptor: int, kind: int) -> None:
    """Enter the namespace behind a descriptor of /proc/PID/ns."""
    _check(_libc.setns(descriptor, kind), "setns")


def keep_mounts_here() -> None:
    """Keep mounts of this namespace from reaching others; what others mount still arrives."""
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None), "mount --make-rslave /")


def bind_mount(source: str, target: str) -> None:
    """Let *target* show what lies at *source*, with all that is mounted below it."""
    what = f"bind {source} at {target}"
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None), what)


def boot_id() -> str:
    """Return what this boot of the machine is called. It is read once: the fork of a process is of the same boot."""
    if not _boot_ids:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            _boot_ids.append(file.read().strip())
    return _boot_ids[0]


def _stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on; None for a process that is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        # The name stands in brackets and may itself hold brackets and blanks.
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone. A zombie still has it."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and has not ended."""
    fields = _stat_fields(pid)
    return bool(fields) and fields[0] not in {b"Z", b"X"} if fields else False


def pids() -> list[int]:
    """Return every process there is."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children() -> list[int]:
    """Return this process's children (single-threaded), zombies included."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN.
        own = os.getpid()
        return [pid for pid, parent in _parents().items() if parent == own]


def _parents() -> dict[int, int]:
    parents = {}
    for pid in pids():
        fields = _stat_fields(pid)
        if fields:
            parents[pid] = int(fields[1])
    return parents


def descendants(root: int) -> list[int]:
    """Return all processes below *root*, zombies included, parents before their children."""
    below: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        below.setdefault(parent, []).append(pid)
    found: list[int] = []
    layer = [root]
    while layer:
        layer = [child for pid in layer for child in below.get(pid, ())]
        found.extend(layer)
    return found


def variable(pid: int, name: bytes) -> bytes | None:
    """Return a variable of the environment that a process was started with; None where there is none to be seen."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = b"\0" + file.read(ENVIRONMENT_BYTES_MAX)
    except OSError:
        return None
    _, found, rest = text.partition(b"\0" + name + b"=")
    return rest.partition(b"\0")[0] if found else None


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone, or not ours to signal, is passed over."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
