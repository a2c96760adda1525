"""Reading what containers wrote, while it is written and rotated by the keeper's own code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grove_server.runtime.containers import LogPiece, LogQuery, stamp_at, stamp_of
from grove_server.runtime.process.log_reading import PIECE_BYTES, LogReader, attempts, follow
from grove_server.runtime.process.program.log_files import LINE_BYTES_MAX, LogFiles

FOLLOW = LogQuery(follow=True)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Give threads to read in."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def line(second: int, text: str = "", *, stream: str = "stdout", tag: str = "F") -> str:
    """Return a line of a log file; its stamp tells *second*, its text too if there is no other."""
    return f"{stamp_at(second)} {stream} {tag} {text or f'line {second}'}\n"


def write(folder: Path, *files: Sequence[str], attempt: int = 0) -> None:
    """Write the files of a run, the oldest first."""
    for age, lines in enumerate(reversed(files)):
        name = f"{attempt}.log.{age}" if age else f"{attempt}.log"
        (folder / name).write_text("".join(lines), encoding="utf-8")


def drained(reader: LogReader) -> list[LogPiece]:
    """Return all pieces that are there."""
    pieces: list[LogPiece] = []
    while True:
        piece = reader.read()
        if not piece.lines and not piece.has_gap:
            return pieces
        pieces.append(piece)


def texts(folder: Path, query: LogQuery = FOLLOW, attempt: int = 0) -> list[str]:
    """Return what a reader finds at once."""
    reader = LogReader(folder, attempt)
    reader.open(query)
    try:
        pieces = drained(reader)
    finally:
        reader.close()
    assert not any(piece.has_gap for piece in pieces)
    return [each.content.decode() for piece in pieces for each in piece.lines]


def test_lines_keep_stamp_stream_and_bytes(tmp_path: Path) -> None:
    """What a container wrote comes back byte for byte, with its time and stream."""
    files = LogFiles(str(tmp_path / "3.log"), file_bytes_max=1 << 20, files_max=2)
    content = bytes(set(range(256)) - {10})
    files.take(b"stdout", content + b"\n")
    files.take(b"stderr", b"\n")
    files.take(b"stdout", b"no end")
    files.finish()
    reader = LogReader(tmp_path, 3)
    reader.open(LogQuery())
    (piece,) = drained(reader)
    reader.close()
    assert [(each.is_stderr, each.content, each.is_partial) for each in piece.lines] == [
        (False, content, False),
        (True, b"", False),
        (False, b"no end", False),
    ]
    assert all(stamp_of(each.time) == each.time for each in piece.lines)


def test_a_long_line_comes_in_parts(tmp_path: Path) -> None:
    """A line beyond the keeper's limit is sent as parts that say that they go on, and the last lines count it once."""
    files = LogFiles(str(tmp_path / "0.log"), file_bytes_max=1 << 20, files_max=2)
    long = b"x" * (2 * LINE_BYTES_MAX + 5)
    files.take(b"stdout", b"before\n" + long + b"\nafter\n")
    files.finish()
    reader = LogReader(tmp_path, 0)
    reader.open(LogQuery(tail_lines=2))
    lines = [each for piece in drained(reader) for each in piece.lines]
    reader.close()
    assert [each.is_partial for each in lines] == [True, True, False, False]
    assert b"".join(each.content for each in lines[:3]) == long
    assert lines[3].content == b"after"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 100])
def test_the_last_lines_are_counted_over_rotated_files(tmp_path: Path, count: int) -> None:
    """Exactly the last lines come, from whichever file they are in."""
    write(tmp_path, [line(1), line(2)], [], [line(3), line(4), line(5)], [line(6)])
    expected = [f"line {second}" for second in range(1, 7)][max(0, 6 - count) :]
    assert texts(tmp_path, LogQuery(tail_lines=count)) == expected


@given(
    lengths=st.lists(st.integers(0, 3 * PIECE_BYTES // 4), max_size=12),
    count=st.integers(0, 13),
    cut=st.integers(0, 12),
)
def test_the_last_lines_are_found_whatever_their_length(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], count: int, cut: int
) -> None:
    """Reading backwards in blocks finds the same lines as reading all."""
    folder = tmp_path_factory.mktemp("logs")
    written = [line(second, f"{second}{'y' * length}") for second, length in enumerate(lengths)]
    write(folder, written[:cut], written[cut:])
    everything = texts(folder, LogQuery())
    assert len(everything) == len(lengths)
    assert texts(folder, LogQuery(tail_lines=count)) == (everything[-count:] if count else [])


@given(seconds=st.lists(st.integers(0, 60), max_size=400), since=st.integers(0, 61), cut=st.integers(0, 400))
def test_a_time_is_found_by_bisecting(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int], since: int, cut: int
) -> None:
    """Exactly the lines of that time and later come, whatever file they are in."""
    folder = tmp_path_factory.mktemp("logs")
    seconds.sort()
    written = [line(second, f"{number} {'z' * 800}") for number, second in enumerate(seconds)]
    write(folder, written[:cut], written[cut:])
    found = [int(text.split()[0]) for text in texts(folder, LogQuery(since=stamp_at(since)))]
    assert found == [number for number, second in enumerate(seconds) if second >= since]


def test_a_time_and_a_number_of_lines_hold_together(tmp_path: Path) -> None:
    """The stricter of both decides."""
    write(tmp_path, [line(second) for second in range(5)], [line(second) for second in range(5, 9)])
    assert texts(tmp_path, LogQuery(since=stamp_at(6), tail_lines=8)) == ["line 6", "line 7", "line 8"]
    assert texts(tmp_path, LogQuery(since=stamp_at(2), tail_lines=2)) == ["line 7", "line 8"]


def test_a_question_ends_where_the_output_ended_when_it_was_asked(tmp_path: Path) -> None:
    """Who does not follow a container that writes without pause gets an end all the same."""
    write(tmp_path, [line(1)])
    reader = LogReader(tmp_path, 0)
    reader.open(LogQuery())
    with (tmp_path / "0.log").open("a", encoding="utf-8") as stream:
        stream.write(line(2))
    (tmp_path / "0.log").rename(tmp_path / "0.log.1")
    write(tmp_path, [line(3)])
    (piece,) = drained(reader)
    reader.close()
    assert [each.content for each in piece.lines] == [b"line 1"]


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    """Half a line is not output until its other half is there, or nothing more is written."""
    path = tmp_path / "0.log"
    path.write_text(line(1) + line(2)[:-3], encoding="utf-8")
    reader = LogReader(tmp_path, 0)
    reader.open(FOLLOW)
    assert [each.content for each in reader.read().lines] == [b"line 1"]
    assert not reader.has_news() or not reader.read().lines
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line(2)[-3:] + "2026")
    assert [each.content for each in reader.read().lines] == [b"line 2"]
    torn = reader.read(is_over=True)
    reader.close()
    assert torn == LogPiece([], has_gap=True)


def test_a_slow_reader_is_told_what_it_missed(tmp_path: Path) -> None:
    """Files that are deleted before they are read leave a gap that is said, and memory is not used for them."""
    files = LogFiles(str(tmp_path / "0.log"), file_bytes_max=4_000, files_max=3)
    files.take(b"stdout", b"first\n")
    reader = LogReader(tmp_path, 0)
    reader.open(FOLLOW)
    assert [each.content for each in reader.read().lines] == [b"first"]
    for number in range(1_000):
        files.take(b"stdout", b"%d\n" % number)
    files.finish()
    pieces = drained(reader)
    reader.close()
    assert pieces[0].has_gap or pieces[1].has_gap
    numbers = [int(each.content) for piece in pieces for each in piece.lines]
    assert numbers[-1] == 999
    kept = sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("0.log*"))
    assert numbers[-kept:] == list(range(1_000 - kept, 1_000))


async def test_following_over_rotations_loses_nothing(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """A reader that keeps up gets every line once, in order, through many rotations, until the run is over."""
    files = LogFiles(str(tmp_path / "0.log"), file_bytes_max=10_000, files_max=5)
    reader = LogReader(tmp_path, 0)
    is_over = False
    found: list[int] = []
    read = asyncio.Event()

    async def read_all() -> None:
        async for piece in follow(reader, FOLLOW, is_over=lambda: is_over, threads=threads):
            assert not piece.has_gap
            found.extend(int(each.content) for each in piece.lines)
            read.set()

    reading = asyncio.create_task(read_all())
    for number in range(0, 15_000, 500):
        files.take(b"stdout", b"".join(b"%d\n" % each for each in range(number, number + 500)))
        read.clear()
        while not found or found[-1] < number:
            await asyncio.wait_for(read.wait(), 20)
            read.clear()
    files.take(b"stdout", b"15000")
    files.finish()
    is_over = True
    await asyncio.wait_for(reading, 20)
    assert found == list(range(15_001))


async def test_following_begins_before_the_first_line(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """Who follows a container that has not written yet gets its first line, and none that was there with tail 0."""
    for name, query, expected in (("empty", FOLLOW, [b"new"]), ("old", LogQuery(follow=True, tail_lines=0), [b"new"])):
        folder = tmp_path / name
        if name == "old":
            folder.mkdir()
            write(folder, [line(1)])
        reader = LogReader(folder, 0)
        pieces = follow(reader, query, is_over=lambda: False, threads=threads)
        first = asyncio.ensure_future(anext(pieces))
        await asyncio.wait((first,), timeout=0.1)
        assert not first.done()
        files = LogFiles(str(folder / "0.log"), file_bytes_max=10_000, files_max=5)
        files.take(b"stdout", b"new\n")
        assert [each.content for each in (await asyncio.wait_for(first, 20)).lines] == expected
        await pieces.aclose()


async def test_giving_up_closes_the_file(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """A reader that goes leaves no open file behind."""
    write(tmp_path, [line(1)])
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(20):
        pieces = follow(LogReader(tmp_path, 0), FOLLOW, is_over=lambda: False, threads=threads)
        await anext(pieces)
        await pieces.aclose()
    threads.shutdown(wait=True)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


def test_runs_are_known_by_their_files(tmp_path: Path) -> None:
    """Files of other names are not runs."""
    for name in ("0.log", "0.log.1", "12.log.3", "x.log", "3.log.tmp", "4.txt"):
        (tmp_path / name).touch()
    assert attempts(tmp_path) == [0, 12]
    assert attempts(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-11-24T14:00:00Z", "2026-11-24T14:00:00.000000000Z"),
        ("2026-11-24T15:00:00.5+01:00", "2026-11-24T14:00:00.500000000Z"),
        ("2026-11-24T14:00:00.1234567899Z", "2026-11-24T14:00:00.123456789Z"),
    ],
)
def test_times_become_stamps(text: str, stamp: str) -> None:
    """Times of any precision and zone are compared as text of one width."""
    assert stamp_of(text) == stamp


@pytest.mark.parametrize("text", ["", "today", "2026-11-24T14:00:00", "2026-11-24T14:00:00.Z", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A time without a zone could be any."""
    with pytest.raises(ValueError, match=r"."):
        stamp_of(text)
