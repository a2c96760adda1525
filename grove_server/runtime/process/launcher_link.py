"""The server's end of the launcher program: its process, the socket to it, orders and answers.

A `LauncherLink` lives as long as one launcher program. Its end (`on_gone`) is also the end of every order without an
answer: since a keeper holds the socket until it has answered, an order that is unanswered when the socket closes was
not carried out, or by a keeper that was killed.

Not here: starting a new program after the end of one, and what orders mean (`launching.py`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from grove_server.runtime.process.program import messages
from grove_server.runtime.process.runs import LaunchError

PROGRAM: Final = Path(__file__).parent / "program" / "__main__.py"
START_WAIT_MAX_S: Final = 30.0
STOP_WAIT_MAX_S: Final = 5.0
UNSENT_MAX: Final = 1024
# Messages taken in one step of the event loop.
BATCH_MAX: Final = 32
# Libraries of an interpreter that is installed in an unusual place; nothing else of our environment is passed on.
PASSED_VARIABLES: Final = ("LD_LIBRARY_PATH",)

# Orders and answers are JSON between two processes of our own.
Header = dict[str, Any]
Answer = tuple[Header, bytes]


class LauncherLink:
    """One launcher program and the socket to it."""

    def __init__(self, data_dir: Path, *, on_answer: Callable[[Header], None], on_gone: Callable[[], None]) -> None:
        """*on_answer* sees the header of each answer before whoever waits for it does; it must not raise."""
        self._data_dir = data_dir
        self._on_answer = on_answer
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: collections.deque[tuple[Header, tuple[int, ...]]] = collections.deque()
        self._ready = self._loop.create_future()
        self._is_open = False
        self._socket: socket.socket | None = None
        self._program: subprocess.Popen[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether orders reach the program."""
        return self._is_open

    @property
    def pid(self) -> int:
        """The program's process id; 0 if it does not run."""
        return self._program.pid if self._program is not None else 0

    async def open(self) -> None:
        """Start the program and wait until it takes orders; raise LaunchError if it does not."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_blocking(ours.fileno(), False)
        self._socket = ours
        arguments = [sys.executable, "-I", "-S", "-X", "utf8", str(PROGRAM), str(self._data_dir), str(theirs.fileno())]
        try:
            self._program = subprocess.Popen(  # noqa: S603, ASYNC220 -- our own program; once per server, milliseconds
                arguments,
                env={name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise LaunchError("LauncherUnavailable", f"the launcher program cannot be started: {error}") from error
        finally:
            theirs.close()
        self._is_open = True
        self._loop.add_reader(ours.fileno(), self._receive)
        try:
            async with asyncio.timeout(START_WAIT_MAX_S):
                await self._ready
        except TimeoutError:
            await self.close()
            message = (
                f"the launcher program does not answer within {START_WAIT_MAX_S:g} s; does an older one still run?"
            )
            raise LaunchError("LauncherUnavailable", message) from None

    async def ask(self, header: Header, fds: Sequence[int] = ()) -> Answer:
        """Send an order and return its answer; raise LaunchError if it is refused, or the program goes.

        *fds* are duplicated by the socket; the caller closes its own. A caller that is cancelled leaves the order.
        """
        number = next(self._numbers)
        return await self.ask_numbered(number, header, fds)

    def number(self) -> int:
        """Return a number for an order that is to be spoken of before its answer comes."""
        return next(self._numbers)

    async def ask_numbered(self, number: int, header: Header, fds: Sequence[int] = ()) -> Answer:
        """Do what `ask` does, for an order with a number of its own."""
        return await self.answer_to(self.send(number, header, fds))

    def send(self, number: int, header: Header, fds: Sequence[int] = ()) -> asyncio.Future[Answer]:
        """Send an order with a number of its own at once; return what `answer_to` waits for. Raises LaunchError."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        try:
            self.tell({**header, "id": number}, fds)
        except LaunchError:
            answer.cancel()
            raise
        return answer

    async def answer_to(self, sent: asyncio.Future[Answer]) -> Answer:
        """Return the answer to an order that was sent; raise LaunchError if it is refused, or the program goes."""
        found = await sent
        error = found[0].get("error")
        if error is not None:
            raise LaunchError(error["reason"], error["message"])
        return found

    def tell(self, header: Header, fds: Sequence[int] = ()) -> None:
        """Send an order; raise LaunchError if the program is gone, or takes none for too long."""
        if self._socket is None or not self._is_open:
            raise LaunchError("LauncherUnavailable", "the launcher program does not run")
        if len(self._unsent) >= UNSENT_MAX:
            raise LaunchError("LauncherUnavailable", f"{UNSENT_MAX} orders wait for the launcher program")
        if not self._unsent:
            try:
                messages.send(self._socket, header, fds=tuple(fds))
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._send_unsent)
            except messages.TooLongError as error:
                raise LaunchError("ArgumentsTooLong", str(error)) from error
            except ConnectionError as error:
                self._read_to_the_end()
                raise LaunchError("LauncherUnavailable", f"the launcher program is gone: {error}") from error
            except OSError as error:
                raise LaunchError("Resources", f"an order cannot be sent: {error}") from error
            else:
                return
        self._unsent.append((header, tuple(os.dup(descriptor) for descriptor in fds)))

    def _send_unsent(self) -> None:
        assert self._socket is not None
        try:
            while self._unsent:
                header, fds = self._unsent[0]
                messages.send(self._socket, header, fds=fds)
                self._drop_first_unsent()
        except BlockingIOError:
            return
        except messages.TooLongError as error:
            self._fail(self._drop_first_unsent(), LaunchError("ArgumentsTooLong", str(error)))
            return
        except ConnectionError:
            self._read_to_the_end()
            return
        except OSError as error:
            self._fail(self._drop_first_unsent(), LaunchError("Resources", f"an order cannot be sent: {error}"))
            return
        self._loop.remove_writer(self._socket.fileno())

    def _fail(self, header: Header, error: LaunchError) -> None:
        waiting = self._waiting.get(header.get("id", 0))
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def _read_to_the_end(self) -> None:
        """Take the last answers of a program that is gone; nobody may count on it from here on."""
        while self._is_open and self._receive():
            pass

    def _drop_first_unsent(self) -> Header:
        header, fds = self._unsent.popleft()
        for descriptor in fds:
            os.close(descriptor)
        return header

    def _receive(self) -> bool:
        """Take some answers; return whether there may be more right now."""
        assert self._socket is not None
        for _ in range(BATCH_MAX):
            try:
                message = messages.receive(self._socket)
            except BlockingIOError:
                return False
            except OSError:
                message = None
            if message is None:
                self._shut("the launcher program ended")
                self._on_gone()
                return False
            header = message.header
            if "ready" in header:
                if not self._ready.done():
                    self._ready.set_result(None)
                continue
            self._on_answer(header)
            waiting = self._waiting.get(header["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result((header, message.body))
        return True

    def _shut(self, why: str) -> None:
        """Close our end; every order without answer fails."""
        if self._socket is None:
            return
        self._is_open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        while self._unsent:
            self._drop_first_unsent()
        error = LaunchError("LauncherUnavailable", why)
        for waiting in [self._ready, *self._waiting.values()]:
            if not waiting.done():
                waiting.set_exception(error)
                # Whoever waits hears of it; that nobody may be waiting any more is no fault.
                waiting.exception()

    async def close(self) -> None:
        """Let the program end, which it does when our end closes; harmless when it has ended."""
        self._shut("the launcher was stopped")
        if self._program is None or self._program.poll() is not None:
            return
        gone = asyncio.Event()
        descriptor = os.pidfd_open(self._program.pid)
        self._loop.add_reader(descriptor, gone.set)
        try:
            async with asyncio.timeout(STOP_WAIT_MAX_S):
                await gone.wait()
        except TimeoutError:
            pass
        finally:
            # Also when we are cancelled: a program that waits for its lock hears nothing of our end.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            # Ended, or killed just now: this takes no time to speak of.
            self._program.wait()
