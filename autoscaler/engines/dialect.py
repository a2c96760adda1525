"""The shape of a dialect: for each measure of a pod, where an engine says it. Pure.

A *measure* is one number per pod. Its sources are listed in order of preference, because names change between versions:
pods of both versions may run at once, and of each pod the first source that it has counts. The same data makes the
queries to Prometheus and reads the pods' own pages, so both see the same.

Rules: a rate is of a counter and per second; a mean is the rate of a histogram's sum by that of its count; nothing is
defaulted: what a pod does not say is unknown. Not here: signals of roles and sets (``signals.readings``).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Measures of a pod. Rates are per second over the window of rates.
WAITING: Final = "waiting"  # requests that wait for a first place in a batch
WAITING_SLOPE: Final = "waiting_slope"  # how fast WAITING grows, requests per second
TRANSFER_WAITING: Final = "transfer_waiting"  # requests whose prompt is done elsewhere and that wait for KV or a place
RUNNING: Final = "running"  # requests in batches
QUEUED_TOKENS: Final = "queued_tokens"  # prompt tokens that wait
KV_USAGE: Final = "kv_usage"  # ratio
FIRST_TOKENS: Final = "first_tokens"  # requests per second that had their first token
PROMPT_TOKENS: Final = "prompt_tokens"  # tokens per second of prompts, cached ones included
COMPUTED_TOKENS: Final = "computed_tokens"  # tokens per second that prefill computed
OUTPUT_TOKENS: Final = "output_tokens"  # tokens per second generated
OUTPUT_LENGTH: Final = "output_length"  # mean tokens of the answers that finished
PREFILL_SECONDS: Final = "prefill_seconds"  # mean
ITL_SECONDS: Final = "itl_seconds"  # mean
QUEUE_SECONDS: Final = "queue_seconds"  # mean
TTFT_BUCKETS: Final = "ttft_buckets"  # requests per second by upper edge in seconds
ITL_BUCKETS: Final = "itl_buckets"  # tokens (or requests) per second by upper edge in seconds
PROMPT_BUCKETS: Final = "prompt_buckets"  # requests per second by upper edge in tokens
GPU_ACTIVITY: Final = "gpu_activity"  # ratio, mean over the pod's GPUs
# Measures of a router's own pod, which speak for the whole set it serves.
FRONT_ARRIVALS: Final = "front_arrivals"  # requests per second that came in
FRONT_QUEUE: Final = "front_queue"  # requests that no engine has yet
FRONT_PROMPT_LENGTH: Final = "front_prompt_length"  # mean tokens, cached ones included
FRONT_CACHED_LENGTH: Final = "front_cached_length"  # mean tokens of it that were cached
FRONT_OUTPUT_LENGTH: Final = "front_output_length"  # mean tokens
FRONT_TTFT_BUCKETS: Final = "front_ttft_buckets"
FRONT_ITL_BUCKETS: Final = "front_itl_buckets"

# What moves slowly or is a mean over a window anyway: asked for less often, to keep a tick cheap.
SLOW_MEASURES: Final = frozenset(
    {
        OUTPUT_LENGTH,
        PREFILL_SECONDS,
        ITL_SECONDS,
        QUEUE_SECONDS,
        TTFT_BUCKETS,
        ITL_BUCKETS,
        PROMPT_BUCKETS,
        FRONT_PROMPT_LENGTH,
        FRONT_CACHED_LENGTH,
        FRONT_OUTPUT_LENGTH,
        FRONT_TTFT_BUCKETS,
        FRONT_ITL_BUCKETS,
    }
)


class Form(enum.Enum):
    """How a series becomes a number."""

    GAUGE = enum.auto()
    SLOPE = enum.auto()
    RATE = enum.auto()
    MEAN = enum.auto()
    BUCKETS = enum.auto()


class Within(enum.StrEnum):
    """How the series of one pod become one number; also the name of PromQL's operator."""

    SUM = "sum"
    MAX = "max"
    MEAN = "avg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A condition on a label, in PromQL's four ways; an absent label is "". Patterns match whole values."""

    label: str
    operator: str
    value: str


def equals(label: str, value: str) -> Match:
    """Return the condition that a label has a value."""
    return Match(label=label, operator="=", value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place where a measure is said.

    ``names`` are summed up within a pod (for gauges); of a MEAN or BUCKETS it is the histogram's one name without
    its suffix. ``scale`` makes our unit of theirs.
    """

    names: tuple[str, ...]
    where: tuple[Match, ...] = ()
    scale: float = 1.0

    @property
    def name(self) -> str:
        """The name, for people."""
        return "+".join(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How to get one measure. Values outside of ``low`` to ``high`` are a fault, not a number."""

    form: Form
    sources: tuple[Source, ...]
    within: Within = Within.SUM
    low: float = 0.0
    high: float = math.inf


# Where a series says which pod it is of: pairs of labels for namespace and pod, tried in this order. What an exporter
# says of others comes as "exported_" unless the scraper honours its labels; the last is of the old annotation recipe.
POD_LABELS: Final = (("namespace", "pod"), ("kubernetes_namespace", "kubernetes_pod_name"))
EXPORTED_POD_LABELS: Final = (("exported_namespace", "exported_pod"), ("pod_namespace", "pod_name"), *POD_LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """All that one kind of program says. ``heartbeat`` are metrics that it always has, by preference.

    ``page`` and ``port`` are where its pods have their own page if nothing else is said; a page of "" is none.
    ``hint`` is for people whose probe finds nothing.
    """

    name: str
    heartbeat: tuple[str, ...]
    measures: Mapping[str, Measure]
    pod_labels: tuple[tuple[str, str], ...] = POD_LABELS
    page: str = "/metrics"
    port: int = 0
    hint: str = ""

    def metric_names(self) -> tuple[str, ...]:
        """Return every name that any source of the dialect may use, sorted."""
        found = set(self.heartbeat)
        for measure in self.measures.values():
            for source in measure.sources:
                found.update(series_names(measure.form, source))
        return tuple(sorted(found))


def series_names(form: Form, source: Source) -> tuple[str, ...]:
    """Return the names of the series that a source reads."""
    match form:
        case Form.MEAN:
            return (f"{source.names[0]}_sum", f"{source.names[0]}_count")
        case Form.BUCKETS:
            return (f"{source.names[0]}_bucket",)
        case Form.GAUGE | Form.SLOPE | Form.RATE:
            return source.names


def gauge(*sources: Source | str, within: Within = Within.SUM, high: float = math.inf) -> Measure:
    """Return a measure that is said as it is."""
    return Measure(form=Form.GAUGE, sources=_sources(sources), within=within, high=high)


def slope(*sources: Source | str) -> Measure:
    """Return how fast a gauge grows."""
    return Measure(form=Form.SLOPE, sources=_sources(sources), low=-math.inf)


def rate(*sources: Source | str) -> Measure:
    """Return the rate of a counter."""
    return Measure(form=Form.RATE, sources=_sources(sources))


def mean(*sources: Source | str) -> Measure:
    """Return the mean of a histogram over the window of rates."""
    return Measure(form=Form.MEAN, sources=_sources(sources), within=Within.SUM)


def buckets(*sources: Source | str) -> Measure:
    """Return the rates of a histogram's buckets."""
    return Measure(form=Form.BUCKETS, sources=_sources(sources))


def _sources(sources: tuple[Source | str, ...]) -> tuple[Source, ...]:
    return tuple(Source(names=(source,)) if isinstance(source, str) else source for source in sources)
