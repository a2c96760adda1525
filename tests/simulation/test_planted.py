"""The invariants notice faults: each one that is planted in the real code is caught within a few seeds."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.planted import PLANTED, Planted
from tests.simulation.run import simulate

SEEDS_MAX: Final = 60


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_planted_fault_is_caught(fault: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some run says what is wrong, in the words of the rule that the fault breaks."""
    fault.plant(monkeypatch)
    # Where it was caught when it was planted comes first; what seeds do changes, and then others must do.
    seeds = [*fault.seen, *(seed for seed in range(SEEDS_MAX) if seed not in fault.seen)]
    failures = (simulate(str(seed)).failure for seed in seeds)
    assert any(fault.says in failure for failure in failures if failure), f"no seed below {SEEDS_MAX} says {fault.says}"
