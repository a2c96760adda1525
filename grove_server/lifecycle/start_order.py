"""Who starts after whom, and which pods are held back until their parents serve.

The rules of who depends on whom are Grove's (§2.6) for what is in the base gang. In a scaled gang a dependency in the
same group means the same group replica; other dependencies are kept and mean those of the base gang, where Grove drops
them.

A parent is satisfied when its minimum serves; what is at size 0 or not there at all is absent, and nobody waits for
it. The order goes through what is absent: its parents are waited for in its place, so that scaling the middle of a
chain to nothing does not let the end start before the beginning. The order holds starts, not pods: a pod is placed
first and held on its node; what runs keeps running whatever becomes of its parents; what has to start again, asks
again. Grove's init container asks once and never again.
"""

from __future__ import annotations

from typing import Final

from grove_server.lifecycle.blueprint import Blueprint, CliqueBlueprint
from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.plan import Note, Plan
from grove_server.resources.manifest import STARTUP_EXPLICIT, STARTUP_IN_ORDER
from grove_server.resources.meta import Condition, Kind, find_condition, with_condition
from grove_server.resources.names import member_clique, scaling_group, standalone_clique
from grove_server.resources.replacing import replace
from grove_server.resources.workload import CRASH_LOOP_BACK_OFF, WAITING_FOR_PARENTS, Pod, PodPhase

START_ORDER_SATISFIED: Final = "StartOrderSatisfied"
PARENTS_READY: Final = "ParentsReady"

# Each parent that comes nearer to its minimum changes the sentence of every pod that waits for it. Past so many waiting
# pods they name whom they wait for, and the counts stand in the clique's condition alone.
COUNTED_PODS_MAX: Final = 64
# A clique may have as many parents as a group has replicas; a sentence names the first.
NAMED_PARENTS_MAX: Final = 3


def parents_of(blueprint: Blueprint, copy: int, clique: CliqueBlueprint, group_replica: int) -> tuple[str, ...]:
    """Return the names of the PodCliques that *clique* starts after; ``group_replica`` is -1 outside groups."""
    template = blueprint.pod_clique_set.spec.template
    if template.clique_startup_type == STARTUP_EXPLICIT:
        parents = clique.template.spec.starts_after
    elif template.clique_startup_type == STARTUP_IN_ORDER:
        names = [c.name for c in template.cliques]
        position = names.index(clique.name)
        parents = (names[position - 1],) if position else ()
    else:
        return ()
    return tuple(name for parent in parents for name in _instances(blueprint, copy, clique, group_replica, parent))


def keep_order(plan: Plan, blueprint: Blueprint, copy: int, states: list[CliqueState], now: float) -> list[CliqueState]:
    """Plan which pods of a copy may start, and say of each ordered clique whether it waits; return the new states.

    *states* are all cliques of the copy as they are after the plan so far: a release counts on nothing that the same
    plan takes away.
    """
    if not any(state.clique.starts_after for state in states):
        return states
    awaited = _Awaited(blueprint, copy, states)
    revised: dict[str, Pod] = {}
    kept = [_keep(plan, state, awaited, revised, now) if state.clique.starts_after else state for state in states]
    if revised:
        plan.revise(revised)
    return kept


def _keep(plan: Plan, state: CliqueState, awaited: _Awaited, revised: dict[str, Pod], now: float) -> CliqueState:
    held = [pod for pod in state.pods if pod.is_held]
    missing = awaited.missing(state) if held else []
    if missing:
        counted = "waiting for " + _listed([f"{name} ({ready}/{minimum})" for name, ready, minimum in missing])
        message = counted
        if len(held) > COUNTED_PODS_MAX:
            message = "waiting for " + _listed([name for name, _, _ in missing])
        pods = [_holding(pod, message) if pod.is_held else pod for pod in state.pods]
        condition = _condition(state, counted, now)
    else:
        pods = [_released(pod, now) if pod.is_held and pod.node else pod for pod in state.pods]
        condition = _condition(state, "", now)
    for before, after in zip(state.pods, pods, strict=True):
        if after is not before:
            revised[before.metadata.name] = after
    status = state.clique.status
    conditions = with_condition(status.conditions, condition)
    if conditions is status.conditions:
        return replace(state, pods=tuple(pods))
    said = find_condition(status.conditions, START_ORDER_SATISFIED)
    if missing and (said is None or said.status != "False"):
        plan.notes.append(_waiting_note(state, condition.message))
    clique = replace(state.clique, status=replace(status, conditions=conditions))
    return replace(state, clique=clique, pods=tuple(pods))


class _Awaited:
    """Whom the cliques of one copy wait for, through what is absent."""

    def __init__(self, blueprint: Blueprint, copy: int, states: list[CliqueState]) -> None:
        self._blueprint = blueprint
        self._copy = copy
        self._by_name = {state.clique.metadata.name: state for state in states}
        self._not_there: dict[str, tuple[str, ...]] | None = None

    def missing(self, state: CliqueState) -> list[tuple[str, int, int]]:
        """Return (name, ready, minimum) of each whose minimum does not serve, in the order they were declared."""
        found = []
        seen = set(state.clique.starts_after)
        names = list(state.clique.starts_after)
        for name in names:
            parent = self._by_name.get(name)
            if parent is None or not parent.clique.replicas:
                further = self._parents_of_absent(name) if parent is None else parent.clique.starts_after
                names += (each for each in further if each not in seen)
                seen.update(further)
            elif not parent.is_available:
                found.append((name, parent.counts.ready, parent.minimum))
        return found

    def _parents_of_absent(self, name: str) -> tuple[str, ...]:
        """Return whom a clique starts after that is not there, since its group is at size 0."""
        if self._not_there is None:
            set_name = self._blueprint.pod_clique_set.metadata.name
            self._not_there = {
                member_clique(scaling_group(set_name, self._copy, group.name), replica, clique.name): parents_of(
                    self._blueprint, self._copy, clique, replica
                )
                for group in self._blueprint.groups
                for replica in range(group.min_available)
                for clique in group.cliques
            }
        return self._not_there.get(name, ())


def _holding(pod: Pod, message: str) -> Pod:
    """Return a held pod with what it waits for; other reasons (no node, a node that is down) stand in front."""
    if not pod.node or pod.waiting_reason not in ("", WAITING_FOR_PARENTS, CRASH_LOOP_BACK_OFF):
        return pod
    if (pod.waiting_reason, pod.waiting_message) == (WAITING_FOR_PARENTS, message):
        return pod
    return replace(pod, waiting_reason=WAITING_FOR_PARENTS, waiting_message=message)


def _released(pod: Pod, now: float) -> Pod:
    if pod.waiting_reason != WAITING_FOR_PARENTS:
        return replace(pod, released_at=now)
    # What crashed may still be in its back-off.
    reason = CRASH_LOOP_BACK_OFF if pod.phase is PodPhase.RUNNING else ""
    return replace(pod, released_at=now, waiting_reason=reason, waiting_message="")


def _condition(state: CliqueState, message: str, now: float) -> Condition:
    return Condition(
        type=START_ORDER_SATISFIED,
        status="False" if message else "True",
        reason=WAITING_FOR_PARENTS if message else PARENTS_READY,
        message=message,
        last_transition_at=now,
        observed_generation=state.clique.metadata.generation,
    )


def _waiting_note(state: CliqueState, message: str) -> Note:
    metadata = state.clique.metadata
    return Note(
        kind=Kind.POD_CLIQUE,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=WAITING_FOR_PARENTS,
        message=message,
    )


def _listed(items: list[str]) -> str:
    shown = ", ".join(items[:NAMED_PARENTS_MAX])
    more = len(items) - NAMED_PARENTS_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _instances(blueprint: Blueprint, copy: int, clique: CliqueBlueprint, group_replica: int, parent: str) -> list[str]:
    set_name = blueprint.pod_clique_set.metadata.name
    group = next((g for g in blueprint.groups if any(c.name == parent for c in g.cliques)), None)
    if group is None:
        return [standalone_clique(set_name, copy, parent)]
    group_name = scaling_group(set_name, copy, group.name)
    own = next((g for g in blueprint.groups if g.name == clique.group), None)
    if own is group and group_replica >= group.min_available:
        return [member_clique(group_name, group_replica, parent)]
    return [member_clique(group_name, j, parent) for j in range(group.min_available)]
