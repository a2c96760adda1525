"""What the core carries from one tick to the next, as plain values that fit into JSON. Pure.

Losing it costs caution, never replicas: a scope that is not remembered is frozen at its size, downwards, for a window.
Everything in it is bounded: windows keep only the extremes that can still matter, errors and buckets have a number.
``encode`` and ``decode`` make bytes of it, for a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

FORMAT_VERSION: Final = 1

# A time in epoch seconds and a value.
Mark = tuple[float, float]


class RecallError(ValueError):
    """Bytes hold no memory of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandMemory:
    """What a stream of demand looked like: level and trend, forecasts that are not due yet, how far past ones were off.

    ``last`` is the observation of ``at``. ``errors`` are ratios of what came to what was forecast. ``peaks`` are the
    highest demands by bucket of time. ``season`` holds mean demand by bucket of the period, negative where nothing was
    seen, ``season_from`` since when.
    """

    at: float = 0.0
    last: float = 0.0
    level: float = 0.0
    trend: float = 0.0
    due: tuple[Mark, ...] = ()
    errors: tuple[float, ...] = ()
    peaks: tuple[Mark, ...] = ()
    season: tuple[float, ...] = ()
    season_from: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMemory:
    """The last value that was believed, and whether the one after it was too far off to be believed at once."""

    value: float
    at: float
    is_suspect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PanicMemory:
    """What KPA remembers: recent concurrency, since when it panics, and the most pods it wanted since."""

    samples: tuple[Mark, ...] = ()
    panic_at: float | None = None
    panic_pods: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMemory:
    """What is remembered of one role.

    ``known_at`` is when its demand was last known. ``lows`` and ``highs`` are past wishes as far as windows need them
    (HPA's recommendations, pruned); ``ups`` and ``downs`` are changes of size, each with how much. ``decided`` is the
    last decision's time and size. ``turns`` are the times at which growth turned into shrinking or back, ``direction``
    the last one. ``breaches`` counts ticks in a row below the target attainment. Corrections are factors on the
    profile's times.
    """

    current: int
    known_at: float
    lows: tuple[tuple[float, int], ...] = ()
    highs: tuple[tuple[float, int], ...] = ()
    ups: tuple[tuple[float, int], ...] = ()
    downs: tuple[tuple[float, int], ...] = ()
    decided: tuple[float, int] | None = None
    turns: tuple[float, ...] = ()
    direction: int = 0
    breaches: int = 0
    breach_at: float | None = None
    prefill_factor: float = 1.0
    decode_factor: float = 1.0
    prefill_rate: float = 0.0
    cold_start_s: float | None = None
    demand: DemandMemory = field(default_factory=DemandMemory)
    signals: Mapping[str, SignalMemory] = field(default_factory=dict)
    panics: Mapping[str, PanicMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeMemory:
    """What is remembered of one scope.

    ``seen_at`` is its last tick, ``busy_at`` when there was last some demand or it was not known whether. Outputs are
    means of answers' tokens over a short and a long while, ``uncached`` and ``prompt`` those of prompts; 0 is unknown.
    """

    generation: int
    seen_at: float
    busy_at: float
    output_short: float = 0.0
    output_long: float = 0.0
    uncached: float = 0.0
    prompt: float = 0.0
    signals: Mapping[str, SignalMemory] = field(default_factory=dict)
    roles: Mapping[str, RoleMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All scopes, by ``ScopeState.id``."""

    version: int = FORMAT_VERSION
    scopes: Mapping[str, ScopeMemory] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Memory]:
    """Return what reads memory; made when it is needed, because a start waits for it otherwise."""
    return TypeAdapter(Memory)


def encode(memory: Memory) -> bytes:
    """Return JSON that ``decode`` reads."""
    return orjson.dumps(memory)


def decode(data: bytes) -> Memory:
    """Return what ``encode`` wrote; raise RecallError for anything else."""
    try:
        memory = _adapter().validate_json(data)
    except ValidationError as error:
        raise RecallError(f"no memory of the autoscaler: {error.error_count()} errors") from None
    if memory.version != FORMAT_VERSION:
        raise RecallError(f"memory of format {memory.version}, not {FORMAT_VERSION}")
    return memory
