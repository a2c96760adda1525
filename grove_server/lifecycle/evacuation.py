"""Which pods leave their nodes, because the node is lost or drained.

* A node that has not been ready for the eviction delay is lost: its pods are stopped and replaced elsewhere. A node
  that comes back earlier keeps its pods, however often it comes and goes (Grove never replaces them, #434).
* The pods of a node that is drained leave within the availability budget of their clique or group: what does not serve
  at once, what serves as far as the budget has room, the rest when replacements serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from grove_server.lifecycle.blueprint import Blueprint
from grove_server.lifecycle.budget import max_unavailable_of, room
from grove_server.lifecycle.copy import CopyView
from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.removal import StopReason
from grove_server.lifecycle.rollout.copy_rollout import wanted_size
from grove_server.resources.workload import Pod, PodClique

_Found = dict[str, StopReason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evacuation:
    """Names of pods that leave their nodes now, and why; when to look again (epoch seconds)."""

    pods: Mapping[str, StopReason] = field(default_factory=dict)
    wake_at: float | None = None

    def because_of(self, pod: Pod) -> StopReason | None:
        """Return why *pod* leaves its node now, None if it stays."""
        return self.pods.get(pod.metadata.name)

    def after(self, view: CopyView, now: float) -> CopyView:
        """Return *view* with the pods that leave on their way out."""

        def left(pod: Pod) -> Pod:
            leaves = pod.metadata.name in self.pods
            return replace(pod, metadata=replace(pod.metadata, deleted_at=now)) if leaves else pod

        return replace(view, pods={name: [left(pod) for pod in pods] for name, pods in view.pods.items()})


NO_EVACUATION: Final = Evacuation()


def plan_evacuation(blueprint: Blueprint, view: CopyView, orders: CopyOrders, now: float) -> Evacuation:
    """Return which pods of a copy leave their nodes, before anything else of the pass takes any."""
    if not orders.nodes:
        return NO_EVACUATION
    found: _Found = {}
    by_clique = {name: [pod for pod in pods if pod.is_active and pod.node] for name, pods in view.pods.items()}
    wake_at = _leave_lost_nodes(found, (pod for pods in by_clique.values() for pod in pods), orders, now)
    if any(trouble.draining_since is not None for trouble in orders.nodes.values()):
        left = {name: [pod for pod in pods if pod.metadata.name not in found] for name, pods in by_clique.items()}
        _leave_drained_nodes(found, blueprint, view, left, orders)
    return Evacuation(pods=found, wake_at=wake_at)


def _leave_drained_nodes(
    found: _Found, blueprint: Blueprint, view: CopyView, left: Mapping[str, Sequence[Pod]], orders: CopyOrders
) -> None:
    spec = blueprint.pod_clique_set.spec
    cliques = {(c.identity.group, c.identity.group_replica, c.identity.clique): c for c in view.cliques.values()}
    for drawn in blueprint.standalone:
        clique = cliques.get(("", -1, drawn.name))
        if clique is not None:
            size = wanted_size(clique, drawn.replicas)
            missing = max_unavailable_of(drawn.template.rolling_update, spec, size)
            _drain_clique(found, size, left.get(clique.metadata.name, ()), orders, missing)
    for group in blueprint.groups:
        observed = view.groups.get(group.name)
        replicas: dict[int, list[tuple[PodClique, Sequence[Pod]]]] = {}
        for (of_group, j, _), clique in sorted(cliques.items()):
            if of_group == group.name:
                replicas.setdefault(j, []).append((clique, left.get(clique.metadata.name, ())))
        if observed is not None:
            size = wanted_size(observed, group.replicas)
            missing = max_unavailable_of(group.template.rolling_update, spec, size)
            _drain_group(found, size, replicas, orders, missing)


def _leave_lost_nodes(found: _Found, pods: Iterable[Pod], orders: CopyOrders, now: float) -> float | None:
    """Let pods leave nodes that are lost; return when the next node will be."""
    wake_at: float | None = None
    for pod in pods:
        trouble = orders.nodes.get(pod.node)
        if trouble is None or trouble.not_ready_since is None:
            continue
        due_at = trouble.not_ready_since + orders.node_eviction_delay_s
        if due_at <= now:
            found[pod.metadata.name] = StopReason.NODE_LOST
        elif wake_at is None or due_at < wake_at:
            wake_at = due_at
    return wake_at


def _is_drained(pod: Pod, orders: CopyOrders) -> bool:
    trouble = orders.nodes.get(pod.node)
    return trouble is not None and trouble.draining_since is not None


def _drain_clique(found: _Found, size: int, pods: Sequence[Pod], orders: CopyOrders, missing: int) -> None:
    """Let pods of a standalone clique leave: those that do not serve, then by index as the budget allows."""
    leaving = sorted((pod for pod in pods if _is_drained(pod, orders)), key=lambda pod: (pod.is_ready, pod.index))
    if not leaving:
        return
    may_go = room(desired=size, available=sum(pod.is_ready for pod in pods), max_unavailable=missing)
    for pod in leaving:
        if pod.is_ready:
            if may_go == 0:
                return
            may_go -= 1
        found[pod.metadata.name] = StopReason.NODE_DRAINED


def _drain_group(
    found: _Found,
    size: int,
    replicas: Mapping[int, Sequence[tuple[PodClique, Sequence[Pod]]]],
    orders: CopyOrders,
    missing: int,
) -> None:
    """Let pods of a group leave, replica by replica: those of replicas that do not serve, then as the budget allows."""
    serving = sorted(j for j, members in replicas.items() if all(_serves(c, pods) for c, pods in members))
    available = {j for j in serving if j < size}
    may_go = room(desired=size, available=len(available), max_unavailable=missing)
    # What an update added, as far as it stands in for those that do not serve.
    stand_ins = [j for j in serving if j >= size][: max(0, size - missing - len(available))]
    for j in sorted(replicas, key=lambda j: (j in available, j)):
        if j in stand_ins:
            continue
        leaving = [pod for _, pods in replicas[j] for pod in pods if _is_drained(pod, orders)]
        if not leaving:
            continue
        if j in available:
            if may_go == 0:
                return
            may_go -= 1
        found.update((pod.metadata.name, StopReason.NODE_DRAINED) for pod in leaving)


def _serves(clique: PodClique, pods: Sequence[Pod]) -> bool:
    return sum(pod.is_ready for pod in pods) >= min(clique.min_available, clique.replicas)
