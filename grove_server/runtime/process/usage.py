"""What runs use: cores and memory, from their control groups where there are any, else from their processes.

A run's processes are those that descend from its keeper, which takes in whatever loses its parent. Their cpu time is
what living ones used and what they waited for of ended ones, so it never goes down by more than a process that nobody
waited for. Commands beside a container (exec, probes) are not among them; in a control group they are.

Memory is what cannot be given back: in a control group its charge less the inactive files, as the kubelet's working
set; else anonymous memory of all processes, and shared memory once, which is the largest share any of them has mapped.
Exact proportional shares would mean walking the page tables of processes that may have hundreds of gigabytes.

A sample reads `/proc` once for all runs. Nothing samples by itself: the cores are what was used between two questions.

Sources: Linux proc(5); Kubernetes, "Resource metrics pipeline" (working set).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from grove_server.runtime.process.runs import Run, RunKey

_HZ: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
# Of /proc/PID/stat, counted after the name in brackets.
_PARENT, _OWN_CPU, _WAITED_CPU, _STARTED = 1, slice(11, 13), slice(13, 15), 19
# Of a line of /proc/stat, after "cpu0": idle, iowait; guest times are in user and nice already.
_IDLE, _BUSY_END = (3, 4), 8


class RunSample(NamedTuple):
    """What one run used until now: seconds of cpu; bytes and processes now."""

    cpu_s: float
    memory_bytes: int
    process_count: int


class Sample(NamedTuple):
    """One look at the machine. ``taken_s`` is on the monotonic clock."""

    taken_s: float
    runs: Mapping[RunKey, RunSample]
    busy_s: float
    memory_bytes: int


class _Process(NamedTuple):
    parent: int
    started: int
    own_ticks: int
    waited_ticks: int


def take_sample(runs: Iterable[Run], taken_s: float, *, proc: Path = Path("/proc")) -> Sample:
    """Look at the machine and at those of *runs* that still go on. Blocks for some milliseconds."""
    processes = _processes(proc)
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found = {}
    for run in runs:
        keeper = processes.get(run.keeper_pid)
        if run.ended is None and keeper is not None and keeper.started == run.keeper_ticks:
            found[run.key] = _run_sample(run, keeper, _descendants(run.keeper_pid, children), processes, proc)
    return Sample(taken_s, found, _busy_s(proc), _memory_in_use(proc))


def cores_between(before: RunSample | None, after: RunSample, elapsed_s: float) -> float | None:
    """Return the mean number of cores that a run used between two samples; None if it is in one only."""
    if before is None or elapsed_s <= 0:
        return None
    return max(0.0, after.cpu_s - before.cpu_s) / elapsed_s


def _run_sample(
    run: Run, keeper: _Process, pids: Sequence[int], processes: Mapping[int, _Process], proc: Path
) -> RunSample:
    cpu_s = memory_bytes = None
    for folder in run.cgroup_dirs:
        cpu_s = _group_cpu_s(Path(folder)) if cpu_s is None else cpu_s
        memory_bytes = _group_memory(Path(folder)) if memory_bytes is None else memory_bytes
    if cpu_s is None:
        ticks = sum(processes[pid].own_ticks + processes[pid].waited_ticks for pid in pids)
        cpu_s = (keeper.waited_ticks + ticks) / _HZ
    if memory_bytes is None:
        memory_bytes = _processes_memory(pids, proc)
    return RunSample(cpu_s, memory_bytes, len(pids))


def _processes(proc: Path) -> dict[int, _Process]:
    found = {}
    with os.scandir(proc) as entries:
        for entry in entries:
            if not entry.name.isdecimal():
                continue
            text = _read(f"{proc}/{entry.name}/stat")
            if text is None:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            own, waited = fields[_OWN_CPU], fields[_WAITED_CPU]
            found[int(entry.name)] = _Process(
                int(fields[_PARENT]), int(fields[_STARTED]), sum(map(int, own)), sum(map(int, waited))
            )
    return found


def _descendants(pid: int, children: Mapping[int, Sequence[int]]) -> list[int]:
    found: list[int] = []
    pending = [*children.get(pid, ())]
    while pending:
        child = pending.pop()
        found.append(child)
        pending.extend(children.get(child, ()))
    return found


def _processes_memory(pids: Iterable[int], proc: Path) -> int:
    private = shared = 0
    for pid in pids:
        sizes = _sizes(_read(f"{proc}/{pid}/status"), ("RssAnon", "RssShmem"))
        private += sizes["RssAnon"]
        shared = max(shared, sizes["RssShmem"])
    return private + shared


def _group_cpu_s(folder: Path) -> float | None:
    version2 = _keyed(_read(str(folder / "cpu.stat"))).get("usage_usec")
    if version2 is not None:
        return version2 / 1e6
    version1 = _read(str(folder / "cpuacct.usage"))
    return None if version1 is None else int(version1) / 1e9


def _group_memory(folder: Path) -> int | None:
    charged = _read(str(folder / "memory.current"))
    inactive = "inactive_file"
    if charged is None:
        charged, inactive = _read(str(folder / "memory.usage_in_bytes")), "total_inactive_file"
    if charged is None:
        return None
    return max(0, int(charged) - _keyed(_read(str(folder / "memory.stat"))).get(inactive, 0))


def _busy_s(proc: Path) -> float:
    """Return the seconds that the processors of this process have worked since the machine started."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in (_read(str(proc / "stat")) or "").splitlines():
        name, *counts = line.split()
        if name in ours:
            ticks += sum(int(count) for position, count in enumerate(counts[:_BUSY_END]) if position not in _IDLE)
    return ticks / _HZ


def _memory_in_use(proc: Path) -> int:
    sizes = _sizes(_read(str(proc / "meminfo")), ("MemTotal", "MemAvailable"))
    return sizes["MemTotal"] - sizes["MemAvailable"]


def _sizes(text: str | None, names: Sequence[str]) -> dict[str, int]:
    """Return sizes such as "RssAnon:  12 kB" in bytes; 0 for those that are not there (a process that ended)."""
    found = dict.fromkeys(names, 0)
    for line in (text or "").splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * _KIB
    return found


def _keyed(text: str | None) -> dict[str, int]:
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}  # noqa: PLR2004 -- a key and its value


def _read(path: str) -> str | None:
    """Return a small file; None if it is not there, or its process has just ended."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 -- called a thousand times for one sample
            return stream.read().decode("ascii", "replace")
    except OSError:
        return None
