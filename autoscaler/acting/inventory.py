"""What is there: policies, their sets, and the roles of each copy in replicas; kept from watches, read at each tick.

A role's counts are worked out anew only when one of its pods changed. A replica of a clique is a pod; a replica of a
group is ready when each of its cliques has its minimum ready. What leaves counts for the size no more, but holds its
GPUs until it is gone. Owned by the event loop; knows no clock: times come as arguments.

Not here: watching (``watching``), signals (they are put beside by ``service.scopes``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from autoscaler.acting.records import CLIQUE, GROUP, PodRecord, PolicySeen, SetSeen, TargetSeen
from grove_server.resources import names
from grove_server.resources.scaling_policy import RoleSpec

COLD_STARTS_KEPT: Final = 16
_Target = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Replicas of one target by what they do. ``pending_since`` is of the oldest that waits for a place."""

    ready: int = 0
    starting: int = 0
    pending: int = 0
    draining: int = 0
    failed: int = 0
    pending_since: float | None = None
    cold_starts_s: tuple[float, ...] = ()


class Inventory:
    """All that is known; ``version`` grows with every change of what signals are wanted of."""

    def __init__(self) -> None:
        self.policies: dict[tuple[str, str], PolicySeen] = {}
        self.sets: dict[tuple[str, str], SetSeen] = {}
        self.targets: dict[_Target, TargetSeen] = {}
        self.version = 0
        self._pods: dict[tuple[str, str], PodRecord] = {}
        self._of_target: dict[_Target, dict[str, PodRecord]] = {}
        self._of_copy: dict[tuple[str, str, int], dict[str, PodRecord]] = {}
        self._counts: dict[_Target, Counts] = {}
        self._short_since: dict[_Target, float] = {}

    def put_policy(self, policy: PolicySeen) -> None:
        """Take in a policy."""
        known = self.policies.get((policy.namespace, policy.name))
        self.policies[policy.namespace, policy.name] = policy
        # Its status changes at every tick, and is nothing that signals depend on.
        if known is None or known.generation != policy.generation or known.spec != policy.spec:
            self.version += 1

    def drop_policy(self, namespace: str, name: str) -> None:
        """Forget a policy."""
        self.version += self.policies.pop((namespace, name), None) is not None

    def put_set(self, seen: SetSeen) -> None:
        """Take in a set."""
        self.sets[seen.namespace, seen.name] = seen
        self._counts.clear()
        self.version += 1

    def drop_set(self, namespace: str, name: str) -> None:
        """Forget a set."""
        self.version += self.sets.pop((namespace, name), None) is not None

    def put_target(self, target: TargetSeen) -> TargetSeen | None:
        """Take in a clique or group; return what was known, None also where the news is older than that."""
        key = (target.kind, target.namespace, target.name)
        known = self.targets.get(key)
        if known is not None and known.uid == target.uid and known.generation > target.generation:
            return None
        self.targets[key] = target
        self._counts.pop(key, None)
        return known

    def drop_target(self, kind: str, namespace: str, name: str) -> None:
        """Forget a clique or group."""
        key = (kind, namespace, name)
        self.targets.pop(key, None)
        self._counts.pop(key, None)
        self._short_since.pop(key, None)

    def put_pod(self, pod: PodRecord) -> None:
        """Take in a pod."""
        known = self._pods.get((pod.namespace, pod.name))
        if known == pod:
            return
        if known is not None:
            self._take_out(known)
        self._pods[pod.namespace, pod.name] = pod
        for key in _targets_of(pod):
            self._of_target.setdefault(key, {})[pod.name] = pod
            self._counts.pop(key, None)
        self._of_copy.setdefault((pod.namespace, pod.set_name, pod.copy), {})[pod.name] = pod
        self.version += 1

    def drop_pod(self, namespace: str, name: str) -> None:
        """Forget a pod."""
        known = self._pods.pop((namespace, name), None)
        if known is not None:
            self._take_out(known)
            self.version += 1

    def _take_out(self, pod: PodRecord) -> None:
        for key in _targets_of(pod):
            pods = self._of_target.get(key)
            if pods is not None:
                pods.pop(pod.name, None)
                if not pods:
                    del self._of_target[key]
            self._counts.pop(key, None)
        place = (pod.namespace, pod.set_name, pod.copy)
        of_copy = self._of_copy.get(place)
        if of_copy is not None:
            of_copy.pop(pod.name, None)
            if not of_copy:
                del self._of_copy[place]

    def pods_of(self, namespace: str, set_name: str, copy: int) -> Iterable[PodRecord]:
        """Return the pods of a copy, by name."""
        pods = self._of_copy.get((namespace, set_name, copy), {})
        return [pods[name] for name in sorted(pods)]

    def pod(self, namespace: str, name: str) -> PodRecord | None:
        """Return a pod, None if it is gone."""
        return self._pods.get((namespace, name))

    def target(self, namespace: str, set_name: str, copy: int, role: RoleSpec) -> TargetSeen | None:
        """Return what a role of a copy scales, None while it is not there."""
        return self.targets.get(target_key(namespace, set_name, copy, role))

    def counts(self, target: TargetSeen, seen: SetSeen, role: RoleSpec, now: float) -> Counts:
        """Return a target's replicas; what is asked for and has no pod yet is pending since it was first seen so."""
        key = (target.kind, target.namespace, target.name)
        counted = self._counts.get(key)
        if counted is None:
            pods = self._of_target.get(key, {}).values()
            if target.kind == GROUP:
                counted = _group_counts(pods, target, seen, role)
            else:
                counted = _clique_counts(pods, target.replicas)
            self._counts[key] = counted
        missing = target.replicas - counted.ready - counted.starting - counted.pending
        if missing <= 0:
            self._short_since.pop(key, None)
            return counted
        since = self._short_since.setdefault(key, now)
        if counted.pending_since is not None:
            since = min(since, counted.pending_since)
        return Counts(
            ready=counted.ready,
            starting=counted.starting,
            pending=counted.pending + missing,
            draining=counted.draining,
            failed=counted.failed,
            pending_since=since,
            cold_starts_s=counted.cold_starts_s,
        )


def target_key(namespace: str, set_name: str, copy: int, role: RoleSpec) -> _Target:
    """Return kind, namespace and name of what a role of a copy scales."""
    if role.pod_clique_scaling_group is not None:
        return GROUP, namespace, names.scaling_group(set_name, copy, role.pod_clique_scaling_group)
    return CLIQUE, namespace, names.standalone_clique(set_name, copy, role.pod_clique or "")


def gpus_per_replica(seen: SetSeen, role: RoleSpec) -> float:
    """Return the GPUs of one replica of a role, as the set's template has it."""
    if role.pod_clique_scaling_group is None:
        shape = seen.cliques.get(role.pod_clique or "")
        return 0.0 if shape is None else shape.gpus_per_pod
    members = seen.groups.get(role.pod_clique_scaling_group, ())
    return sum(seen.cliques[name].gpus_per_pod * seen.cliques[name].pods for name in members if name in seen.cliques)


def _targets_of(pod: PodRecord) -> Iterable[_Target]:
    yield CLIQUE, pod.namespace, pod.clique
    if pod.group:
        yield GROUP, pod.namespace, pod.group


def _clique_counts(pods: Iterable[PodRecord], size: int) -> Counts:
    staying = sorted((pod for pod in pods if not pod.is_leaving), key=lambda pod: (pod.created_at, pod.name))
    leaving = sum(1 for pod in pods if pod.is_leaving)
    ready = [pod for pod in staying if pod.is_ready]
    # A size that was lowered a moment ago: who leaves is not chosen yet, but some will.
    surplus = max(0, len(staying) - size)
    waiting = [pod for pod in staying if not pod.is_placed]
    pending = max(0, len(waiting) - surplus)
    surplus -= len(waiting) - pending
    started = len(staying) - len(ready) - len(waiting)
    starting = max(0, started - surplus)
    # What is placed holds its GPUs until it is gone.
    leaving += started - starting
    surplus -= started - starting
    return Counts(
        ready=len(ready) - surplus,
        starting=starting,
        pending=pending,
        draining=leaving + surplus,
        failed=sum(1 for pod in staying if pod.has_failed),
        pending_since=min((pod.created_at for pod in waiting), default=None) if pending else None,
        cold_starts_s=_cold_starts(staying),
    )


def _group_counts(pods: Iterable[PodRecord], target: TargetSeen, seen: SetSeen, role: RoleSpec) -> Counts:
    members = seen.groups.get(role.pod_clique_scaling_group or "", ())
    by_replica: dict[int, list[PodRecord]] = {}
    for pod in pods:
        by_replica.setdefault(pod.group_replica, []).append(pod)
    ready = starting = pending = draining = failed = 0
    since: list[float] = []
    for replica in sorted(by_replica):
        of_replica = by_replica[replica]
        staying = [pod for pod in of_replica if not pod.is_leaving]
        if replica >= target.replicas or not staying:
            # Highest replicas go first; they hold their GPUs until the last pod is gone.
            draining += 1
            continue
        failed += any(pod.has_failed for pod in staying)
        if _has_minimum_ready(staying, members, seen, target.name, replica):
            ready += 1
        elif all(pod.is_placed for pod in staying):
            starting += 1
        else:
            pending += 1
            since.append(min(pod.created_at for pod in staying if not pod.is_placed))
    return Counts(
        ready=ready,
        starting=starting,
        pending=pending,
        draining=draining,
        failed=failed,
        pending_since=min(since, default=None),
        cold_starts_s=_cold_starts(pods),
    )


def _has_minimum_ready(
    pods: Iterable[PodRecord], members: Iterable[str], seen: SetSeen, group: str, replica: int
) -> bool:
    ready: dict[str, int] = {}
    for pod in pods:
        ready[pod.clique] = ready.get(pod.clique, 0) + pod.is_ready
    shapes: Mapping[str, int] = {
        names.member_clique(group, replica, name): seen.cliques[name].min_available
        for name in members
        if name in seen.cliques
    }
    return bool(ready) and all(ready.get(clique, 0) >= least for clique, least in shapes.items())


def _cold_starts(pods: Iterable[PodRecord]) -> tuple[float, ...]:
    found = sorted((pod.created_at, pod.name, pod.cold_start_s) for pod in pods if pod.cold_start_s is not None)
    return tuple(seconds for _, _, seconds in found[-COLD_STARTS_KEPT:])
