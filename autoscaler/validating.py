"""Whether readings are good enough: age, coverage, range, and jumps that one sample alone does not prove. Pure.

FRESH may shrink a role. SUSPECT (too few pods, or a jump that waits for its second sample) may only let it grow. STALE
and MISSING say nothing. Of a sum over pods, those that do not report count like the average of those that do; how many
they are is kept, because on the way down each of them counts as busy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from autoscaler import observation as seen
from autoscaler.memory import SignalMemory
from autoscaler.observation import Fault, Freshness, Reading
from autoscaler.policy import Policy, SignalLimits

# Signals that say how much is asked for: a sudden multiple of them needs a second sample.
_JUMPS: Final = frozenset(
    {
        seen.ARRIVAL_REQUESTS,
        seen.ARRIVAL_TOKENS,
        seen.PREFILL_TOKENS,
        seen.DECODE_TOKENS,
        seen.QUEUED_REQUESTS,
        seen.QUEUED_TOKENS,
        seen.RUNNING_REQUESTS,
        seen.TRANSFER_QUEUE,
    }
)
_RATIOS: Final = frozenset({seen.TTFT_ATTAINMENT, seen.ITL_ATTAINMENT, seen.KV_USAGE, seen.GPU_ACTIVITY})
# What rounding can add to a ratio of one.
_RATIO_MAX: Final = 1.001
_DEFAULTS: Final = SignalLimits()


class Judged(NamedTuple):
    """A reading and what was made of it: ``value`` is what is reckoned with, None if nothing may be.

    ``missing`` ready pods are not in it. (A tuple, because a tick makes thousands of them.)
    """

    name: str
    freshness: Freshness
    value: float | None
    reading: Reading
    missing: int = 0
    message: str = ""

    @property
    def is_fresh(self) -> bool:
        """Whether it may shrink a role."""
        return self.freshness is Freshness.FRESH


Judgements = Mapping[str, Judged]


def judge(
    readings: Mapping[str, Reading], policy: Policy, memory: Mapping[str, SignalMemory], now: float
) -> tuple[dict[str, Judged], dict[str, SignalMemory]]:
    """Return a judgement for each reading, and what to remember of the values that were believed."""
    judged: dict[str, Judged] = {}
    kept: dict[str, SignalMemory] = {}
    for name, reading in readings.items():
        found = _judge_one(name, reading, policy.limits.get(name, _DEFAULTS))
        if name in _JUMPS:
            before = memory.get(name)
            if found.value is not None:
                found, kept[name] = _without_jump(found, before, policy.tuning.spike_ratio, now)
            elif before is not None:
                kept[name] = before
        judged[name] = found
    return judged, kept


def _judge_one(name: str, reading: Reading, limits: SignalLimits) -> Judged:
    value = reading.value
    if value is None or not math.isfinite(value):
        return _unusable(name, reading, Freshness.MISSING, reading.message or "no value")
    if reading.fault is Fault.FROZEN or abs(reading.age_s) > limits.max_age_s:
        return _unusable(name, reading, Freshness.STALE, f"{reading.age_s:.0f}s old, at most {limits.max_age_s:g}s")
    if reading.fault is not Fault.NONE:
        return _unusable(name, reading, Freshness.MISSING, reading.message or str(reading.fault))
    if value < 0 or (name in _RATIOS and value > _RATIO_MAX):
        return _unusable(name, reading, Freshness.MISSING, f"out of range: {value:g}")
    missing = max(0, reading.expected - reading.reporting)
    if missing == 0:
        return Judged(name, Freshness.FRESH, value, reading)
    if reading.reporting <= 0:
        return _unusable(name, reading, Freshness.MISSING, "no pod reports")
    if reading.is_sum:
        value *= reading.expected / reading.reporting
    is_enough = reading.reporting >= limits.min_coverage * reading.expected
    return Judged(
        name=name,
        freshness=Freshness.FRESH if is_enough else Freshness.SUSPECT,
        value=value,
        missing=missing,
        reading=reading,
        message=f"{reading.reporting} of {reading.expected} pods",
    )


def _unusable(name: str, reading: Reading, freshness: Freshness, message: str) -> Judged:
    return Judged(name=name, freshness=freshness, value=None, reading=reading, message=message)


def _without_jump(found: Judged, before: SignalMemory | None, ratio: float, now: float) -> tuple[Judged, SignalMemory]:
    """Return the judgement with a jump capped until the next sample confirms it."""
    value = found.value or 0.0
    if before is None or before.value <= 0 or before.is_suspect or value <= ratio * before.value:
        return found, SignalMemory(value=value, at=now)
    believed = ratio * before.value
    capped = Judged(
        name=found.name,
        freshness=Freshness.SUSPECT,
        value=believed,
        missing=found.missing,
        reading=found.reading,
        message=f"{value:g} after {before.value:g} waits for a second sample",
    )
    return capped, SignalMemory(value=before.value, at=now, is_suspect=True)
