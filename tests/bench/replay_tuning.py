"""Tuning for the replay table: settings are drawn and tried on slices of tuning seeds, baselines as well as ours.

Each family gets the same number of tries, drawn with one seed from a space that its careful users would search: for
KEDA, requests in flight, prompt tokens that arrive, KV in use and tokens generated, alone and in pairs, at log-even
targets, with windows from five minutes to half an hour. What was tried is kept in build/replay, by the code that it
was tried with, so that a search goes on where it stopped.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from autoscaler.policy import Tuning
from autoscaler.replay.baselines import HpaSettings, KedaSettings, KpaSettings
from autoscaler.replay.lines import CoreSettings, LineSettings, policy_of
from autoscaler.replay.outcome import Outcome
from autoscaler.replay.running import run
from tests.bench.replay_cases import CASES, HOUR_S, TUNING_SEEDS, Case, day, digest, setting
from tests.bench.replay_ours import ours
from tests.tidy.sources import ROOT

FOLDER: Final = ROOT / "build" / "replay"
# What came out for KEDA: of 120 tries the one with the highest mean attainment, for benchmarks that do not tune.
KEDA_CHOSEN: Final = KedaSettings(
    prefill=(("arriving_tokens", 3_600.0), ("in_flight_1m", 0.71)),
    decode=(("generated_tokens", 220.0), ("kv_used", 0.096)),
    down_window_s=300.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a setting came to on the slices: by case, means over slices and seeds."""

    label: str
    attainment: Mapping[str, float]
    gpu_hours: Mapping[str, float]
    reversals: float

    @property
    def mean_attainment(self) -> float:
        """Return the mean over cases."""
        return statistics.mean(self.attainment.values())

    @property
    def total_gpu_hours(self) -> float:
        """Return the sum over cases."""
        return sum(self.gpu_hours.values())


def score(label: str, line: LineSettings, seeds: Sequence[int] = TUNING_SEEDS) -> Score:
    """Try a setting on all slices."""
    by_case = {case.name: list(_slices(case, line, seeds)) for case in CASES}
    return Score(
        label=label,
        attainment={name: statistics.mean(each.slo_attainment for each in runs) for name, runs in by_case.items()},
        gpu_hours={name: statistics.mean(each.gpu_hours for each in runs) for name, runs in by_case.items()},
        reversals=statistics.mean(each.reversals for runs in by_case.values() for each in runs),
    )


def _slices(case: Case, line: LineSettings, seeds: Sequence[int]) -> Iterator[Outcome]:
    for seed, (start_h, end_h) in zip(seeds, case.slices_h, strict=True):
        # Each slice has a seed of its own: with all pairs a search would take twice as long and see the same hours.
        part = day(case.name, seed).between(start_h * HOUR_S, end_h * HOUR_S)
        of_run = setting(part, seed)
        yield run(part, of_run, policy_of(line, of_run))[0]


# -- what is tried -----------------------------------------------------------------------------------------------------


def _log_even(chance: random.Random, low: float, high: float) -> float:
    return float(f"{low * (high / low) ** chance.random():.2g}")


def keda(chance: random.Random) -> KedaSettings:
    """Return a setting of KEDA's space."""
    prefill_flight = ("in_flight_1m", _log_even(chance, 0.25, 1.0))
    prefill_rate = ("arriving_tokens", _log_even(chance, 2_000.0, 8_000.0))
    decode_flight = ("in_flight_1m", _log_even(chance, 6.0, 60.0))
    decode_kv = ("kv_used", _log_even(chance, 0.05, 0.45))
    decode_rate = ("generated_tokens", _log_even(chance, 150.0, 1_000.0))
    prefill = ((prefill_flight,), (prefill_rate,), (prefill_rate, prefill_flight))
    decode = ((decode_flight,), (decode_kv,), (decode_flight, decode_kv), (decode_rate, decode_kv))
    return KedaSettings(
        prefill=chance.choice(prefill),
        decode=chance.choice(decode),
        down_window_s=chance.choice((300.0, 600.0, 900.0, 1_800.0)),
    )


def hpa(chance: random.Random) -> HpaSettings:
    """Return a setting of the HPA's space."""
    return HpaSettings(
        prefill=_log_even(chance, 0.25, 0.85),
        decode=_log_even(chance, 0.3, 0.98),
        down_window_s=chance.choice((300.0, 600.0, 900.0, 1_800.0)),
    )


def kpa(chance: random.Random) -> KpaSettings:
    """Return a setting of Knative's space."""
    return KpaSettings(
        prefill=_log_even(chance, 0.2, 0.8),
        decode=_log_even(chance, 6.0, 40.0),
        stable_window_s=chance.choice((60.0, 300.0, 600.0)),
        down_delay_s=chance.choice((0.0, 600.0, 1_800.0)),
    )


def core(chance: random.Random) -> CoreSettings:
    """Return ours with drawn constants; what ships was chosen among these, and frozen."""
    prefill, decode = chance.uniform(0.65, 0.95), chance.uniform(0.65, 0.95)
    tuning = Tuning(
        prefill_utilization=round(prefill, 2),
        prefill_scale_in_utilization=round(prefill * chance.uniform(0.8, 0.95), 2),
        decode_utilization=round(decode, 2),
        decode_scale_in_utilization=round(decode * chance.uniform(0.8, 0.95), 2),
        itl_margin=round(chance.uniform(0.0, 0.2), 2),
        margin_max=chance.choice((0.1, 0.2, 0.3, 0.5)),
        level_s=chance.choice((30.0, 60.0)),
        trend_s=chance.choice((120.0, 180.0, 300.0)),
        backlog_drain_s=chance.choice((30.0, 60.0)),
        burst_decay=chance.choice((0.1, 0.5, 0.8)),
    )
    return ours(tuning)


SPACES: Final[Mapping[str, Callable[[random.Random], LineSettings]]] = {
    "keda": keda,
    "hpa": hpa,
    "kpa": kpa,
    "ours": core,
}


def drawn(family: str, tries: int) -> dict[str, LineSettings]:
    """Return the settings of a family that are tried, by label."""
    chance = random.Random(f"{family} 1")
    return {f"{family}-{number:03d}": SPACES[family](chance) for number in range(tries)}


def search(family: str, tries: int, jobs: int) -> dict[str, tuple[LineSettings, Score]]:
    """Try what was not tried yet; return every setting with its score."""
    kept = FOLDER / f"tuning-{family}-{digest(of_core=family == 'ours')}.jsonl"
    settings = drawn(family, tries)
    scores = {each.label: each for each in _read(kept)}
    missing = [label for label in settings if label not in scores]
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for found in pool.map(partial(_score, settings), missing):
            scores[found.label] = found
            _append(kept, found)
    return {label: (line, scores[label]) for label, line in settings.items()}


def _score(settings: Mapping[str, LineSettings], label: str) -> Score:
    return score(label, settings[label])


def _read(path: Path) -> Iterator[Score]:
    if path.exists():
        for line in path.read_bytes().splitlines():
            yield Score(**orjson.loads(line))


def _append(path: Path, found: Score) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as out:
        out.write(orjson.dumps(asdict(found)) + b"\n")
