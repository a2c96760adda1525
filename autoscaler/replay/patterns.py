"""Days made from short public traces: more copies by day than by night, a shift from one mix to another.

The level is raised by laying copies of the trace over each other, each turned by a random offset and repeated, never
by compressing time: that would change bursts against cold starts. The shape of a day is kept by thinning: a request
stays with the chance that its time of day gives it.

Pure but for the chance that a seed gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from autoscaler.replay.traces import Floats, Trace

DAY_S: Final = 86_400.0

# Share of the mean level by hour of the day: a night, a rise, a dip at noon, an afternoon, an evening. Written down for
# these tests; Azure's week of 2024 has this shape (DynamoLLM, HPCA 2025, figure 3), not these numbers.
HOURS: Final = (
    *(0.45, 0.35, 0.28, 0.25, 0.26, 0.34, 0.55, 0.90, 1.30, 1.55, 1.65, 1.60),
    *(1.35, 1.50, 1.70, 1.75, 1.65, 1.45, 1.25, 1.20, 1.15, 1.00, 0.80, 0.60),
)
WEEKEND: Final = 0.6


def level(at_s: Floats, *, shift_s: float = 0.0) -> Floats:
    """Return the day's level at times, 1 on average, straight between whole hours."""
    mean = sum(HOURS) / len(HOURS)
    hours = np.array([*HOURS, HOURS[0]]) / mean
    return np.interp(((at_s + shift_s) % DAY_S) / 3_600, np.arange(len(HOURS) + 1), hours)


def week(at_s: Floats) -> Floats:
    """Return the level over a week that starts on Monday: two days of seven are quieter."""
    weekend = (at_s // DAY_S) % 7 >= 5  # noqa: PLR2004 -- Saturday is day five, counted from Monday
    return level(at_s) * np.where(weekend, WEEKEND, 1.0)


def flat(at_s: Floats) -> Floats:
    """Return the level of a trace that stays as it is."""
    return np.ones_like(at_s)


def spread(
    trace: Trace, *, seed: int, scale: float, duration_s: float = DAY_S, shape: Callable[[Floats], Floats] = level
) -> Trace:
    """Return `scale` times the trace on average, for `duration_s`, in the shape of a day."""
    chance = np.random.default_rng((seed, len(trace), round(scale * 1_000)))
    grid = shape(np.arange(0.0, duration_s, 60.0))
    copies = max(math.ceil(scale * float(grid.max())), 1)
    parts = [_turned(trace, float(chance.uniform(0, trace.duration_s)), duration_s) for _ in range(copies)]
    arrival_s = np.concatenate([times for times, _ in parts])
    which = np.concatenate([rows for _, rows in parts])
    # Copies that start together would repeat each request at the same distance; half a second is less than a burst.
    arrival_s = np.clip(arrival_s + chance.normal(0.0, 0.5, len(arrival_s)), 0.0, np.nextafter(duration_s, 0.0))
    stays = chance.random(len(arrival_s)) * copies < scale * shape(arrival_s)
    arrival_s, which = arrival_s[stays], which[stays]
    order = np.argsort(arrival_s, kind="stable")
    return Trace(
        name=trace.name,
        duration_s=duration_s,
        arrival_s=arrival_s[order],
        prompt_tokens=trace.prompt_tokens[which[order]],
        output_tokens=trace.output_tokens[which[order]],
        cached_tokens=trace.cached_tokens[which[order]],
    )


def _turned(
    trace: Trace, offset_s: float, duration_s: float
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return arrivals of the trace turned by an offset and repeated, and which request each is."""
    turned_s = (trace.arrival_s + offset_s) % trace.duration_s
    rounds = math.ceil(duration_s / trace.duration_s)
    arrival_s = (turned_s[None, :] + trace.duration_s * np.arange(rounds)[:, None]).ravel()
    which = np.tile(np.arange(len(trace)), rounds)
    inside = arrival_s < duration_s
    return arrival_s[inside], which[inside]


def together(name: str, traces: Sequence[Trace]) -> Trace:
    """Return traces over each other."""
    arrival_s = np.concatenate([trace.arrival_s for trace in traces])
    order = np.argsort(arrival_s, kind="stable")
    return Trace(
        name=name,
        duration_s=max(trace.duration_s for trace in traces),
        arrival_s=arrival_s[order],
        prompt_tokens=np.concatenate([trace.prompt_tokens for trace in traces])[order],
        output_tokens=np.concatenate([trace.output_tokens for trace in traces])[order],
        cached_tokens=np.concatenate([trace.cached_tokens for trace in traces])[order],
    )


def shifted(before: Trace, after: Trace, *, seed: int, from_s: float, to_s: float) -> Trace:
    """Return a mix that is `before` until `from_s` and `after` from `to_s` on, changing evenly in between."""
    chance = np.random.default_rng((seed, len(before), len(after)))

    def share(trace: Trace) -> Floats:
        return np.clip((trace.arrival_s - from_s) / (to_s - from_s), 0.0, 1.0)

    stays = chance.random(len(before)) >= share(before)
    comes = chance.random(len(after)) < share(after)
    return together(f"{before.name}->{after.name}", [before.taken(stays), after.taken(comes)])


def synthetic(*, seed: int, duration_s: float, per_s: float, prompt_tokens: int, output_tokens: int) -> Trace:
    """Return Poisson arrivals with log-normal lengths around two medians; for tests, which own no public data."""
    chance = np.random.default_rng(seed)
    count = int(chance.poisson(per_s * duration_s))
    prompts = prompt_tokens * chance.lognormal(0.0, 0.8, count)
    outputs = output_tokens * chance.lognormal(0.0, 0.6, count)
    return Trace(
        name="synthetic",
        duration_s=duration_s,
        arrival_s=np.sort(chance.uniform(0.0, duration_s, count)),
        prompt_tokens=np.maximum(prompts.astype(np.int64), 1),
        output_tokens=np.maximum(outputs.astype(np.int64), 1),
        cached_tokens=np.zeros(count, dtype=np.int64),
    )
