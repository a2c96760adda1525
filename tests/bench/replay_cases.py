"""The cases of the replay table: days made of public traces, and the slices of days that policies are tuned on.

Data: Azure's LLM inference traces of 2023 (CC-BY-4.0) and Mooncake's conversation trace (FAST 2025, Apache-2.0), read
from `GROVE_REPLAY_DATA` or ../shared/data, next to the project; they are no part of it. Seeds below 100 are for tuning,
those from 100 on are held: nothing is chosen by them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from autoscaler.replay.oracle import needs
from autoscaler.replay.patterns import shifted, spread
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.service_times import ServiceTimes, Slo, drawn
from autoscaler.replay.traces import Trace, read_trace
from tests.tidy.sources import ROOT

DATA: Final = Path(os.environ.get("GROVE_REPLAY_DATA", ROOT.parent / "shared" / "data"))
TUNING_SEEDS: Final = (1, 2)
HELD_SEEDS: Final = (101, 102, 103, 104, 105)
PROFILE: Final = ServiceTimes()
SLO: Final = Slo()
HOUR_S: Final = 3_600.0

FILES: Final[Mapping[str, str]] = {
    "code": "azure_llm_2023/AzureLLMInferenceTrace_code.csv",
    "conv": "azure_llm_2023/AzureLLMInferenceTrace_conv.csv",
    "mooncake": "mooncake/conversation_trace.jsonl",
}
# How many times the public rate: about a dozen replicas by day, in reach of a simulation.
SCALES: Final[Mapping[str, float]] = {"code": 6.0, "conv": 4.0, "mooncake": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One workload; `slices_h` are the hours that policies are tuned on."""

    name: str
    slices_h: tuple[tuple[float, float], ...]


CASES: Final = (
    Case(name="azure_code", slices_h=((7, 9), (19, 21))),
    Case(name="azure_conv", slices_h=((7, 9), (19, 21))),
    Case(name="conv_to_code", slices_h=((10, 12), (12, 14))),
    Case(name="mooncake", slices_h=((7, 9), (19, 21))),
)


# What a run of a baseline depends on; ours depends on the rest of the autoscaler's core as well.
_PLANT: Final = (
    *("baselines", "decode", "faults", "hpa", "keda", "kpa", "lines", "oracle", "outcome", "patterns", "plant"),
    *("prefill", "readings", "replicas", "running", "service_times", "traces"),
)


@cache
def digest(*, of_core: bool = False) -> str:
    """Return a digest of the code that a run depends on: what was run by other code is not to be taken for it."""
    folder = ROOT / "autoscaler"
    paths = [folder / "replay" / f"{name}.py" for name in _PLANT]
    paths += [Path(__file__), Path(__file__).with_name("replay_tuning.py")]
    if of_core:
        paths += [*folder.glob("*.py"), folder / "replay" / "ours.py", Path(__file__).with_name("replay_ours.py")]
        paths += [path for name in ("demand", "sizing", "shaping") for path in (folder / name).glob("*.py")]
    told = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths)))
    return told.hexdigest()[:12]


def has_data() -> bool:
    """Return whether the public traces are there."""
    return all((DATA / name).is_file() for name in FILES.values())


@cache
def _public(name: str) -> Trace:
    return read_trace(DATA / FILES[name])


def _day(name: str, seed: int) -> Trace:
    return spread(_public(name), seed=seed, scale=SCALES[name])


@lru_cache(maxsize=8)
def day(case: str, seed: int) -> Trace:
    """Return the day of a case, by its name."""
    if case == "conv_to_code":
        before, after = _day("conv", seed), _day("code", seed)
        return shifted(before, after, seed=seed, from_s=10 * HOUR_S, to_s=14 * HOUR_S)
    return _day(case.removeprefix("azure_"), seed)


def setting(trace: Trace, seed: int, **changes: float) -> Setting:
    """Return the setting of a run: a truth hidden behind the profile, and a fleet that fits the first minutes.

    `changes` may set `cold_start_s`.
    """
    first = needs(trace.between(0.0, 600.0), PROFILE, SLO, 0.7).at(1.0)
    start = Sizes(prefill=min(first.prefill, 40), decode=min(first.decode, 40))
    cold_start_s = changes.get("cold_start_s", 120.0)
    return Setting(truth=drawn(PROFILE, seed=seed), slo=SLO, seed=seed, start=start, cold_start_s=cold_start_s)
