"""The launcher program, or what the server needs for it, fails at the worst moment: nothing waits without end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grove_server.runtime.process.launcher_link import PROGRAM, LauncherLink
from grove_server.runtime.process.launching import Launcher, LaunchError
from grove_server.runtime.process.program import kernel, records
from tests.unit.runtime.process.containers import order, runs_once
from tests.waiting import until

# Far more than any of this takes, and less than the limits after which the launcher gives up by itself.
SOON_S = 15.0


@contextmanager
def launcher_lock(data_dir: Path) -> Iterator[int]:
    """Hold the lock that each launcher program waits for; whoever has it now must be about to end."""
    path = f"{records.process_dir(str(data_dir))}/{records.LAUNCHER_LOCK_FILE}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def programs(data_dir: Path) -> list[int]:
    """Return the launcher programs of a data directory that live."""
    found = []
    for pid in kernel.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # A keeper is a fork of the program, and is called after itself.
        if os.fsencode(PROGRAM) in words and os.fsencode(data_dir) in words and is_launcher(pid):
            found.append(pid)
    return found


def is_launcher(pid: int) -> bool:
    """Tell a launcher program from its keepers; one that is still starting has no name of its own yet."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() != "grove-keeper\n"
    except OSError:
        return False


async def test_a_successor_that_dies_while_it_starts_is_replaced_once(launcher: Launcher, tmp_path: Path) -> None:
    """When the program that takes the place of a dead one dies before it is ready, one follows it, not two."""
    first = launcher.pid
    os.kill(first, signal.SIGKILL)
    # Nothing has run on the loop since: the second one is not started before the lock is ours.
    with launcher_lock(tmp_path):
        await until(lambda: launcher.pid not in {0, first}, "a second program was started")
        second = launcher.pid
        os.kill(second, signal.SIGKILL)
        await until(lambda: launcher.pid not in {0, first, second}, "a third program was started")
    async with asyncio.timeout(SOON_S):
        run = await launcher.launch(order("sleep", "100"))
    assert programs(tmp_path) == [launcher.pid]
    await runs_once(run)


async def test_closing_is_cancelled_without_waiting_for_the_program(tmp_path: Path) -> None:
    """Who is cancelled while a program is let go, which waits for its lock, goes on at once; the program is killed."""
    records.make_folders(str(tmp_path))
    is_over = threading.Event()
    with launcher_lock(tmp_path) as lock:

        def let_go_if_stuck() -> bool:
            """Give the lock away where the event loop stands still for it, so that this test can end."""
            if is_over.wait(SOON_S):
                return False
            fcntl.flock(lock, fcntl.LOCK_UN)
            return True

        link = LauncherLink(tmp_path, on_answer=lambda _: None, on_gone=lambda: None)
        opening = asyncio.create_task(link.open())
        await until(lambda: link.pid != 0, "the program was started")
        watching = asyncio.get_running_loop().run_in_executor(None, let_go_if_stuck)
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        is_over.set()
        assert not await watching, "the event loop stood still until the lock was free"
        with pytest.raises(LaunchError):
            await opening
        assert not kernel.is_alive(link.pid)
