"""Gangs and pods that what-ifs speak of: those that a set would have, and what a pod holds where it runs.

Rules: the same passes make them as in the workload loop, so a set in a what-if has the gangs, names and pods that an
apply would make.

Not here: what becomes of them (`trial`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from grove_server.lifecycle.blueprint import TopologyLevels, draw_blueprint
from grove_server.lifecycle.copy import CopyView
from grove_server.lifecycle.copy_pass import plan_copy
from grove_server.lifecycle.set_pass import pod_template
from grove_server.placement.gang_facts import full_name
from grove_server.placement.occupancy import Seat
from grove_server.placement.requests import PodShape
from grove_server.resources.priority import PriorityClass
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGang:
    """One gang with its pods, those with a node included; `copy_bound` are the bound pods of its whole copy."""

    gang: PodGang
    pods: Sequence[Pod]
    copy_bound: Sequence[Pod] = ()

    @property
    def name(self) -> str:
        """Return namespace and name, as gangs are called in an occupancy."""
        return full_name(self.gang.metadata.namespace, self.gang.metadata.name)


def planned_gangs(
    owner: PodCliqueSet, copy: int, levels: TopologyLevels, classes: Mapping[str, PriorityClass], now: float
) -> list[PlannedGang]:
    """Return the gangs and pods that a fresh copy of a set would have, base gang first."""
    templates = {clique.name: pod_template(owner, clique, now) for clique in owner.spec.template.cliques}
    plan, _ = plan_copy(draw_blueprint(owner, templates, levels, classes), CopyView(copy=copy), now=now)
    pods: dict[str, list[Pod]] = {}
    for resource in plan.creates:
        if isinstance(resource, Pod):
            pods.setdefault(resource.identity.gang, []).append(resource)
    return [
        PlannedGang(gang=each, pods=tuple(pods.get(each.metadata.name, ())))
        for each in plan.creates
        if isinstance(each, PodGang)
    ]


def gang_count(owner: PodCliqueSet) -> int:
    """Return the number of gangs of a set: per copy one, and one for each group replica beyond the minimum."""
    groups = owner.spec.template.pod_clique_scaling_groups
    scaled = sum(max(0, (group.replicas or 0) - (group.min_available or 0)) for group in groups)
    return (owner.spec.replicas or 0) * (1 + scaled)


class Held(NamedTuple):
    """What one pod holds in the cluster."""

    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...]


def seat_of(pod: Pod, gang: str, held: Held) -> Seat:
    """Return the seat of a pod that counts for a gang."""
    return Seat(
        pod=full_name(pod.metadata.namespace, pod.metadata.name),
        gang=gang,
        clique=pod.identity.name,
        index=pod.index,
        node=held.node,
        shape=held.shape,
        gpu_ids=held.gpu_ids,
    )
