"""Benchmarks of the autoscaler's replay: how fast it is, and how our core stands on one held day of each case.

`scale.replay100k` needs no data: 100,000 requests in an hour, with the core in the loop. The others run 24 hours of
each case with one held seed and what ships, beside KEDA with its chosen setting and with its leanest good one; all
seeds, fronts, and the tuning are `make replay-table`. Nothing is printed for them where the public data are missing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from autoscaler.replay.baselines import KedaSettings
from autoscaler.replay.faults import Faults
from autoscaler.replay.lines import LineSettings, policy_of
from autoscaler.replay.outcome import Outcome
from autoscaler.replay.patterns import synthetic
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.running import run
from autoscaler.replay.service_times import ServiceTimes
from tests.bench.figures import Figure, Target, figure
from tests.bench.replay_cases import CASES, DATA, HELD_SEEDS, HOUR_S, day, has_data, setting
from tests.bench.replay_ours import ours
from tests.bench.replay_tuning import KEDA_CHOSEN


def replay_100k() -> Iterator[Figure]:
    """Replay an hour of 100,000 requests; the best of three."""
    trace = synthetic(seed=1, duration_s=3_600.0, per_s=100_000 / 3_600, prompt_tokens=1_000, output_tokens=180)
    of_run = Setting(truth=ServiceTimes(), start=Sizes(prefill=6, decode=7))
    times_s = []
    for _ in range(3):
        start_s = time.process_time()
        run(trace, of_run, policy_of(ours(), of_run))
        times_s.append((time.process_time() - start_s) * 100_000 / len(trace))
    yield figure("scale.replay100k", min(times_s), "s of CPU", better="lower", target=Target(bound=2.0))


def replay_days() -> Iterator[Figure]:
    """Run a held day of each case: attainment and GPU-hours beside KEDA's, reversals, aborted requests, a gap."""
    if not has_data():
        print(f"scale.day: data not found ({DATA})", file=sys.stderr)
        return
    seed = HELD_SEEDS[0]
    found: dict[str, list[Outcome]] = {"ours": [], "keda": [], "keda_lean": []}
    for case in CASES:
        for name, line in (("ours", ours()), ("keda", KEDA_CHOSEN), ("keda_lean", KedaSettings())):
            found[name].append(_day(case.name, seed, line))
            told = found[name][-1]
            print(f"{case.name} {name}: {100 * told.slo_attainment:.2f} % {told.gpu_hours:.0f} GPU-h", file=sys.stderr)
    mine, theirs, lean = (
        (
            100 * statistics.mean(each.slo_attainment for each in found[name]),
            sum(each.gpu_hours for each in found[name]),
            sum(each.reversals for each in found[name]),
        )
        for name in ("ours", "keda", "keda_lean")
    )
    yield figure("scale.day.slo", mine[0], "% of requests", better="higher", baseline=theirs[0])
    yield figure(
        "scale.day.gpu", mine[1], "GPU-hours", better="lower", baseline=theirs[1], target=Target(bound=0.85, of="ratio")
    )
    yield figure("scale.day.slo.lean", mine[0], "% of requests", better="higher", baseline=lean[0])
    yield figure("scale.day.gpu.lean", mine[1], "GPU-hours", better="lower", baseline=lean[1])
    yield figure(
        "scale.day.reversals", mine[2], "reversals", better="lower", target=Target(bound=float(max(theirs[2], 0)))
    )
    aborted = sum(each.aborted_requests for each in found["ours"])
    yield figure("scale.day.aborted", aborted, "requests", better="lower", target=Target(bound=0.0))
    yield figure("scale.gap15", _gap_cost(seed), "points lost", better="lower", target=Target(bound=1.0))


def _day(case: str, seed: int, line: LineSettings) -> Outcome:
    trace = day(case, seed)
    of_day = setting(trace, seed)
    return run(trace, of_day, policy_of(line, of_day))[0]


def _gap_cost(seed: int) -> float:
    """Return the most points that a case loses by fifteen minutes without metrics at its peak."""
    lost = []
    for case in CASES:
        part = day(case.name, seed).between(14 * HOUR_S, 16 * HOUR_S)
        of_part = setting(part, seed)
        gapped = replace(of_part, faults=Faults(gaps=((2_700.0, 3_600.0),)))
        plain, without = (run(part, each, policy_of(ours(), each))[0] for each in (of_part, gapped))
        lost.append(100 * (plain.slo_attainment - without.slo_attainment))
    return max(lost)
