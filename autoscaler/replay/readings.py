"""What a scrape of the plant sees: counters and gauges of the router and of each pod, at one time.

Counters never fall, as in Prometheus; rates are the readers' work. A pod is named by its role and index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class PodReading(NamedTuple):
    """One pod's own metrics."""

    pod: int
    running: int
    # Share of the KV room in use, 0 to 1.
    kv_used: float
    # Prompt tokens computed, or tokens generated.
    tokens: float
    # Seconds in which the GPU ran any kernel: what DCGM's GPU_UTIL is made of.
    busy_s: float
    # Seconds that requests were in decode there, summed over requests: the sum of all times between tokens.
    resident_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One scrape. `prefill` and `decode` are the pods that answered, ready or draining, in order of index."""

    at_s: float
    arrived: int
    arrived_tokens: int
    # Sum of the squares of uncached prompt lengths: a histogram's second moment.
    arrived_squares: float
    started: int
    prefill_waiting: int
    prefill_waiting_tokens: int
    decode_waiting: int
    decode_waiting_tokens: int
    # Requests with a first token, those of them within the objective; the same for whole answers.
    firsts: int
    firsts_good: int
    finished: int
    finished_good: int
    finished_prompt_tokens: int
    finished_output_tokens: int
    prefill: tuple[PodReading, ...]
    decode: tuple[PodReading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSizes:
    """A role as the API shows it: the size asked for, and its replicas by state; those ready by index.

    `pending_since_s` is since when the oldest pending one waits; `cold_starts_s` are the last starts, from scheduling
    to ready.
    """

    wanted: int
    ready: tuple[int, ...]
    starting: int
    pending: int
    draining: int
    pending_since_s: float | None = None
    cold_starts_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Replicas of both roles."""

    prefill: int
    decode: int
