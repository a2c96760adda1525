"""The launcher program's loop: takes orders from the server, forks, buries, and ends with its server.

Orders (``op``): ``launch`` (a keeper is forked; it answers), ``exec``, ``signal_exec``, ``sweep`` (what a lost run
left), ``tidy`` (logs of pods that are gone). Every order with an ``id`` gets one answer with it.

It sleeps in one poll: for orders, for output of commands, for children that end, and until the next deadline of a
command; with nothing to do it never wakes. When the server goes, whichever way, its end of the link closes: commands
are killed and the program ends, while keepers go on. The launcher's lock is held by it, and by a keeper until its
start is complete: a new launcher program that has the lock knows that every start before it is done or undone.

Not here: what a keeper or a command does (`keeper.py`, `execs.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import time

from grove_server.runtime.process.program import child, keeper, kernel, messages, records, sweeping
from grove_server.runtime.process.program.child import StartFailure
from grove_server.runtime.process.program.execs import Execs, end_commands_of_the_dead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from grove_server.runtime.process.program.messages import Header, Message

# Answers wait for the server to read; a server that reads nothing for so long has its link closed.
SEND_WAIT_MAX_S: Final = 30.0
# Killed commands have so many rounds to end before the program leaves without them.
LEAVE_ROUNDS_MAX: Final = 50
LEAVE_WAIT_S: Final = 0.02


def main(arguments: list[str]) -> None:
    """Run the launcher program: ``DATA_DIR FD``."""
    data_dir, descriptor = arguments[1], int(arguments[2])
    os.set_inheritable(descriptor, False)  # noqa: FBT003 -- the standard library takes it by position alone
    # What containers make has the usual mode; what is ours is given its mode where it is made.
    os.umask(0o022)
    link = socket.socket(fileno=descriptor)
    Launcher(data_dir, link).run()


class Launcher:
    """The state of the launcher program."""

    def __init__(self, data_dir: str, link: socket.socket) -> None:
        self._data_dir = data_dir
        self._link = link
        self._lock = -1
        self._woken, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = select.poll()
        self._execs = Execs(data_dir, self._poller)
        # Forks of ours that end by themselves: keepers and errands.
        self._own: set[int] = set()

    def run(self) -> None:
        """Work until the server has closed the link."""
        kernel.name_launcher()
        kernel.adopt_orphans()
        child.handle_signals()
        self._take_lock()
        end_commands_of_the_dead()
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._poller.register(self._link, select.POLLIN)
        self._poller.register(self._woken, select.POLLIN)
        # Known to every keeper from the start.
        kernel.boot_id()
        # Pages that nobody touches stay shared with every keeper.
        gc.collect()
        gc.freeze()
        self._answer({"ready": os.getpid()})
        while self._turn():
            pass
        self._leave()

    def _leave(self) -> None:
        """End all commands and what they left behind; keepers go on."""
        self._execs.end_all()
        for _ in range(LEAVE_ROUNDS_MAX):
            self._bury(may_answer=False)
            others = [pid for pid in kernel.children() if pid not in self._own]
            if not others:
                return
            for pid in others:
                kernel.send(pid, signal.SIGKILL)
            select.select([self._woken], [], [], LEAVE_WAIT_S)

    def _take_lock(self) -> None:
        """Wait until no launcher program before us runs, and no start that it began."""
        path = f"{records.process_dir(self._data_dir)}/{records.LAUNCHER_LOCK_FILE}"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _turn(self) -> bool:
        """Wait for something and see to it; False once the server is gone."""
        deadline_s = self._execs.next_deadline_s()
        wait_ms = None if deadline_s == float("inf") else max(0.0, deadline_s - time.monotonic()) * 1000 + 1
        for descriptor, events in self._poller.poll(wait_ms):
            if descriptor == self._link.fileno():
                # Orders of a server that is gone are not begun: the next one decides anew.
                if events & (select.POLLHUP | select.POLLERR) or not self._take_order():
                    return False
            elif descriptor == self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._bury()
            else:
                self._execs.read(descriptor)
        self._execs.end_late()
        return True

    def _take_order(self) -> bool:
        message = messages.receive(self._link)
        if message is None:
            return False
        try:
            self._carry_out(message)
        except StartFailure as failure:
            self._refuse(message, failure.reason, failure.message)
        except OSError as error:
            self._refuse(message, child.reason_of(error), str(error))
        except ValueError as error:
            # What no kernel takes, such as a NUL byte in an argument.
            self._refuse(message, "StartFailed", str(error))
        finally:
            for descriptor in message.fds:
                os.close(descriptor)
        return True

    def _carry_out(self, message: Message) -> None:
        header = message.header
        match header["op"]:
            case "launch":
                self._fork(lambda: keeper.keep(header, self._data_dir, self._link, self._lock))
            case "exec":
                answer = self._execs.start(message)
                if answer is not None:
                    self._answer(*answer)
            case "signal_exec":
                self._execs.send(header["exec"], header["number"])
            case "end_exec":
                self._execs.send(header["exec"], signal.SIGKILL)
            case "sweep":
                self._fork(lambda: self._sweep(header))
            case "tidy":
                self._fork(lambda: records.remove_forgotten_logs(self._data_dir, header["kept_max"]))
            case unknown:
                self._refuse(message, "StartFailed", f"no such order: {unknown}")

    def _fork(self, work: Callable[[], None]) -> None:
        """Do some work in a process of its own, which ends with it."""
        pid = os.fork()
        if pid:
            self._own.add(pid)
            return
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 -- a fork must not return into its parent's loop, whatever happens
            records.write_failure(self._data_dir, error)
        finally:
            os._exit(code)

    def _sweep(self, header: Header) -> None:
        os.close(self._lock)
        uid, container, attempt = header["key"]
        ended = sweeping.sweep(self._data_dir, (uid, container, attempt))
        self._answer({"id": header["id"], "ended": ended})

    def _bury(self, *, may_answer: bool = True) -> None:
        """Reap every child that has ended, and answer for commands."""
        seen_exec = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            pid = found.si_pid
            is_exec = self._execs.ended(pid)
            _, status = os.waitpid(pid, 0)
            if is_exec:
                answer = self._execs.finish(pid, status)
                if may_answer:
                    self._answer(*answer)
            # A keeper that was killed leaves orphans just as a command may.
            seen_exec = seen_exec or is_exec or (pid in self._own and status != 0)
            self._own.discard(pid)
        if seen_exec and not self._execs.has_streamed:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """Kill what commands left behind: children that nobody here started."""
        for pid in kernel.children():
            if pid not in self._own and pid not in self._execs.pids:
                kernel.send(pid, signal.SIGKILL)

    def _refuse(self, message: Message, reason: str, text: str) -> None:
        if "id" in message.header:
            self._answer({"id": message.header["id"], "error": {"reason": reason, "message": text}})

    def _answer(self, header: Header, body: bytes = b"") -> None:
        # The server is gone, or so stuck that it is as good as gone: the poll tells, and nothing else does.
        with contextlib.suppress(OSError):
            self._link.settimeout(SEND_WAIT_MAX_S)
            messages.send(self._link, header, body)
