"""From what pods say to signals of roles and scopes, as the core knows them. Pure.

A pod is *in* a reading if it counts, said something possible, and its sample is not too old; the others of the role are
missing from it, and how many there are is part of the reading. If all samples are too old the reading is made of them
and says so by its age. Nothing that is not known becomes a number, and a quotient of two zeros is not known.

Where requests come in: at a router of the set if one says so, else at the prefill (or aggregated) pods, as first tokens
plus the growth of the queue in front of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from autoscaler import observation as o
from autoscaler.engines import dialect as d
from autoscaler.observation import Reading
from autoscaler.signals.groups import gather, limit_s
from autoscaler.signals.scope_readings import scope_readings
from autoscaler.signals.vectors import Measured

# A role's signals: the measure, the measure that weighs its mean ("" for a sum, "1" for a plain mean), and its unit.
_ROLE_SIGNALS: Final[Mapping[str, tuple[str, str, str]]] = {
    o.QUEUED_REQUESTS: (d.WAITING, "", "requests"),
    o.QUEUED_TOKENS: (d.QUEUED_TOKENS, "", "tokens"),
    o.RUNNING_REQUESTS: (d.RUNNING, "", "requests"),
    o.PREFILL_TOKENS: (d.COMPUTED_TOKENS, "", "tokens/s"),
    o.DECODE_TOKENS: (d.OUTPUT_TOKENS, "", "tokens/s"),
    o.KV_USAGE: (d.KV_USAGE, "1", "ratio"),
    o.TRANSFER_QUEUE: (d.TRANSFER_WAITING, "", "requests"),
    o.PREFILL_SECONDS: (d.PREFILL_SECONDS, d.FIRST_TOKENS, "seconds"),
    o.ITL_SECONDS: (d.ITL_SECONDS, d.OUTPUT_TOKENS, "seconds"),
    o.QUEUE_SECONDS: (d.QUEUE_SECONDS, d.FIRST_TOKENS, "seconds"),
    o.GPU_ACTIVITY: (d.GPU_ACTIVITY, "1", "ratio"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeReadings:
    """What is known of one scope and of each of its roles, by the core's names of signals."""

    scope: Mapping[str, Reading]
    roles: Mapping[str, Mapping[str, Reading]] = field(default_factory=dict)


def read(measured: Measured) -> tuple[ScopeReadings, ...]:
    """Return the readings of every scope, in the census's order."""
    census = measured.census
    by_scope: list[dict[str, Mapping[str, Reading]]] = [{} for _ in census.scopes]
    for (scope, name, _), readings in zip(census.roles, _role_readings(measured), strict=True):
        by_scope[scope][name] = readings
    return tuple(
        ScopeReadings(scope=scope, roles=roles) for scope, roles in zip(scope_readings(measured), by_scope, strict=True)
    )


def _role_readings(measured: Measured) -> list[dict[str, Reading]]:
    census = measured.census
    found: list[dict[str, Reading]] = [{} for _ in census.roles]
    for signal, (measure, weight, unit) in _ROLE_SIGNALS.items():
        vector = measured.vectors.get(measure)
        weights = measured.vectors.get(weight)
        if vector is None or (weights is None and weight not in ("", "1")):
            continue
        sums = gather(census, vector, census.role_of, len(census.roles), limit_s(measure), weights)
        for number, readings in enumerate(found):
            if sums.expected[number]:
                readings[signal] = sums.reading(number, is_sum=not weight, unit=unit)
    return found
