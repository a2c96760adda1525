"""Gang termination: what has been broken for too long is recycled, the smallest broken unit as a whole.

Clocks and units are Grove's (§2.7). The clock of a clique or group runs while its MinAvailableBreached is True; when it
has run for the termination delay, one group replica is recycled if its group has its minimum without it, else the copy.
Never recycled is what never worked: a clique counts once it had its minimum on nodes, a group once it was whole; both
are stored facts that a recycle clears. While an update has the condition at Unknown, no clock runs; nor does one for
what had to leave for another gang and waits for places: nothing is broken there, and new pods would wait as well.

Different on purpose: ``never`` switches it off; a group may have a delay of its own; a unit that is recycled again and
again waits twice as long each time, up to RECYCLE_DELAY_MAX_S, until it has held for a while; what was recycled, and
why, is kept. Live sizes survive, since cliques and groups stay and only their pods are replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grove_server.lifecycle.availability import MIN_AVAILABLE_BREACHED, PREEMPTED
from grove_server.lifecycle.blueprint import Blueprint
from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.plan import EVENT_WARNING, Note
from grove_server.resources.duration import parse_duration
from grove_server.resources.manifest import TERMINATION_NEVER
from grove_server.resources.meta import Condition, Kind, find_condition
from grove_server.resources.workload import NO_GROUP_REPLICA, PodCliqueScalingGroup, PodGang, Recycle

GANG_TERMINATED: Final = "GangTerminated"
SCOPE_COPY: Final = "Copy"
SCOPE_GROUP_REPLICA: Final = "GroupReplica"

# A repetition waits at most so long, unless the delay itself is longer.
RECYCLE_DELAY_MAX_S: Final = 6 * 3600.0
# A unit that held for so long after its recycle, or for the delay if that is longer, counts as never recycled.
RECYCLE_FORGOTTEN_S: Final = 600.0
RECYCLES_KEPT_MAX: Final = 10
# Past 2^20 any delay is over the longest; the exponent is bounded so that no count overflows a float.
_DOUBLINGS_MAX: Final = 20

GroupStates = Mapping[str, tuple[PodCliqueScalingGroup, Mapping[int, Sequence[CliqueState]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycledUnit:
    """A unit to recycle now: the names of its cliques, and what is kept of it in the history.

    ``group`` is the name of the group template, empty for a copy.
    """

    group: str
    cliques: frozenset[str]
    record: Recycle


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """What one pass decided: units to recycle now, and when the next clock runs out (epoch seconds)."""

    units: tuple[RecycledUnit, ...] = ()
    wake_at: float | None = None

    @property
    def copy(self) -> RecycledUnit | None:
        """The copy, if it is recycled as a whole."""
        return next((unit for unit in self.units if not unit.group), None)

    def of_group(self, group: str) -> tuple[Recycle, ...]:
        """Return what becomes of replicas of a group."""
        return tuple(unit.record for unit in self.units if unit.group == group)

    def count_of(self, clique: str) -> int:
        """Return which recycle in a row this is for a clique; 0 if it is left alone."""
        return max((unit.record.count for unit in self.units if clique in unit.cliques), default=0)


NO_TERMINATION: Final = Termination()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """A breach under way: when it leads to a recycle, and which one in a row that would be."""

    due_at: float
    count: int
    message: str


def decide_termination(
    blueprint: Blueprint, standalone: Iterable[CliqueState], groups: GroupStates, now: float
) -> Termination:
    """Return which units of a copy are recycled now, from its states as they are after the plan so far."""
    standalone = list(standalone)
    set_delay_s = _delay_s(blueprint.pod_clique_set.spec.template.termination_delay)
    copy_clocks: list[_Clock] = []
    if set_delay_s is not None:
        copy_clocks = [c for c in (_clique_clock(state, set_delay_s) for state in standalone) if c is not None]
    replica_clocks: list[tuple[str, int, _Clock]] = []
    for drawn in blueprint.groups:
        group, replicas = groups[drawn.name]
        own = drawn.template.termination_delay
        delay_s = set_delay_s if own is None else _delay_s(own)
        broken = [j for j, states in sorted(replicas.items()) if any(_breach(s) is not None for s in states)]
        if delay_s is None or not broken:
            continue
        if group.replicas - len(broken) >= min(group.min_available, group.replicas):
            clocks = ((j, _replica_clock(replicas[j], delay_s)) for j in broken)
            replica_clocks += [(drawn.name, j, clock) for j, clock in clocks if clock is not None]
        elif (of_group := _group_clock(group, replicas, delay_s)) is not None and not _is_displaced(replicas):
            copy_clocks.append(of_group)
    if any(clock.due_at <= now for clock in copy_clocks):
        members = [state for _, replicas in groups.values() for states in replicas.values() for state in states]
        record = _record(SCOPE_COPY, NO_GROUP_REPLICA, min(copy_clocks, key=_due_at), now)
        return Termination(units=(RecycledUnit(group="", cliques=_names([*standalone, *members]), record=record),))
    units = [
        RecycledUnit(group=name, cliques=_names(groups[name][1][j]), record=_record(SCOPE_GROUP_REPLICA, j, clock, now))
        for name, j, clock in replica_clocks
        if clock.due_at <= now
    ]
    running = [*copy_clocks, *(clock for _, _, clock in replica_clocks if clock.due_at > now)]
    return Termination(units=tuple(units), wake_at=min((clock.due_at for clock in running), default=None))


def with_record(kept: tuple[Recycle, ...], new: Iterable[Recycle]) -> tuple[Recycle, ...]:
    """Return a history with *new* at its end, the oldest forgotten."""
    return (*kept, *new)[-RECYCLES_KEPT_MAX:]


def recycle_note(owner: PodGang | PodCliqueScalingGroup, record: Recycle) -> Note:
    """Return that a copy (told of its base gang) or a replica of a group was recycled."""
    metadata = owner.metadata
    what = "the copy" if record.scope == SCOPE_COPY else f"group replica {record.group_replica}"
    return Note(
        kind=owner.kind if isinstance(owner, PodCliqueScalingGroup) else Kind.POD_GANG,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=GANG_TERMINATED,
        message=f"recycled {what}: {record.message}",
        type=EVENT_WARNING,
    )


def _names(states: Iterable[CliqueState]) -> frozenset[str]:
    return frozenset(state.clique.metadata.name for state in states)


def _due_at(clock: _Clock) -> float:
    return clock.due_at


def _replica_clock(states: Iterable[CliqueState], delay_s: float) -> _Clock | None:
    """Return the clock of a group replica: that of its clique whose time is over first."""
    clocks = [clock for clock in (_clique_clock(state, delay_s) for state in states) if clock is not None]
    return min(clocks, key=_due_at, default=None)


def _record(scope: str, group_replica: int, clock: _Clock, now: float) -> Recycle:
    return Recycle(at=now, scope=scope, group_replica=group_replica, message=clock.message, count=clock.count)


def _clique_clock(state: CliqueState, delay_s: float) -> _Clock | None:
    """Return the clock of a clique that is broken and worked once."""
    breach = _breach(state)
    status = state.clique.status
    if breach is None or status.first_scheduled_at is None:
        return None
    # What was on nodes again for less than a pass may still have the breach of before its recycle.
    since = max(breach.last_transition_at, status.first_scheduled_at)
    return _clock(state.clique.metadata.name, breach, since, [state], delay_s)


def _group_clock(
    group: PodCliqueScalingGroup, replicas: Mapping[int, Sequence[CliqueState]], delay_s: float
) -> _Clock | None:
    """Return the clock of a group that is below its minimum and was whole once."""
    breach = find_condition(group.status.conditions, MIN_AVAILABLE_BREACHED)
    first = group.status.first_available_at
    if breach is None or breach.status != "True" or first is None:
        return None
    members = [state for states in replicas.values() for state in states]
    return _clock(group.metadata.name, breach, max(breach.last_transition_at, first), members, delay_s)


def _clock(name: str, breach: Condition, since: float, states: Iterable[CliqueState], delay_s: float) -> _Clock:
    recycles = max((_recycles(state, since, delay_s) for state in states), default=0)
    # The first recycle comes after the delay, the next after twice as long, and so on.
    waited_s = min(delay_s * 2.0 ** min(recycles, _DOUBLINGS_MAX), max(delay_s, RECYCLE_DELAY_MAX_S))
    again = f"; recycled {recycles} times before" if recycles else ""
    message = f"{name} was broken for {waited_s:g} s ({breach.reason}: {breach.message}){again}"
    return _Clock(due_at=since + waited_s, count=recycles + 1, message=message)


def _recycles(state: CliqueState, since: float, delay_s: float) -> int:
    """Return how often a clique was recycled in a row before the breach that began at *since*."""
    status = state.clique.status
    if status.recycled_at is None or since - status.recycled_at >= max(RECYCLE_FORGOTTEN_S, delay_s):
        return 0
    return status.recycle_count


def _breach(state: CliqueState) -> Condition | None:
    condition = find_condition(state.clique.status.conditions, MIN_AVAILABLE_BREACHED)
    is_broken = condition is not None and condition.status == "True" and condition.reason != PREEMPTED
    return condition if is_broken else None


def _is_displaced(replicas: Mapping[int, Sequence[CliqueState]]) -> bool:
    """Return whether a group lacks replicas because they had to leave."""
    conditions = (
        find_condition(state.clique.status.conditions, MIN_AVAILABLE_BREACHED)
        for states in replicas.values()
        for state in states
    )
    return any(each is not None and each.status == "True" and each.reason == PREEMPTED for each in conditions)


def _delay_s(text: str | None) -> float | None:
    """Return a termination delay in seconds; None if it is switched off."""
    return None if text is None or text == TERMINATION_NEVER else parse_duration(text)
