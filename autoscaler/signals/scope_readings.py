"""Signals of whole scopes: what comes in, how long it is, how well it is served. Pure.

Requests come in at a router of the set if one says so, else at the prefill (or aggregated) pods, as first tokens plus
the growth of the queue in front of them: what was finished alone would fall short just when too much comes. Requests
leave at the decode (or aggregated) pods. An engine's time to the first token leaves out the wait in a router.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from autoscaler import observation as o
from autoscaler.engines import dialect as d
from autoscaler.observation import Reading
from autoscaler.signals.attainment import attainment, prompt_variation
from autoscaler.signals.census import NO_ROLE, Census, Numbers
from autoscaler.signals.groups import Sums, gather, limit_s
from autoscaler.signals.vectors import Measured
from grove_server.resources.scaling_policy import AGGREGATED, DECODE, PREFILL

_ENTRY_KINDS: Final = (PREFILL, AGGREGATED)
_EXIT_KINDS: Final = (DECODE, AGGREGATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """Which pods of a scope count as its entry, its exit, its routers: the scope's number or NO_ROLE for each pod."""

    entry: Numbers
    exit: Numbers
    front: Numbers


class _Asked:
    """Sums over scopes, made when they are first asked for."""

    def __init__(self, measured: Measured) -> None:
        self.census = measured.census
        self._measured = measured
        self._count = len(measured.census.scopes)
        self._sides = _sides(measured.census)
        self._sums: dict[tuple[str, str], Sums | None] = {}
        self._histograms: dict[tuple[str, str], dict[float, Sums]] = {}

    def sums(self, measure: str, side: str, weight: str = "") -> Sums | None:
        """Return a measure over one side of every scope, None if nobody says it."""
        key = (measure, side)
        if key not in self._sums:
            vector = self._measured.vectors.get(measure)
            weights = self._measured.vectors.get(weight) if weight else None
            self._sums[key] = (
                gather(self.census, vector, self._groups(side), self._count, limit_s(measure), weights)
                if vector is not None and (weights is not None or not weight)
                else None
            )
        return self._sums[key]

    def histogram(self, measure: str, side: str) -> Mapping[float, Sums]:
        """Return a histogram over one side of every scope."""
        key = (measure, side)
        if key not in self._histograms:
            self._histograms[key] = {
                edge: gather(self.census, vector, self._groups(side), self._count, limit_s(measure), None)
                for edge, vector in self._measured.buckets.get(measure, {}).items()
            }
        return self._histograms[key]

    def _groups(self, side: str) -> Numbers:
        match side:
            case "entry":
                return self._sides.entry
            case "exit":
                return self._sides.exit
            case _:
                return self._sides.front


def scope_readings(measured: Measured) -> list[dict[str, Reading]]:
    """Return the readings of every scope, by the core's names of signals."""
    asked = _Asked(measured)
    signals: dict[str, Callable[[_Asked, int], Reading | None]] = {
        o.ARRIVAL_REQUESTS: _arrivals,
        o.ARRIVAL_TOKENS: _arriving_tokens,
        o.PROMPT_TOKENS: _prompt_tokens,
        o.PROMPT_CV2: _prompt_variation,
        o.OUTPUT_TOKENS: _output_tokens,
        o.TTFT_ATTAINMENT: _ttft_attainment,
        o.ITL_ATTAINMENT: _itl_attainment,
        o.ROUTER_QUEUE: _router_queue,
    }
    return [
        {name: reading for name, make in signals.items() if (reading := make(asked, scope)) is not None}
        for scope in range(len(measured.census.scopes))
    ]


def _arrivals(asked: _Asked, scope: int) -> Reading | None:
    front = asked.sums(d.FRONT_ARRIVALS, "front")
    if front is not None and front.reporting[scope]:
        return front.reading(scope, is_sum=True, unit="req/s")
    first = asked.sums(d.FIRST_TOKENS, "entry")
    if first is None or not first.expected[scope]:
        return None
    reading = first.reading(scope, is_sum=True, unit="req/s")
    growth = asked.sums(d.WAITING_SLOPE, "entry")
    grown = None if growth is None else growth.total(scope)
    if reading.value is None or grown is None:
        return reading
    return replace(reading, value=max(0.0, reading.value + grown))


def _arriving_tokens(asked: _Asked, scope: int) -> Reading | None:
    arrivals = _arrivals(asked, scope)
    if arrivals is None:
        return None
    if arrivals.value == 0:
        # Nothing comes in; how long it would be does not matter.
        return replace(arrivals, unit="tokens/s")
    front = asked.sums(d.FRONT_PROMPT_LENGTH, "front")
    cached = asked.sums(d.FRONT_CACHED_LENGTH, "front")
    length = None if front is None else front.mean(scope)
    if length is not None:
        hits = None if cached is None else cached.mean(scope)
        return _times(arrivals, max(0.0, length - (hits or 0.0)))
    computed, first = asked.sums(d.COMPUTED_TOKENS, "entry"), asked.sums(d.FIRST_TOKENS, "entry")
    return _times(arrivals, _quotient(computed, first, scope))


def _times(arrivals: Reading, length: float | None) -> Reading:
    value = None if arrivals.value is None or length is None else arrivals.value * length
    return replace(arrivals, value=value, unit="tokens/s")


def _prompt_tokens(asked: _Asked, scope: int) -> Reading | None:
    front = asked.sums(d.FRONT_PROMPT_LENGTH, "front")
    if front is not None and front.mean(scope) is not None:
        return front.reading(scope, is_sum=False, unit="tokens")
    prompts, first = asked.sums(d.PROMPT_TOKENS, "entry"), asked.sums(d.FIRST_TOKENS, "entry")
    if prompts is None or not prompts.expected[scope]:
        return None
    reading = prompts.reading(scope, is_sum=False, unit="tokens")
    return replace(reading, value=_quotient(prompts, first, scope))


def _output_tokens(asked: _Asked, scope: int) -> Reading | None:
    front = asked.sums(d.FRONT_OUTPUT_LENGTH, "front")
    if front is not None and front.mean(scope) is not None:
        return front.reading(scope, is_sum=False, unit="tokens")
    lengths = asked.sums(d.OUTPUT_LENGTH, "exit", d.OUTPUT_TOKENS)
    if lengths is None or not lengths.expected[scope]:
        return None
    return lengths.reading(scope, is_sum=False, unit="tokens")


def _prompt_variation(asked: _Asked, scope: int) -> Reading | None:
    sums = asked.histogram(d.PROMPT_BUCKETS, "entry")
    if not sums:
        return None
    return _of_histogram(sums, scope, prompt_variation(_rates(sums, scope)), "")


def _ttft_attainment(asked: _Asked, scope: int) -> Reading | None:
    return _attained(
        asked, scope, asked.census.scopes[scope].ttft_s, (d.FRONT_TTFT_BUCKETS, "front"), (d.TTFT_BUCKETS, "entry")
    )


def _itl_attainment(asked: _Asked, scope: int) -> Reading | None:
    return _attained(
        asked, scope, asked.census.scopes[scope].itl_s, (d.FRONT_ITL_BUCKETS, "front"), (d.ITL_BUCKETS, "exit")
    )


def _attained(asked: _Asked, scope: int, target_s: float | None, *places: tuple[str, str]) -> Reading | None:
    """Return the attainment of a target at the first place that has seen any requests."""
    if target_s is None:
        return None
    last: Reading | None = None
    for measure, side in places:
        sums = asked.histogram(measure, side)
        if not sums or not any(each.expected[scope] for each in sums.values()):
            continue
        value, message = attainment(_rates(sums, scope), target_s)
        last = _of_histogram(sums, scope, value, message)
        if value is not None:
            return last
    return last


def _router_queue(asked: _Asked, scope: int) -> Reading | None:
    front = asked.sums(d.FRONT_QUEUE, "front")
    if front is None or not front.reporting[scope]:
        return None
    return front.reading(scope, is_sum=True, unit="requests")


def _of_histogram(sums: Mapping[float, Sums], scope: int, value: float | None, message: str) -> Reading:
    whole = sums[max(sums)].reading(scope, is_sum=False, unit="ratio")
    return replace(whole, value=value, message=message or whole.message)


def _rates(sums: Mapping[float, Sums], scope: int) -> dict[float, float]:
    return {edge: total for edge, each in sums.items() if (total := each.total(scope)) is not None}


def _quotient(above: Sums | None, below: Sums | None, scope: int) -> float | None:
    """Return a quotient of two sums, None if one is not known or the lower one is zero."""
    if above is None or below is None:
        return None
    part, whole = above.total(scope), below.total(scope)
    return part / whole if part is not None and whole is not None and whole > 0 else None


def _sides(census: Census) -> _Sides:
    kinds: list[dict[str, str]] = [dict(scope.roles) for scope in census.scopes]
    role_kinds = np.array([kind for _, _, kind in census.roles] or [""])
    entry_roles = np.isin(role_kinds, _ENTRY_KINDS)
    exit_roles = np.isin(role_kinds, _EXIT_KINDS)
    for number, (scope, _, _) in enumerate(census.roles):
        # A policy for one side only: there requests come in and leave.
        there = kinds[scope].values()
        entry_roles[number] |= not any(kind in _ENTRY_KINDS for kind in there)
        exit_roles[number] |= not any(kind in _EXIT_KINDS for kind in there)
    in_role = census.role_of != NO_ROLE
    of_pod = np.where(in_role, census.role_of, 0)
    return _Sides(
        entry=np.where(in_role & entry_roles[of_pod], census.scope_of, NO_ROLE),
        exit=np.where(in_role & exit_roles[of_pod], census.scope_of, NO_ROLE),
        front=np.where(in_role, NO_ROLE, census.scope_of),
    )
