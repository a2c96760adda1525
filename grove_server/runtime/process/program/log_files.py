"""A run's log: lines in the form of the CRI, in files of bounded size and number.

``2026-11-24T14:00:00.123456789Z stdout F text``: the time at which the line's end was read, the stream, F for a whole
line or P for a piece of one that is longer than 16 KiB (containerd's limit), the text. The newest file is ``N.log``,
older ones ``N.log.1``, ``N.log.2`` …; no file exceeds its limit, but for a single line that alone is longer.

A disk that takes no more never stops the container: what cannot be written is dropped and counted, and the first line
that can be written again says so.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LINE_BYTES_MAX: Final = 16 * 1024


class LogFiles:
    """Writes what a container says; single-threaded, memory bounded by one chunk and one line of each stream."""

    def __init__(self, path: str, *, file_bytes_max: int, files_max: int) -> None:
        self.dropped_bytes = 0
        self._path = path
        self._file_bytes_max = file_bytes_max
        self._files_max = max(1, files_max)
        self._file: int | None = None
        self._size = 0
        self._unsaid_bytes = 0
        self._refusal = ""
        self._rests: dict[bytes, bytes] = {}
        self._second = -1
        self._second_text = b""

    def take(self, stream: bytes, chunk: bytes) -> None:
        """Take what was read from a stream (``stdout`` or ``stderr``); a line is written once its end has come."""
        lines = (self._rests.pop(stream, b"") + chunk).split(b"\n")
        rest = lines.pop()
        head = self._stamp() + b" " + stream
        if lines:
            if len(max(lines, key=len)) <= LINE_BYTES_MAX:
                # The common case in one pass: a flood must not cost a step for each line.
                full = head + b" F "
                self._append(full + (b"\n" + full).join(lines) + b"\n")
            else:
                self._append(b"".join(_pieces(head, line) for line in lines))
        while len(rest) >= LINE_BYTES_MAX:
            self._append(head + b" P " + rest[:LINE_BYTES_MAX] + b"\n")
            rest = rest[LINE_BYTES_MAX:]
        if rest:
            self._rests[stream] = rest

    def finish(self) -> None:
        """Write lines that never ended, and close."""
        for stream, rest in sorted(self._rests.items()):
            self._append(self._stamp() + b" " + stream + b" F " + rest + b"\n")
        self._rests.clear()
        if self._unsaid_bytes:
            self._write(b"")
        self._close()

    def _append(self, text: bytes) -> None:
        start = 0
        while start < len(text):
            room = self._file_bytes_max - self._size
            stop = len(text)
            if stop - start > room:
                stop = text.rfind(b"\n", start, start + max(0, room)) + 1
                if stop <= start:
                    if self._size > 0:
                        self._rotate()
                        continue
                    stop = text.index(b"\n", start) + 1
            self._write(text[start:stop])
            start = stop

    def _write(self, text: bytes) -> None:
        note = b""
        if self._unsaid_bytes:
            what = f"[grove] {self._unsaid_bytes} bytes of the log were dropped here: {self._refusal}"
            note = self._stamp() + b" stderr F " + what.encode() + b"\n"
        kept = self._write_lines(note + text)
        if kept >= len(note):
            self._unsaid_bytes = 0
        lost = len(text) - max(0, kept - len(note))
        self.dropped_bytes += lost
        self._unsaid_bytes += lost

    def _write_lines(self, text: bytes) -> int:
        """Write as many whole lines as the disk takes; return their length."""
        written = 0
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            while written < len(text):
                written += os.write(self._file, text[written:] if written else text)
        except OSError as error:
            self._refusal = error.strerror or str(error)
            half = written
            written = text.rfind(b"\n", 0, half) + 1
            if self._file is not None and written < half:
                os.ftruncate(self._file, self._size + written)
        self._size += written
        return written

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        self._close()
        self._size = 0
        names = [self._path, *(f"{self._path}.{number}" for number in range(1, self._files_max))]
        try:
            for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
                if os.path.exists(newer):
                    os.replace(newer, older)
            if len(names) == 1:
                os.unlink(self._path)
        except OSError as error:
            self._refusal = error.strerror or str(error)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _stamp(self) -> bytes:
        second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return self._second_text + b"%09dZ" % nanosecond


def _pieces(head: bytes, line: bytes) -> bytes:
    """Return a line's text, in pieces if it is too long for one."""
    cuts = range(0, max(len(line), 1), LINE_BYTES_MAX)
    parts = [line[start : start + LINE_BYTES_MAX] for start in cuts]
    return b"".join(
        head + (b" F " if index == len(parts) - 1 else b" P ") + part + b"\n" for index, part in enumerate(parts)
    )
