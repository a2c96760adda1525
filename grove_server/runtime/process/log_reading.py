"""Reads what containers wrote, from the rotated files that their keepers write.

A run of a container writes `<attempt>.log`; when that is full it becomes `<attempt>.log.1` and so on, the highest
number being the oldest, and the oldest is deleted in the end. A line of a file is `STAMP stdout|stderr F|P CONTENT`:
F ends a line of the container, P says that it goes on in the next line of the same stream (the format of the
Kubernetes CRI). Content may hold any bytes but the newline.

A reader holds one file open and keeps nothing that was not asked for, so a slow one costs no memory. When it comes to
the end of a file it looks for that file, by its inode, among those that are there and goes on with the next one. If it
is not there any more, output may have been discarded unread; the next piece says so.

The start is found from the end: the last lines by reading backwards, a time by bisecting, since stamps only grow
(where the machine's clock was set back, what follows the first line that is young enough is sent, whatever its stamp).

Not here: whose run it is and whether it still goes on (the console), and when to look again (``follow``'s caller says
how to read in another thread; the files may be on a slow disk).
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from grove_server.runtime.containers import STAMP_LENGTH, LogLine, LogPiece, LogQuery

PIECE_BYTES: Final = 64 << 10
# How long a reader that has all sleeps: short after output, longer the longer there is none.
_POLL_MIN_S: Final = 0.05
_POLL_MAX_S: Final = 0.4
# Where the columns of a line are: the stream's name has six letters either way.
_STREAM_AT: Final = STAMP_LENGTH + 1
_TAG_AT: Final = _STREAM_AT + 7
_CONTENT_AT: Final = _TAG_AT + 2
_STREAMS: Final = {b"stdout": False, b"stderr": True}
_LISTINGS_MAX: Final = 10


class LogFile(NamedTuple):
    """One file of a run."""

    inode: int
    path: Path


class _Place(NamedTuple):
    """Where to begin: which of the files, and at which byte."""

    number: int
    offset: int


def attempts(folder: Path) -> list[int]:
    """Return the runs of a container that left output, the first one first."""
    pattern = re.compile(r"(\d{1,9})\.log(\.\d{1,6})?")
    try:
        found = {int(match.group(1)) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    except FileNotFoundError:
        return []
    return sorted(found)


def log_files(folder: Path, attempt: int) -> list[LogFile]:
    """Return the files of a run, the oldest first; what a rotation moves meanwhile is looked at again."""
    listed = _listing(folder, attempt)
    for _ in range(_LISTINGS_MAX):
        again = _listing(folder, attempt)
        if again == listed:
            break
        listed = again
    return listed


def _listing(folder: Path, attempt: int) -> list[LogFile]:
    base = f"{attempt}.log"
    numbered = []
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    for name in names:
        if name != base and not (name.startswith(f"{base}.") and name[len(base) + 1 :].isdecimal()):
            continue
        try:
            inode = (folder / name).stat().st_ino
        except FileNotFoundError:
            continue
        numbered.append((-int(name[len(base) + 1 :] or 0), LogFile(inode, folder / name)))
    return [file for _, file in sorted(numbered)]


def parse_line(raw: bytes) -> LogLine | None:
    """Return the line of a file, without its newline; None for what is none (a write that the disk cut off)."""
    is_stderr = _STREAMS.get(raw[_STREAM_AT : _STREAM_AT + 6])
    tag = raw[_TAG_AT : _TAG_AT + 1]
    if is_stderr is None or tag not in (b"F", b"P"):
        return None
    try:
        time = raw[:STAMP_LENGTH].decode("ascii")
    except UnicodeDecodeError:
        return None
    return LogLine(time, is_stderr, raw[_CONTENT_AT:], tag == b"P")


class LogReader:
    """Reads the output of one run. Blocks for the disk, so that it is used in threads, by one at a time."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self._folder = folder
        self._attempt = attempt
        self._newest = folder / f"{attempt}.log"
        self._descriptor = -1
        self._inode = 0
        self._offset = 0
        self._since = b""
        self._has_gap = False
        self._end: tuple[int, int] | None = None
        # A reader that is given up may be closed while a thread still reads.
        self._lock = threading.Lock()

    def open(self, query: LogQuery) -> None:
        """Go to where to begin; what is written from now on is read only if the query follows."""
        with self._lock:
            self._open(query)

    def _open(self, query: LogQuery) -> None:
        self._since = query.since.encode("ascii")
        for _ in range(_LISTINGS_MAX):
            files = log_files(self._folder, self._attempt)
            if not files:
                return
            place = _Place(0, 0)
            if query.tail_lines is not None:
                place = _tail(files, query.tail_lines)
            if query.since:
                place = max(place, _since(files, self._since))
            if not query.follow:
                self._end = (files[-1].inode, _size(files[-1]))
            # A rotation meanwhile has moved another file to this name: all is looked at again.
            if self._hold(files[place.number]):
                self._offset = place.offset
                return

    def read(self, *, is_over: bool = False) -> LogPiece:
        """Return the next output, at most about PIECE_BYTES; no lines when all was read.

        *is_over* says that nothing more is written: then a last line that lacks its end is output, too.
        """
        with self._lock:
            return self._read(is_over=is_over)

    def _read(self, *, is_over: bool) -> LogPiece:
        lines: list[LogLine] = []
        while not lines:
            if self._descriptor < 0 and not self._move():
                break
            raw = self._block()
            end = raw.rfind(b"\n") + 1
            if end:
                self._offset += end
                lines = self._lines(raw[: end - 1].split(b"\n"))
            elif len(raw) == PIECE_BYTES:
                # No keeper writes lines of this length: it is what a broken disk left.
                self._offset += len(raw)
                self._has_gap = True
            elif self._is_at_limit() or not self._move():
                if raw and is_over:
                    self._offset += len(raw)
                    lines = self._lines([raw])
                break
        has_gap, self._has_gap = self._has_gap, False
        return LogPiece(lines, has_gap)

    def has_news(self) -> bool:
        """Return whether there is more to read; cheap, and says yes rather too often."""
        try:
            if self._descriptor < 0:
                return bool(log_files(self._folder, self._attempt))
            if os.fstat(self._descriptor).st_size > self._offset:
                return True
            return self._newest.stat().st_ino != self._inode
        except FileNotFoundError:
            # Between two steps of a rotation; the newest file is there again soon.
            return False

    def close(self) -> None:
        """Let go of the file, once nobody reads it; harmless when called twice."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _block(self) -> bytes:
        room = PIECE_BYTES
        size = os.fstat(self._descriptor).st_size
        if size < self._offset:
            # A write that the disk cut off was taken back.
            self._offset = size
            self._has_gap = True
        if self._end is not None and self._end[0] == self._inode:
            room = max(0, min(room, self._end[1] - self._offset))
        return os.pread(self._descriptor, room, self._offset)

    def _is_at_limit(self) -> bool:
        return self._end is not None and self._end[0] == self._inode

    def _lines(self, raws: list[bytes]) -> list[LogLine]:
        lines = []
        for raw in raws:
            if self._since:
                if raw[:STAMP_LENGTH] < self._since:
                    continue
                self._since = b""
            line = parse_line(raw)
            if line is None:
                self._has_gap = True
            else:
                lines.append(line)
        return lines

    def _move(self) -> bool:
        """Go on to the file after this one; False if there is none."""
        for _ in range(_LISTINGS_MAX):
            files = log_files(self._folder, self._attempt)
            position = next((number for number, file in enumerate(files) if file.inode == self._inode), None)
            if self._descriptor < 0:
                following, is_lost = files[:1], False
            elif position is None:
                following, is_lost = files[:1], True
            else:
                following, is_lost = files[position + 1 : position + 2], False
            if not following:
                return False
            if self._descriptor >= 0 and os.fstat(self._descriptor).st_size > self._offset and self._is_written():
                # A successor means that this file is complete, but its last lines came after the last look.
                return True
            if self._is_past_limit(files):
                return False
            if self._hold(following[0]):
                self._has_gap = self._has_gap or is_lost
                return True
        return False

    def _is_written(self) -> bool:
        """Return whether whole lines are left in a file that is complete; torn ones are dropped with a gap."""
        if b"\n" in self._block():
            return True
        self._has_gap = True
        return False

    def _is_past_limit(self, files: list[LogFile]) -> bool:
        """Return whether all files that were to be read are gone."""
        return self._end is not None and all(file.inode != self._end[0] for file in files)

    def _hold(self, file: LogFile) -> bool:
        """Open a file in place of the present one; False if a rotation moved another to its name."""
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        if os.fstat(descriptor).st_ino != file.inode:
            os.close(descriptor)
            return False
        self._drop()
        self._descriptor, self._inode, self._offset = descriptor, file.inode, 0
        return True


async def follow(
    reader: LogReader, query: LogQuery, *, is_over: Callable[[], bool], threads: Executor
) -> AsyncGenerator[LogPiece, None]:
    """Yield output until all is read and, if the query follows, *is_over* says that nothing more is written.

    Reads in *threads*, the next piece only when the one before was taken. Closes the reader.
    """
    loop = asyncio.get_running_loop()
    delay_s = _POLL_MIN_S
    try:
        await loop.run_in_executor(threads, reader.open, query)
        while True:
            # Asked before reading, so that all that was written before the end is read.
            over = is_over()
            piece = LogPiece(())
            if over or not query.follow or reader.has_news():
                piece = await loop.run_in_executor(threads, partial(reader.read, is_over=over))
            if piece.lines or piece.has_gap:
                delay_s = _POLL_MIN_S
                yield piece
            elif over or not query.follow:
                return
            else:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _POLL_MAX_S)
    finally:
        try:
            threads.submit(reader.close)
        except RuntimeError:
            # The threads are gone, and with them whoever read.
            reader.close()


def _size(file: LogFile) -> int:
    try:
        return file.path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail(files: list[LogFile], count: int) -> _Place:
    """Return where the last *count* lines begin. A last line that still goes on counts as one.

    Where long lines of both streams are mixed, the first line may lack its beginning.
    """
    start = _Place(max(0, len(files) - 1), 0)
    found = 0
    is_last = True
    for index in reversed(range(len(files))):
        for offset, raw in _backwards(files[index].path):
            if is_last:
                start = _Place(index, offset + len(raw) + 1)
            if is_last or raw[_TAG_AT : _TAG_AT + 1] == b"F":
                if found == count:
                    return start
                found += 1
            is_last = False
            start = _Place(index, offset)
    return start


def _backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that have their newline, the last one first, each with the offset of its first byte."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        position = stream.seek(0, os.SEEK_END)
        rest = b""
        is_whole = False
        while position:
            size = min(PIECE_BYTES, position)
            position -= size
            stream.seek(position)
            raws = (stream.read(size) + rest).split(b"\n")
            at = position + sum(map(len, raws)) + len(raws)
            # The first one may go on in the block before.
            for raw in reversed(raws[1:]):
                at -= len(raw) + 1
                if is_whole:
                    yield at, raw
                is_whole = True
            rest = raws[0]
        if is_whole:
            yield 0, rest


def _since(files: list[LogFile], since: bytes) -> _Place:
    """Return a place not far before the first line that is not older than *since*."""
    index = 0
    for number, file in enumerate(files):
        first = _stamp_after(file.path, 0)
        if first is not None and first[1] < since:
            index = number
    if not files:
        return _Place(0, 0)
    path = files[index].path
    low, high = 0, _size(files[index])
    while high - low > PIECE_BYTES:
        middle = (low + high) // 2
        found = _stamp_after(path, middle)
        if found is not None and found[0] < high and found[1] < since:
            low = found[0]
        else:
            high = middle
    return _Place(index, low)


def _stamp_after(path: Path, offset: int) -> tuple[int, bytes] | None:
    """Return offset and stamp of the first line that begins after *offset* (at it, for 0); None if there is none."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return None
    with stream:
        stream.seek(offset)
        if offset:
            stream.readline(PIECE_BYTES)
        at = stream.tell()
        stamp = stream.read(STAMP_LENGTH)
    return (at, stamp) if len(stamp) == STAMP_LENGTH else None
