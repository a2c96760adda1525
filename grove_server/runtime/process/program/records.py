"""What is known of a run on disk, and where: ``process/pods/POD_UID/CONTAINER/ATTEMPT/{run.json,exit.json,lock}``.

* ``run.json`` is there before the container's program runs. It is replaced whole, and not synced: it is needed after
  the death of processes, and means nothing after that of the machine.
* ``exit.json`` is synced. Room for it is taken when the run starts, so that a full disk cannot swallow an exit code.
* ``lock`` is locked (flock) for as long as the keeper lives.

Both sides use this module. It imports little, as all of the program: what is in memory is paid for at each fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    # JSON of our own making, read back from files.
    Record = dict[str, Any]
    Key = tuple[str, str, int]

RUN_FILE: Final = "run.json"
EXIT_FILE: Final = "exit.json"
STOPPED_FILE: Final = "stopped"
EXIT_ROOM_FILE: Final = "exit.json.room"
LOCK_FILE: Final = "lock"
LAUNCHER_LOCK_FILE: Final = "launcher.lock"
EXIT_BYTES_MAX: Final = 4096
MARKER: Final = "GROVE_RUN"


def process_dir(data_dir: str) -> str:
    """Return the folder of the process runtime."""
    return f"{data_dir}/process"


def pods_dir(data_dir: str) -> str:
    """Return the folder that holds the state of pods, by uid."""
    return f"{data_dir}/process/pods"


def logs_dir(data_dir: str) -> str:
    """Return the folder that holds the logs of pods, by uid."""
    return f"{data_dir}/process/logs"


def make_folders(data_dir: str) -> None:
    """Make the folders, for our user alone."""
    for folder in (pods_dir(data_dir), logs_dir(data_dir)):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(process_dir(data_dir), 0o700)


def run_dir(data_dir: str, key: Key) -> str:
    """Return the folder of one run."""
    return f"{pods_dir(data_dir)}/{key[0]}/{key[1]}/{key[2]}"


def log_file(data_dir: str, key: Key) -> str:
    """Return the log of one run; rotated files have ``.1``, ``.2`` … appended."""
    return f"{logs_dir(data_dir)}/{key[0]}/{key[1]}/{key[2]}.log"


def marker(key: Key) -> str:
    """Return the value of GROVE_RUN, by which a run's processes are found when nothing else leads to them."""
    return f"{key[0]}/{key[1]}/{key[2]}"


def write_whole(path: str, record: Record) -> None:
    """Put a record in place so that readers see the old one or the new one."""
    _write(f"{path}.new", json.dumps(record).encode())
    os.replace(f"{path}.new", path)


def read(path: str) -> Record | None:
    """Return a record; None if there is none, or none that can be read (a machine that lost power)."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def mark(folder: str, name: str) -> None:
    """Leave a mark in the folder of a run; raises OSError."""
    _write(f"{folder}/{name}", b"")


def unmark(folder: str, name: str) -> None:
    """Take a mark away."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{name}")


def is_marked(folder: str, name: str) -> bool:
    """Tell whether the mark is there."""
    return os.path.exists(f"{folder}/{name}")


def take_exit_room(folder: str) -> None:
    """Take the room on disk that the record of the end will need; raises OSError if there is none."""
    descriptor = os.open(f"{folder}/{EXIT_ROOM_FILE}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, EXIT_BYTES_MAX)
    finally:
        os.close(descriptor)


def write_exit(folder: str, record: Record) -> None:
    """Put the record of the end in place, synced, in the room that was taken for it."""
    data = json.dumps(record).encode()
    if len(data) > EXIT_BYTES_MAX:
        data = json.dumps({**record, "message": str(record.get("message", ""))[:512]}).encode()
    room = f"{folder}/{EXIT_ROOM_FILE}"
    with open(room, "r+b" if os.path.exists(room) else "wb", opener=_private) as file:
        # Blanks up to the end of the room: JSON does not mind, and nothing has to be allocated or cut.
        file.write(data.ljust(EXIT_BYTES_MAX))
        file.flush()
        os.fsync(file.fileno())
    os.replace(room, f"{folder}/{EXIT_FILE}")
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: str) -> int | None:
    """Lock a file and return its descriptor, which holds the lock; None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: str) -> bool:
    """Tell whether a process holds the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def keys(data_dir: str) -> list[Key]:
    """Return the key of every run on disk, sorted."""
    found: list[Key] = []
    root = pods_dir(data_dir)
    for uid in _names(root):
        for container in _names(f"{root}/{uid}"):
            attempts = _names(f"{root}/{uid}/{container}")
            found.extend((uid, container, int(name)) for name in attempts if name.isdigit())
    return sorted(found)


def remove_before(data_dir: str, key: Key) -> None:
    """Remove state and logs of attempts of a container before *key*'s."""
    uid, container, attempt = key
    for name in _names(f"{pods_dir(data_dir)}/{uid}/{container}"):
        if (
            name.isdigit()
            and int(name) < attempt
            and not is_locked(f"{run_dir(data_dir, (uid, container, int(name)))}/lock")
        ):
            remove_folder(run_dir(data_dir, (uid, container, int(name))))
    for name in _names(f"{logs_dir(data_dir)}/{uid}/{container}"):
        number = name.partition(".")[0]
        if number.isdigit() and int(number) < attempt:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{logs_dir(data_dir)}/{uid}/{container}/{name}")


def remove_forgotten_logs(data_dir: str, kept_max: int) -> None:
    """Remove the logs of pods without state, but for those of the *kept_max* that wrote last."""
    known = set(_names(pods_dir(data_dir)))
    folders = [f"{logs_dir(data_dir)}/{uid}" for uid in _names(logs_dir(data_dir)) if uid not in known]
    dated = sorted((_last_written(folder), folder) for folder in folders)
    for _, folder in dated[: max(0, len(dated) - kept_max)]:
        remove_folder(folder)


def remove_folder(folder: str) -> None:
    """Remove a folder with all that is in it, as far as that can be."""
    for name in _names(folder):
        path = f"{folder}/{name}"
        try:
            os.unlink(path)
        except IsADirectoryError:
            remove_folder(path)
        except OSError:
            continue
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _last_written(folder: str) -> float:
    times = [0.0]
    for container in _names(folder):
        for name in _names(f"{folder}/{container}"):
            with contextlib.suppress(OSError):
                times.append(os.stat(f"{folder}/{container}/{name}").st_mtime)
    return max(times)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write(path: str, data: bytes) -> None:
    """Write a file, by the kernel's own calls: file objects cost a keeper more than the writing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def write_failure(data_dir: str, error: BaseException) -> None:
    """Write down where a fork of the launcher program failed, for those who look into it; the last one is kept."""
    lines = [repr(error)]
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    with contextlib.suppress(OSError), open(f"{process_dir(data_dir)}/failure.txt", "w", opener=_private) as file:
        file.write("\n".join(lines) + "\n")
