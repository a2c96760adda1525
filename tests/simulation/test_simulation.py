"""The whole server but gRPC survives what a seed does to it: every invariant holds, and it converges afterwards.

SIMULATION_SEEDS sets how many seeds run (50 at a desk); SIMULATION_FIRST where they begin. A seed that fails becomes a
test of its own in the room that was at fault, named after what went wrong: what a seed does changes whenever the
simulator learns something new, so the number alone would soon prove nothing.
"""

import os
from typing import Final

import pytest

from tests.simulation.__main__ import describe
from tests.simulation.run import simulate

FIRST: Final = int(os.environ.get("SIMULATION_FIRST", "0"))
SEEDS: Final = int(os.environ.get("SIMULATION_SEEDS", "50"))
# Few test items, so that the report stays short and workers can share them.
SEEDS_PER_TEST: Final = 10


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, SEEDS_PER_TEST))
def test_seeds(first: int) -> None:
    """No seed breaks an invariant, and each world is as it should be once it is left alone."""
    reports = [simulate(str(seed)) for seed in range(first, min(first + SEEDS_PER_TEST, FIRST + SEEDS))]
    assert "\n".join(describe(report) for report in reports if report.failure) == ""
