"""A streamed command in a container: its descriptors on the server's side, read and written without blocking.

Nothing is buffered here: output is read when somebody asks for it, so a slow reader slows the command and costs no
memory; input is accepted as fast as the command takes it. With a terminal, the server holds its other end.

Not here: how the command is started (`program/execs.py`), and who may.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal as signals
import struct
import termios
from collections.abc import Awaitable, Callable
from typing import Final

from grove_server.runtime.process.runs import ExecOutput, LaunchError

CHUNK_BYTES: Final = 32 * 1024
END_OF_FILE: Final = b"\x04"
# A command whose launcher program has gone was killed with it.
KILLED_EXIT_CODE: Final = 128 + signals.SIGKILL


class Streams:
    """Descriptors of a command: the command's own, and our ends. -1 is none."""

    __slots__ = ("error", "input", "is_terminal", "output", "theirs")

    def __init__(self, *, tty: bool, stdin: bool) -> None:
        self.is_terminal = tty
        self.error = self.input = -1
        if tty:
            self.output, slave = os.openpty()
            self.input = os.dup(self.output)
            self.theirs = [slave, slave, slave]
        else:
            self.output, into = os.pipe()
            self.error, error_into = os.pipe()
            if stdin:
                source, self.input = os.pipe()
            else:
                source = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            self.theirs = [source, into, error_into]
        for descriptor in (self.output, self.error, self.input):
            if descriptor >= 0:
                os.set_blocking(descriptor, False)

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the terminal its size; without a terminal this does nothing."""
        if self.is_terminal and self.output >= 0:
            fcntl.ioctl(self.output, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_theirs(self) -> None:
        """Close the command's ends, which it has by now."""
        for descriptor in sorted(set(self.theirs)):
            os.close(descriptor)
        self.theirs = []

    def close_ours(self) -> None:
        """Close our ends, of a command that never came to be."""
        for descriptor in (self.output, self.error, self.input):
            if descriptor >= 0:
                os.close(descriptor)
        self.output = self.error = self.input = -1


class ExecSession:
    """A command that runs in a container, with its streams. Made by `Launcher.attach`."""

    def __init__(
        self, streams: Streams, ended: asyncio.Task[int], send: Callable[[int], None], release: Callable[[], None]
    ) -> None:
        """Take what `close` gives back by *release*; *ended* comes to the exit code, *send* signals the command."""
        self._streams = streams
        self._ended = ended
        self._send = send
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._waiting: set[asyncio.Event] = set()
        self._prefers_error = False

    async def read(self) -> ExecOutput | None:
        """Return the next output (at most 32 KiB), or None once all of it has been read. One reader at a time."""
        while True:
            sources = [(self._streams.output, False), (self._streams.error, True)]
            # In turn, so that a flood on one stream does not silence the other.
            sources.sort(key=lambda source: source[1] != self._prefers_error)
            open_sources = [source for source in sources if source[0] >= 0]
            if not open_sources:
                return None
            for descriptor, is_error in open_sources:
                try:
                    data = os.read(descriptor, CHUNK_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:
                    # EIO: the last process that had the terminal has ended.
                    if error.errno != errno.EIO:
                        raise
                    data = b""
                if data:
                    self._prefers_error = not is_error
                    return ExecOutput(data=data, is_error=is_error)
                self._close(is_error=is_error)
                break
            else:
                await self._until_any([descriptor for descriptor, _ in open_sources], self._loop.add_reader)

    async def write(self, data: bytes) -> None:
        """Give input; returns when the command's buffer has taken it. Input after its end is dropped."""
        view = memoryview(data)
        while view and self._streams.input >= 0:
            try:
                view = view[os.write(self._streams.input, view) :]
            except BlockingIOError:
                await self._until_any([self._streams.input], self._loop.add_writer)
            except (BrokenPipeError, OSError):
                # The command has closed its input, or has ended.
                return

    def close_input(self) -> None:
        """End the input; with a terminal this sends its end-of-file character."""
        if self._streams.input < 0:
            return
        if self._streams.is_terminal:
            with contextlib.suppress(OSError):
                os.write(self._streams.input, END_OF_FILE)
            return
        self._loop.remove_writer(self._streams.input)
        os.close(self._streams.input)
        self._streams.input = -1
        self._wake()

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the terminal its size; without a terminal this does nothing."""
        self._streams.resize(rows=rows, columns=columns)

    def signal(self, number: int) -> bool:
        """Send a signal to the command's process group; False if it has ended."""
        if self._ended.done():
            return False
        try:
            self._send(number)
        except LaunchError:
            return False
        return True

    async def wait(self) -> int:
        """Return the exit code (128 + signal if a signal ended it)."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """End the command if it still runs, with all that it started, and give back its streams."""
        if self._is_closed:
            return
        self._is_closed = True
        self.signal(signals.SIGKILL)
        for is_error in (False, True):
            self._close(is_error=is_error)
        if self._streams.input >= 0:
            self._loop.remove_writer(self._streams.input)
            os.close(self._streams.input)
            self._streams.input = -1
        self._wake()
        try:
            await self.wait()
        finally:
            self._release()

    def _close(self, *, is_error: bool) -> None:
        descriptor = self._streams.error if is_error else self._streams.output
        if descriptor < 0:
            return
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        if is_error:
            self._streams.error = -1
        else:
            self._streams.output = -1

    async def _until_any(self, descriptors: list[int], add: Callable[..., None]) -> None:
        """Return when the event loop says that one of the descriptors can go on."""
        remove = self._loop.remove_reader if add == self._loop.add_reader else self._loop.remove_writer
        ready = asyncio.Event()
        self._waiting.add(ready)
        for descriptor in descriptors:
            add(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            self._waiting.discard(ready)
            for descriptor in descriptors:
                # One that was closed meanwhile may have its number again, as somebody else's.
                if descriptor in {self._streams.output, self._streams.error, self._streams.input}:
                    remove(descriptor)

    def _wake(self) -> None:
        for ready in self._waiting:
            ready.set()


async def exit_code_of(answer: Awaitable[tuple[dict[str, object], bytes]]) -> int:
    """Return the exit code that an answer brings; that of a killed command if the launcher program goes first."""
    try:
        header, _ = await answer
    except LaunchError:
        return KILLED_EXIT_CODE
    code = header["exit_code"]
    assert isinstance(code, int)
    return code
