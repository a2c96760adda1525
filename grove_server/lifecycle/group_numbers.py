"""The number of a pod among all pods of its group replica: what ``GROVE_PCSG_POD_INDEX`` says.

The pods that the template asks for are numbered in the order of ``cliqueNames`` (Grove #755): a leader is 0, its
workers are 1 and up. A number is in the environment of a running process, so it can never change, and the place of a
clique in that row can: by a scale call of another member, or an edit of the template's sizes. So a pod takes the
number that the template gives it if no living pod of the replica has it, and otherwise, as does every pod beyond its
clique's size in the template, the lowest free one from the template's count of pods on. Numbers of living pods never
repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from grove_server.lifecycle.blueprint import Blueprint
from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.environment import group_pod_index
from grove_server.lifecycle.plan import Plan
from grove_server.resources.replacing import replace
from grove_server.resources.workload import Pod


def number_pods(
    plan: Plan, blueprint: Blueprint, groups: Mapping[str, Mapping[int, Sequence[CliqueState]]]
) -> dict[str, Pod]:
    """Give the pods that *plan* creates their numbers; return those whose number is not the template's, by name.

    The states are those after the plan so far, so the numbers of pods on their way out are free.
    """
    new = {r.metadata.name for r in plan.creates if isinstance(r, Pod) and r.identity.group}
    if not new:
        return {}
    changed: dict[str, Pod] = {}
    for group in blueprint.groups:
        sizes = {clique.name: clique.replicas for clique in group.cliques}
        for states in groups[group.name].values():
            changed.update(_of_replica(states, new, sizes, group.pod_count))
    if changed:
        plan.revise(changed)
    return changed


def _of_replica(
    states: Iterable[CliqueState], new: set[str], sizes: Mapping[str, int], pod_count: int
) -> dict[str, Pod]:
    taken: set[int] = set()
    unnumbered: list[Pod] = []
    for state in states:
        for pod in state.pods:
            if pod.metadata.name in new:
                unnumbered.append(pod)
            else:
                taken.add(group_pod_index(pod.identity, pod.index, pod.group_index))
    beyond: list[Pod] = []
    for pod in unnumbered:
        regular = pod.identity.group_pod_offset + pod.index
        if pod.index < sizes[pod.identity.clique] and regular not in taken:
            taken.add(regular)
        else:
            beyond.append(pod)
    changed = {}
    number = pod_count
    for pod in beyond:
        while number in taken:
            number += 1
        taken.add(number)
        if number != pod.identity.group_pod_offset + pod.index:
            changed[pod.metadata.name] = replace(pod, group_index=number)
    return changed
