"""Which revision of the set a pod says that it runs, where an update does not replace the pod.

Routers pair pods of equal revision, so that parts of different versions never work together. A pod whose template is
the same before and after belongs to both revisions, but its label has one value. So during an update such pods take
the new revision in place, without a restart, in the proportion in which the replaced ones serve: at any time both
revisions have about the share of every part that they have of the parts that change. What was relabelled is not
relabelled back. At the end, and whenever nothing old is left, all of them have the new one.

Units are pods of a standalone clique and replicas of a group, the lowest indices first. Which template a pod runs, and
when it is replaced, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.plan import Plan
from grove_server.resources.labels import SET_REVISION, pod_labels
from grove_server.resources.replacing import replace
from grove_server.resources.workload import Pod

_ALL: Final = Fraction(1)
_HALF: Final = Fraction(1, 2)


def publish_revision(
    plan: Plan,
    standalone: Sequence[CliqueState],
    groups: Mapping[str, Mapping[int, Sequence[CliqueState]]],
    revision: str,
) -> dict[str, Pod]:
    """Plan which pods take *revision*, the set's; return the pods changed by name.

    The states are those after the plan so far. A clique that is still led to another revision is left as it is.
    """
    replicas = [states for of_group in groups.values() for _, states in sorted(of_group.items())]
    members = [state for states in replicas for state in states]
    if not any(
        _lags(pod, revision) for state in (*standalone, *members) if _is_led(state, revision) for pod in state.pods
    ):
        return {}
    share = _share((*standalone, *members))
    changed: dict[str, Pod] = {}
    for state in standalone:
        if _is_led(state, revision):
            _take(changed, [[(state, pod)] for pod in state.pods if _is_same(state, pod)], share, revision)
    for of_group in groups.values():
        units = [
            [(state, pod) for state in states for pod in state.pods]
            for _, states in sorted(of_group.items())
            if all(_is_led(s, revision) and all(_is_same(s, pod) for pod in s.pods) for s in states)
        ]
        _take(changed, units, share, revision)
    if changed:
        plan.revise(changed)
    return changed


def with_pods(state: CliqueState, changed: Mapping[str, Pod]) -> CliqueState:
    """Return *state* with its pods as they are in *changed*."""
    if not any(pod.metadata.name in changed for pod in state.pods):
        return state
    return replace(state, pods=tuple(changed.get(pod.metadata.name, pod) for pod in state.pods))


def _is_led(state: CliqueState, revision: str) -> bool:
    return state.clique.metadata.labels.get(SET_REVISION) == revision


def _is_same(state: CliqueState, pod: Pod) -> bool:
    """Return whether the pod runs what its clique's revision says."""
    return pod.template.hash == state.clique.template.hash


def _lags(pod: Pod, revision: str) -> bool:
    return pod.metadata.labels.get(SET_REVISION) != revision


def _share(states: Iterable[CliqueState]) -> Fraction:
    """Return the least share, over the cliques that hold old pods, of the pods of the new revision that serve."""
    serving: dict[str, int] = {}
    wanted: dict[str, int] = {}
    has_old: set[str] = set()
    for state in states:
        name, counts = state.clique.identity.clique, state.counts
        serving[name] = serving.get(name, 0) + counts.updated_ready
        wanted[name] = wanted.get(name, 0) + max(counts.active, state.clique.replicas)
        if counts.updated < counts.active:
            has_old.add(name)
    return min((Fraction(serving[name], wanted[name]) for name in sorted(has_old)), default=_ALL)


def _take(
    changed: dict[str, Pod], units: Sequence[Sequence[tuple[CliqueState, Pod]]], share: Fraction, revision: str
) -> None:
    """Let as many of *units* take the revision as their share asks for, those that have it included."""
    behind = [unit for unit in units if any(_lags(pod, revision) for _, pod in unit)]
    wanted = int(share * len(units) + _HALF)
    for unit in behind[: max(0, wanted - (len(units) - len(behind)))]:
        for state, pod in unit:
            if _lags(pod, revision):
                labels = pod_labels(state.clique.metadata.labels, state.clique.identity.name, pod.index)
                changed[pod.metadata.name] = replace(pod, metadata=replace(pod.metadata, labels=labels))
