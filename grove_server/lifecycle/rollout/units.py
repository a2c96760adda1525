"""Which units of one clique or group an update replaces in this pass. The steps of RollingRecreate.

A unit is a pod of a standalone clique or a replica of a group. Where an update stands is read off the units alone, so
a pass may run at any time: units of the wanted revision are new, all others old. What does not serve is replaced at
once, since nobody loses anything by it (Grove); what serves only while enough others do. Readiness decides: a unit
that is ready serves, whatever happened to it before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grove_server.lifecycle.rollout.budget import Budget

_Order = Callable[["Unit"], tuple[float | str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A pod (``name``, and its age for the order) or a group replica (``index``).

    A replica whose cliques are all at size 0 is empty: it counts as available, and nothing is lost when it goes.
    """

    name: str = ""
    index: int = 0
    created_at: float = 0.0
    is_old: bool
    is_available: bool
    is_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPlan:
    """Old units to stop now, and how many units there are to be above the size."""

    stop: tuple[Unit, ...] = ()
    surge: int = 0


def plan_pods(pods: Sequence[Unit], size: int, budget: Budget) -> UnitPlan:
    """Return what to do with the active pods of a clique of *size*: the oldest serving ones go first.

    Pods are interchangeable: those above the size stay when they are new, and old ones go instead.
    """
    old = [pod for pod in pods if pod.is_old]
    serving = sum(pod.is_available for pod in pods)
    stop = _stopped(old, serving - (size - budget.max_unavailable), lambda pod: (pod.created_at, pod.index, pod.name))
    return UnitPlan(stop=stop, surge=min(budget.max_surge, len(old) - len(stop)))


def plan_replicas(replicas: Sequence[Unit], size: int, budget: Budget) -> UnitPlan:
    """Return what to do with the replicas of a group of *size*: the lowest serving indices go first.

    Replicas keep their index, so those above the size are there for the time of the update alone: as long as some of
    the others are old or do not serve yet. Extra ones that an edit has made old go before all others. What stands above
    size and surge is none of the update's: scale-in has it.
    """
    units = [unit for unit in replicas if unit.index < size + budget.max_surge]
    old = [unit for unit in units if unit.is_old]
    floor = size - budget.max_unavailable
    serving = sum(unit.is_available for unit in units)
    stop = _stopped(old, serving - floor, lambda unit: (float(unit.index < size), unit.index))
    taken = {unit.index for unit in stop}
    well = sum(unit.is_empty or (unit.is_available and not unit.is_old) for unit in units if unit.index < size)
    extra = max((unit.index + 1 - size for unit in units), default=0)
    waits = any(unit.index < size and not unit.is_empty for unit in old)
    bound = budget.max_surge if waits else max(0, extra)
    surge = max(0, min(bound, size - well))
    left = [unit.index for unit in units if unit.is_available and unit.index not in taken]
    while surge < extra and sum(index < size + surge for index in left) < min(floor, len(left)):
        surge += 1
    return UnitPlan(stop=stop, surge=surge)


def _stopped(old: Sequence[Unit], spare: int, order: _Order) -> tuple[Unit, ...]:
    """Return the old units that go: all that do not serve anybody, and as many of the others as are to *spare*."""
    idle = [unit for unit in old if unit.is_empty or not unit.is_available]
    serving = sorted((unit for unit in old if unit.is_available and not unit.is_empty), key=order)
    return (*sorted(idle, key=order), *serving[: max(0, spare)])
