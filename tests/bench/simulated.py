"""How fast the simulator goes: faults and edits a second, and how much faster than real time a fleet lives."""

from __future__ import annotations

import time
from typing import Final

from tests.bench.figures import Figure, Target, figure
from tests.simulation.run import FLEET, SMALL, Report, Size, simulate

_SMALL_SEEDS: Final = 30
_FLEET_SEEDS: Final = 2


def _run(seeds: int, size: Size) -> tuple[list[Report], float]:
    began_s = time.perf_counter()
    reports = [simulate(f"bench-{seed}", size) for seed in range(seeds)]
    took_s = time.perf_counter() - began_s
    failed = [f"seed {report.seed}: {report.failure}" for report in reports if report.failure]
    # A figure of a run that failed means nothing: it ends early.
    assert not failed, failed[0]
    return reports, took_s


def run() -> list[Figure]:
    """Run small worlds that are disturbed as fast as it goes, and a fleet that is disturbed every 30 seconds."""
    small, small_s = _run(_SMALL_SEEDS, SMALL)
    fleet, fleet_s = _run(_FLEET_SEEDS, FLEET)
    faults = sum(report.actions.total() for report in small)
    virtual_s = sum(report.virtual_s for report in fleet)
    return [
        figure("life.sim_faults", faults / small_s, "faults/s", better="higher", target=Target(bound=300)),
        figure("life.sim_realtime", virtual_s / fleet_s, "x real time", better="higher", target=Target(bound=1_000)),
    ]
