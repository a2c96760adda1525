"""What is asked of a scope: requests, prompt tokens and answer tokens per second, and what requests look like. Pure.

Arrivals count before throughput, because what is finished saturates at what there is. What is configured first is what
should be used: where it is not known, the next best may let a role grow, and never shrink. How long answers are is
known only of those that finished, so the larger of a short and a long mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler import observation as seen
from autoscaler.memory import ScopeMemory
from autoscaler.policy import Tuning
from autoscaler.sizing.capacity import Mix
from autoscaler.validating import Judged, Judgements

_MIX_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of demand per second; None if it is not known. ``is_fresh`` is whether it may shrink a role."""

    value: float | None
    is_fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Demand of a scope now, its mix, and whether it is proven that there is none at all."""

    prefill: Stream
    decode: Stream
    mix: Mix
    does_arrive: bool
    is_idle: bool
    output_short: float
    output_long: float


def streams_of(
    scope: Judgements, roles: Sequence[Judgements], memory: ScopeMemory | None, tuning: Tuning, elapsed_s: float
) -> Streams:
    """Return what is asked of a scope with these judged readings of its own and of its roles."""
    requests, arrived = scope.get(seen.ARRIVAL_REQUESTS), scope.get(seen.ARRIVAL_TOKENS)
    prompts, outputs = _value(scope.get(seen.PROMPT_TOKENS)), _value(scope.get(seen.OUTPUT_TOKENS))
    short = _followed(memory.output_short if memory else 0.0, outputs, elapsed_s, tuning.output_short_s)
    long = _followed(memory.output_long if memory else 0.0, outputs, elapsed_s, tuning.output_long_s)
    output = max(short, long) or None
    rate = _value(requests)
    uncached = _value(arrived)
    found = uncached / rate if uncached is not None and rate else (prompts if arrived is None else None)
    mean_uncached = _followed(memory.uncached if memory else 0.0, found, elapsed_s, _MIX_S)
    mean_prompt = _followed(memory.prompt if memory else 0.0, prompts or found, elapsed_s, _MIX_S)
    variation = _value(scope.get(seen.PROMPT_CV2))
    prefill = _stream(
        (
            _measured(arrived),
            _product(requests, mean_uncached or None),
            _total(roles, seen.PREFILL_TOKENS),
        )
    )
    decode = _stream((_product(requests, output), _total(roles, seen.DECODE_TOKENS)))
    waiting = _value(scope.get(seen.ROUTER_QUEUE)) or 0.0
    return Streams(
        prefill=prefill,
        decode=decode,
        mix=Mix(
            uncached=mean_uncached or None,
            prompt=mean_prompt or None,
            output=output,
            variation=1.0 if variation is None else variation,
        ),
        does_arrive=waiting > 0 or any((_value(judged) or 0.0) > 0 for judged in (requests, arrived)),
        is_idle=_is_idle(scope, roles),
        output_short=short,
        output_long=long,
    )


def _is_idle(scope: Judgements, roles: Sequence[Judgements]) -> bool:
    """Tell whether every counter of arrivals and every queue that there is says zero, freshly."""
    arrivals = [
        scope[name] for name in (seen.ARRIVAL_REQUESTS, seen.ARRIVAL_TOKENS, seen.ROUTER_QUEUE) if name in scope
    ]
    if not arrivals:
        return False
    held = [
        readings[name]
        for readings in roles
        for name in (seen.RUNNING_REQUESTS, seen.QUEUED_REQUESTS, seen.QUEUED_TOKENS, seen.TRANSFER_QUEUE)
        # A role without pods has nobody to report, and holds nothing.
        if name in readings and readings[name].reading.expected > 0
    ]
    return all(judged.is_fresh and judged.value == 0 for judged in (*arrivals, *held))


def _stream(sources: Sequence[Stream | None]) -> Stream:
    """Return the largest of what is known; the first source that there is says whether it may be relied on."""
    present = [source for source in sources if source is not None]
    known = [source.value for source in present if source.value is not None]
    if not known:
        return Stream(value=None, is_fresh=False)
    return Stream(value=max(known), is_fresh=present[0].is_fresh and present[0].value is not None)


def _measured(judged: Judged | None) -> Stream | None:
    return None if judged is None else Stream(value=judged.value, is_fresh=judged.is_fresh)


def _product(requests: Judged | None, tokens: float | None) -> Stream | None:
    if requests is None:
        return None
    if requests.value == 0:
        return Stream(value=0.0, is_fresh=requests.is_fresh)
    if requests.value is None or tokens is None:
        return Stream(value=None, is_fresh=False)
    return Stream(value=requests.value * tokens, is_fresh=requests.is_fresh)


def _total(roles: Sequence[Judgements], name: str) -> Stream | None:
    found = [readings[name] for readings in roles if name in readings]
    if not found:
        return None
    known = [judged.value for judged in found if judged.value is not None]
    return Stream(
        value=sum(known) if known else None,
        is_fresh=len(known) == len(found) and all(judged.is_fresh for judged in found),
    )


def _value(judged: Judged | None) -> float | None:
    return None if judged is None else judged.value


def _followed(mean: float, value: float | None, elapsed_s: float, over_s: float) -> float:
    """Return a mean after one more value; 0 is unknown."""
    if value is None or value <= 0:
        return mean
    return value if mean <= 0 else mean + (1.0 - math.exp(-elapsed_s / over_s)) * (value - mean)
