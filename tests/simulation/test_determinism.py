"""The same seed gives the same history, down to the last byte of every row, in any process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.simulation.run import SMALL, simulate

ROOT: Final = Path(__file__).resolve().parents[2]
SEEDS: Final = ("2", "5", "31")
PROGRAM: Final = (
    "import sys\n"
    "from tests.simulation.run import SMALL, simulate\n"
    "print(*(simulate(seed, SMALL, is_thorough=True).digest for seed in sys.argv[1:]))\n"
)


@pytest.fixture(scope="module")
def digests() -> list[str]:
    """Return the hashes of the seeds' histories in this process."""
    return [simulate(seed, SMALL, is_thorough=True).digest for seed in SEEDS]


def test_the_same_seed_gives_the_same_history(digests: list[str]) -> None:
    """A second run in one process, in another order, changes nothing; another seed gives another history."""
    again = [simulate(seed, SMALL, is_thorough=True).digest for seed in reversed(SEEDS)]
    assert again[::-1] == digests
    assert len(set(digests)) == len(SEEDS)


@pytest.mark.parametrize("hash_seed", ["1", "77"])
def test_histories_do_not_depend_on_hashing(digests: list[str], hash_seed: str) -> None:
    """The order of sets of strings differs between processes; no decision may rest on it."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *SEEDS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == digests
