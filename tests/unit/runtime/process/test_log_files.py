"""What containers say, in files: form, bounds, floods, and disks that are full."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from grove_server.runtime.process.launching import Launcher
from grove_server.runtime.process.program import records
from grove_server.runtime.process.program.log_files import LINE_BYTES_MAX, LogFiles
from tests.unit.runtime.process.containers import Ends, log_texts, record_of, shell
from tests.waiting import until

MOUNT, UMOUNT = "/bin/mount", "/bin/umount"
LINE = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)$", re.DOTALL)


def parsed(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    """Return stream, tag and text of each line of a file; each line must have the CRI's form."""
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    found = [LINE.match(line) for line in lines]
    assert None not in found
    return [(match[1], match[2], match[3]) for match in found if match is not None]


def written(path: Path, chunks: list[tuple[bytes, bytes]], *, file_bytes_max: int = 10**6, files_max: int = 3) -> None:
    """Write chunks, given as (stream, bytes)."""
    files = LogFiles(str(path), file_bytes_max=file_bytes_max, files_max=files_max)
    for stream, chunk in chunks:
        files.take(stream, chunk)
    files.finish()


def test_lines_are_whole_however_they_come(tmp_path: Path) -> None:
    """A line is written when its end has come, streams do not mix, and the last needs no end."""
    path = tmp_path / "log"
    written(path, [(b"stdout", b"a\nb"), (b"stderr", b"x"), (b"stdout", b"c\n\n"), (b"stderr", b"y\nz")])
    assert parsed(path) == [
        (b"stdout", b"F", b"a"),
        (b"stdout", b"F", b"bc"),
        (b"stdout", b"F", b""),
        (b"stderr", b"F", b"xy"),
        (b"stderr", b"F", b"z"),
    ]


@pytest.mark.parametrize("step", [1000, 65536, 10**6])
def test_long_lines_come_in_pieces(tmp_path: Path, step: int) -> None:
    """A line of more than 16 KiB is written in pieces, the last marked as the end, whatever chunks it comes in."""
    path = tmp_path / "log"
    text = os.urandom(100_000).replace(b"\n", b" ") + b"\nshort\n"
    written(path, [(b"stdout", text[start : start + step]) for start in range(0, len(text), step)])
    lines = parsed(path)
    assert max(len(line[2]) for line in lines) == LINE_BYTES_MAX
    assert b"".join(line[2] + (b"\n" if line[1] == b"F" else b"") for line in lines) == text


@pytest.mark.parametrize("files_max", [1, 2, 4])
def test_files_are_bounded(tmp_path: Path, files_max: int) -> None:
    """Files stay below their limit and their number, and hold the newest lines without a gap."""
    path = tmp_path / "log"
    written(
        path,
        [
            (b"stdout", b"".join(b"line %d\n" % number for number in range(start, start + 50)))
            for start in range(0, 5000, 50)
        ],
        file_bytes_max=5000,
        files_max=files_max,
    )
    names = [path, *(Path(f"{path}.{number}") for number in range(1, files_max))]
    assert sorted(tmp_path.iterdir()) == sorted(names)
    assert all(4000 < name.stat().st_size <= 5000 for name in names[1:])
    numbers = [int(line[2].split()[1]) for name in reversed(names) for line in parsed(name)]
    assert numbers == list(range(5000 - len(numbers), 5000))


async def test_a_flood_is_bounded(launcher: Launcher, ends: Ends) -> None:
    """A container that writes as fast as it can is slowed, and costs neither memory nor disk beyond its bounds."""
    run = await launcher.launch(
        shell("yes 'a line of a flood' & sleep 1; echo over", log_bytes_max=1_000_000, log_files_max=2)
    )
    folder = launcher.log_path(*run.key).parent
    await ends.of(run)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_000_000
    assert len(list(folder.iterdir())) == 2


async def test_a_flood_costs_no_memory(launcher: Launcher) -> None:
    """The keeper of a flooding container holds a few chunks at most."""
    quiet = await launcher.launch(shell("sleep 1000", uid="quiet"))
    run = await launcher.launch(shell("yes ''", log_bytes_max=1_000_000, log_files_max=2))
    await until(lambda: Path(f"{launcher.log_path(*run.key)}.1").exists(), "a rotation")
    # Between two steps of a rotation there is no newest file.
    older = Path(f"{launcher.log_path(*run.key)}.1").stat().st_ino
    await until(lambda: Path(f"{launcher.log_path(*run.key)}.1").stat().st_ino != older, "another rotation")
    assert memory_kib(run.keeper_pid) - memory_kib(quiet.keeper_pid) < 16 * 1024
    await launcher.kill(run)


def memory_kib(pid: int) -> int:
    """Return the most memory that a process ever had."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1])  # type: ignore[index]  # the kernel always has it


@contextlib.contextmanager
def refusing_disk() -> Iterator[None]:
    """Let this process write no file beyond 64 KiB, as a full disk would refuse more."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    """A disk that takes no more loses whole lines only, and the next that is written says how much."""
    path = tmp_path / "log"
    files = LogFiles(str(path), file_bytes_max=10**6, files_max=2)
    with refusing_disk():
        for number in range(3000):
            files.take(b"stdout", b"line %d\n" % number)
    files.take(b"stdout", b"after\n")
    files.finish()
    lines = parsed(path)
    assert files.dropped_bytes > 50_000
    assert lines[-1] == (b"stdout", b"F", b"after")
    assert b"%d bytes of the log were dropped here" % files.dropped_bytes in lines[-2][2]
    assert [line[2] for line in lines[:-2]] == [b"line %d" % number for number in range(len(lines) - 2)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a file system of 2 MB, or of no more than others if this machine lets us mount none."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run([MOUNT, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True)
    yield folder
    if mounted.returncode == 0:
        subprocess.run([UMOUNT, "-l", folder], check=True)


async def test_a_full_disk_stops_no_container(small_disk: Path, ends: Ends) -> None:
    """With a full disk a container goes on, its exit code is recorded, and its end tells of the loss."""
    launcher = Launcher(small_disk, on_end=ends)
    await launcher.start()
    run = await launcher.launch(
        shell(f"head -c 8000000 /dev/zero | tr '\\0' '\\n'; touch {small_disk}/../through; exit 11")
    )
    ended = (await ends.of(run)).ended
    assert ended is not None
    assert ended.exit_code == 11
    assert (small_disk.parent / "through").exists()
    assert record_of(small_disk, run, "exit.json")["exit_code"] == 11
    if small_disk.is_mount():
        assert "could not be written" in ended.message
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "more").write_bytes(b"x" * 1_000_000)
    await launcher.stop()
    assert log_texts(launcher, run)[0] == ""


def test_logs_of_forgotten_pods_are_bounded(tmp_path: Path) -> None:
    """Of pods without state the logs that were written last are kept; those of known pods are not touched."""
    data_dir = str(tmp_path)
    records.make_folders(data_dir)
    for number in range(6):
        log = Path(records.log_file(data_dir, (f"pod{number}", "main", 0)))
        log.parent.mkdir(parents=True)
        log.write_text("text")
        os.utime(log, (1000 - number, 1000 - number))
    Path(records.run_dir(data_dir, ("pod5", "main", 0))).mkdir(parents=True)
    records.remove_forgotten_logs(data_dir, 2)
    assert sorted(path.name for path in Path(records.logs_dir(data_dir)).iterdir()) == ["pod0", "pod1", "pod5"]
