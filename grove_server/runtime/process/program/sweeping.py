"""Clearing away what a run left whose keeper was killed: nobody else would end it.

The kernel has killed the main process with its keeper. What descended from it is found by the run's cgroups and by
GROVE_RUN in the environment that it was started with. Then the end is written down, as Lost. Known gap: without
cgroups, a process that was started with another environment is not found, unless the launcher program that forked the
keeper still lives: then such a process is its orphan, and it ends those.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from grove_server.runtime.process.program import kernel, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from grove_server.runtime.process.program.records import Key, Record

ROUNDS_MAX: Final = 500
ROUND_WAIT_S: Final = 0.02
LOST_EXIT_CODE: Final = 137


def sweep(data_dir: str, key: Key) -> Record:
    """End what is left of a run without keeper; write its end unless it is known, and return it."""
    folder = records.run_dir(data_dir, key)
    known = records.read(f"{folder}/{records.EXIT_FILE}")
    if known is not None:
        return known
    record = records.read(f"{folder}/{records.RUN_FILE}")
    message = "the process that watched it was killed, and its exit code is not known"
    if record is None:
        message = "its record cannot be read"
    elif record["boot_id"] != kernel.boot_id():
        message = "the machine was started anew meanwhile"
    else:
        message += _end_all(record, records.marker(key).encode())
    ended = {
        "exit_code": LOST_EXIT_CODE,
        "signal": None,
        "finished_at": time.time(),
        "reason": "Lost",
        "message": message,
    }
    # A disk that is full takes nothing from the truth of the answer; the next start of the server finds it again.
    with contextlib.suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        records.write_exit(folder, ended)
    return ended


def _end_all(record: Record, marker: bytes) -> str:
    """Kill what is found until nothing is found; return what to add to the message if that did not succeed."""
    for folder in record["cgroup_dirs"]:
        with contextlib.suppress(OSError), open(f"{folder}/cgroup.kill", "wb", buffering=0) as file:
            file.write(b"1")
    own = os.getpid()
    left: list[int] = []
    for _ in range(ROUNDS_MAX):
        left = [pid for pid in kernel.pids() if pid != own and _belongs(pid, record, marker)]
        if not left:
            break
        for pid in left:
            kernel.send(pid, signal.SIGKILL)
        time.sleep(ROUND_WAIT_S)
    else:
        return f"; {len(left)} of its processes cannot be ended"
    for folder in record["cgroup_dirs"]:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return ""


def _belongs(pid: int, record: Record, marker: bytes) -> bool:
    if not kernel.is_alive(pid):
        return False
    if pid == record["pid"]:
        return bool(kernel.start_ticks(pid) == record["pid_ticks"])
    return kernel.variable(pid, records.MARKER.encode()) == marker
