"""What runs use, of real processes and of folders in the shape of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from grove_server.runtime.process.runs import Ended, Run
from grove_server.runtime.process.usage import RunSample, cores_between, take_sample


def run_of(keeper: int, *cgroup_dirs: Path, ticks: int | None = None) -> Run:
    """Return a run whose keeper is a process."""
    text = Path(f"/proc/{keeper}/stat").read_text(encoding="utf-8")
    started = int(text[text.rindex(")") + 2 :].split()[19])
    return Run(
        pod_uid="u",
        namespace="n",
        pod_name="p",
        container="c",
        attempt=0,
        keeper_pid=keeper,
        keeper_ticks=started if ticks is None else ticks,
        pid=keeper,
        pid_ticks=started,
        started_at=0.0,
        cgroup_dirs=tuple(map(str, cgroup_dirs)),
    )


def of(run: Run) -> RunSample | None:
    """Return what a run uses now."""
    return take_sample([run], time.monotonic()).runs.get(run.key)


def python(program: str) -> subprocess.Popen[bytes]:
    """Run a program."""
    command = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_time_of_ended_processes_is_not_lost() -> None:
    """What a child used counts after it has ended and was waited for, so that short processes are seen."""
    burn = "import time\\nend = time.process_time() + 0.3\\nwhile time.process_time() < end: pass"
    keeper = python(
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-I', '-S', '-c', '{burn}'])\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"done\n"
    sample = of(run_of(keeper.pid))
    keeper.communicate(b"")
    assert sample is not None
    assert 0.25 <= sample.cpu_s < 1.0
    assert (sample.process_count, sample.memory_bytes) == (0, 0)


def test_shared_memory_counts_once() -> None:
    """Processes that map the same memory do not have it several times."""
    keeper = python(
        "import mmap, os, sys, time\n"
        "if not os.fork():\n"
        "    held = mmap.mmap(-1, 32 << 20); held.write(b'x' * (32 << 20))\n"
        "    for _ in range(3):\n"
        "        if not os.fork(): held.seek(0); held.read(); break\n"
        "    print('up', flush=True); sys.stdin.read(); os._exit(0)\n"
        "sys.stdin.read()"
    )
    assert keeper.stdout is not None
    assert [keeper.stdout.readline() for _ in range(4)] == [b"up\n"] * 4
    sample = of(run_of(keeper.pid))
    keeper.communicate(b"")
    assert sample is not None
    assert sample.process_count == 4
    # The interpreters' own memory comes on top, and once the shared 32 MiB.
    assert 32 << 20 <= sample.memory_bytes < 128 << 20


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda run: replace(run, keeper_ticks=run.keeper_ticks + 1), id="another-process"),
        pytest.param(lambda run: replace(run, keeper_pid=2**22 + 1), id="gone"),
        pytest.param(
            lambda run: replace(run, ended=Ended(exit_code=0, signal=None, finished_at=1.0, reason="Completed")),
            id="ended",
        ),
    ],
)
def test_only_runs_that_go_on_are_measured(change: Callable[[Run], Run]) -> None:
    """A keeper whose number another process has now is not taken for it."""
    run = run_of(os.getpid())
    assert of(run) is not None
    assert of(change(run)) is None


def test_control_groups_decide_where_there_are_any(tmp_path: Path) -> None:
    """Version 2 tells time and memory; inactive file pages are left out."""
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("5000000\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 2000000\n", encoding="ascii")
    sample = of(run_of(os.getpid(), tmp_path))
    assert sample is not None
    assert (sample.cpu_s, sample.memory_bytes) == (2.5, 3_000_000)


def test_control_groups_of_version_1_lie_apart(tmp_path: Path) -> None:
    """Each controller has a folder of its own there; what no folder tells comes from the processes."""
    processor, memory = tmp_path / "cpu", tmp_path / "memory"
    for folder in (processor, memory):
        folder.mkdir()
    (processor / "cpuacct.usage").write_text("1500000000\n", encoding="ascii")
    (memory / "memory.usage_in_bytes").write_text("4000000\n", encoding="ascii")
    (memory / "memory.stat").write_text("inactive_file 5\ntotal_inactive_file 1000000\n", encoding="ascii")
    sample = of(run_of(os.getpid(), processor, memory))
    assert sample is not None
    assert (sample.cpu_s, sample.memory_bytes) == (1.5, 3_000_000)
    alone = of(run_of(os.getpid(), memory))
    assert alone is not None
    assert (alone.cpu_s < 1.5, alone.memory_bytes) == (True, 3_000_000)


def test_cores_are_the_difference_over_the_time() -> None:
    """A run that has just begun has no figure yet, and time that was lost with a process is not negative."""
    before, after = RunSample(10.0, 0, 1), RunSample(13.0, 0, 1)
    assert cores_between(before, after, 2.0) == 1.5
    assert cores_between(after, before, 2.0) == 0.0
    assert cores_between(None, after, 2.0) is None
    assert cores_between(before, after, 0.0) is None


def test_the_machine_is_the_processors_that_we_may_use(tmp_path: Path) -> None:
    """Processors that this process may not run on do not count, nor do idle ones; memory is what is not available."""
    mine = sorted(os.sched_getaffinity(0))
    lines = ["cpu 9 9 9 9 9 9 9 9 9 9", *(f"cpu{number} 10 20 30 1000 1000 1 2 3 7 7" for number in mine)]
    lines += [f"cpu{max(mine) + 1} 500 500 500 0 0 0 0 0 0 0", "intr 1 2 3", ""]
    (tmp_path / "stat").write_text("\n".join(lines), encoding="ascii")
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n", encoding="ascii")
    sample = take_sample([], 5.0, proc=tmp_path)
    assert sample.busy_s == pytest.approx(len(mine) * 66 / os.sysconf("SC_CLK_TCK"))
    assert (sample.memory_bytes, sample.taken_s, dict(sample.runs)) == (600 << 10, 5.0, {})
