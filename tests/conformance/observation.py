"""What a namespace holds at a moment, read through gRPC, and what must be true of it whenever nothing moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from grove.v1.meta_pb2 import Condition, ObjectMeta
from grove.v1.node_pb2 import Node
from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_gang_pb2 import PodGang
from grove.v1.pod_pb2 import Pod
from grove_client import GroveClient

WAITING_REASONS: Final = frozenset({"Unschedulable", "SchedulingGated"})
CLIQUE_LABEL: Final = "grove.io/podclique"
GANG_LABEL: Final = "grove.io/podgang"
INDEX_LABEL: Final = "grove.io/podclique-pod-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All resources of a namespace by name; pods and others that are being deleted are in it, too."""

    sets: Mapping[str, PodCliqueSet]
    groups: Mapping[str, PodCliqueScalingGroup]
    cliques: Mapping[str, PodClique]
    gangs: Mapping[str, PodGang]
    pods: Mapping[str, Pod]

    @property
    def versions(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return uid and version of everything by kind and name; equal ones mean that nothing happened."""
        kinds: Iterable[Mapping[str, PodCliqueSet | PodCliqueScalingGroup | PodClique | PodGang | Pod]] = (
            self.sets,
            self.groups,
            self.cliques,
            self.gangs,
            self.pods,
        )
        found = [resource for kind in kinds for resource in kind.values()]
        return {(r.kind, r.metadata.name): (r.metadata.uid, r.metadata.resource_version) for r in found}

    @property
    def active(self) -> list[Pod]:
        """Return the pods that are not being deleted."""
        return [pod for pod in self.pods.values() if not pod.metadata.deletion_timestamp]

    @property
    def ready(self) -> list[Pod]:
        """Return the active pods that are ready."""
        return [pod for pod in self.active if condition(pod.status.conditions, "Ready") == "True"]

    @property
    def pending(self) -> list[Pod]:
        """Return the active pods without a node."""
        return [pod for pod in self.active if not node_of(pod)]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of active, ready and pending pods."""
        return len(self.active), len(self.ready), len(self.pending)

    def ready_by_clique(self) -> dict[str, int]:
        """Return the number of ready pods of each clique that has any."""
        return dict(Counter(clique_of(pod) for pod in self.ready))

    def bound_of_gang(self, gang: str) -> list[Pod]:
        """Return the pods of a gang that have a node."""
        return [pod for pod in self.active if pod.metadata.labels[GANG_LABEL] == gang and node_of(pod)]


async def observe(grove: GroveClient, namespace: str) -> Observation:
    """Read everything in *namespace*."""
    return Observation(
        sets={r.metadata.name: r async for r in grove.pod_clique_sets.list(namespace=namespace)},
        groups={r.metadata.name: r async for r in grove.pod_clique_scaling_groups.list(namespace=namespace)},
        cliques={r.metadata.name: r async for r in grove.pod_cliques.list(namespace=namespace)},
        gangs={r.metadata.name: r async for r in grove.pod_gangs.list(namespace=namespace)},
        pods={r.metadata.name: r async for r in grove.pods.list(namespace=namespace)},
    )


def condition(conditions: Iterable[Condition], kind: str) -> str:
    """Return the status of a condition, empty if there is none of that type."""
    return next((c.status for c in conditions if c.type == kind), "")


def node_of(pod: Pod) -> str:
    """Return the node of a pod, empty if it has none."""
    return pod.spec.fields["nodeName"].string_value if "nodeName" in pod.spec.fields else ""


def clique_of(pod: Pod) -> str:
    """Return the name of the pod's PodClique."""
    return pod.metadata.labels[CLIQUE_LABEL]


def place_of(pod: Pod) -> tuple[str, int]:
    """Return clique and index of a pod: its identity beyond its name."""
    return clique_of(pod), int(pod.metadata.labels[INDEX_LABEL])


def check(seen: Observation, nodes: Mapping[str, Node]) -> None:
    """Check all that must hold of *seen* when nothing moves, on *nodes* by name."""
    _check_pods(seen)
    _check_gangs(seen)
    _check_domains(seen, nodes)
    _check_counts(seen)


def _check_pods(seen: Observation) -> None:
    places = Counter(place_of(pod) for pod in seen.active)
    assert max(places.values(), default=1) == 1, f"doubled: {[p for p, n in places.items() if n > 1]}"
    for pod in seen.pending:
        scheduled = next(c for c in pod.status.conditions if c.type == "PodScheduled")
        assert pod.status.phase == "Pending", pod
        assert scheduled.status == "False", pod
        assert scheduled.reason in WAITING_REASONS, pod
        assert scheduled.message, pod
        assert not pod.status.pod_ip, pod
    for pod in seen.ready:
        assert pod.status.phase == "Running", pod
        assert pod.status.pod_ip, pod


def _check_gangs(seen: Observation) -> None:
    """Gangs are placed as a whole or not at all, partition the pods, and say the truth about themselves."""
    referenced = Counter(
        p.name for g in seen.gangs.values() for group in g.spec.podgroups for p in group.pod_references
    )
    assert referenced == Counter(pod.metadata.name for pod in seen.active)
    placed = {name for name, gang in seen.gangs.items() if _is_placed(seen, gang)}
    for name, gang in seen.gangs.items():
        status = gang.status
        is_placed = name in placed
        is_ready = all(_count(seen.ready, g.name) >= g.min_replicas for g in gang.spec.podgroups)
        expected = ("Running" if is_ready else "Starting") if is_placed else "Pending"
        assert status.phase == expected, f"{name} is {status.phase}, not {expected}"
        assert condition(status.conditions, "Scheduled") == str(is_placed), name
        assert condition(status.conditions, "Ready") == str(is_placed and is_ready), name
        assert condition(status.conditions, "Initialized") == "True", name
        assert bool(status.scheduled_at) == is_placed, name
        assert bool(status.reason) != is_placed, f"{name}: reason {status.reason!r}"
        assert bool(status.message) != is_placed, f"{name}: message {status.message!r}"
        base = _base_of(seen, gang)
        if is_placed and base is not None:
            assert base in placed, f"{name} is placed before its base gang"


def _is_placed(seen: Observation, gang: PodGang) -> bool:
    bound = seen.bound_of_gang(gang.metadata.name)
    counts = [(_count(bound, group.name), group.min_replicas) for group in gang.spec.podgroups]
    if all(count >= minimum for count, minimum in counts):
        return bool(counts)
    assert not any(count for count, _ in counts), f"{gang.metadata.name} is placed in part: {counts}"
    return False


def _base_of(seen: Observation, gang: PodGang) -> str | None:
    """Return the base gang of a scaled gang, None for a base gang."""
    cliques = [seen.cliques[group.name] for group in gang.spec.podgroups]
    bases = {clique.metadata.labels.get("grove.io/base-podgang", "") for clique in cliques}
    assert len(bases) == 1, f"{gang.metadata.name} has several base gangs: {bases}"
    return bases.pop() or None


def _count(pods: Iterable[Pod], clique: str) -> int:
    return sum(clique_of(pod) == clique for pod in pods)


def _check_domains(seen: Observation, nodes: Mapping[str, Node]) -> None:
    """The domains that a gang names are where its pods are, and each required level is kept and named."""
    for name, gang in seen.gangs.items():
        bound = seen.bound_of_gang(name)
        scopes = _scopes(gang)
        for chosen in gang.status.topology:
            cliques, _ = scopes[chosen.scope]
            domains = {label_of(nodes, pod, chosen.key) for pod in bound if clique_of(pod) in cliques}
            assert domains == {chosen.domain}, f"{name}: {chosen} but the pods are in {domains}"
        for scope, (cliques, required) in scopes.items():
            pods = [pod for pod in bound if clique_of(pod) in cliques]
            if required and pods:
                domains = {label_of(nodes, pod, required) for pod in pods}
                assert len(domains) == 1, f"{scope} is spread over {domains}"
                named = {c.domain for c in gang.status.topology if (c.scope, c.key) == (scope, required)}
                assert named == domains, f"{scope} is in {domains}, the gang says {named}"
        assert bound or not gang.status.topology, f"{name} has no pods bound and names {gang.status.topology}"


def _scopes(gang: PodGang) -> dict[str, tuple[set[str], str]]:
    """Return cliques and required label key of each scope of a gang."""
    groups = gang.spec.podgroups
    everything = {group.name for group in groups}
    scopes = {gang.metadata.name: (everything, gang.spec.topology_constraint.pack_constraint.required)}
    for config in gang.spec.topology_constraint_group_configs:
        scopes[config.name] = (set(config.pod_group_names), config.topology_constraint.pack_constraint.required)
    for group in groups:
        scopes[group.name] = ({group.name}, group.topology_constraint.pack_constraint.required)
    return scopes


def label_of(nodes: Mapping[str, Node], pod: Pod, key: str) -> str:
    """Return a label of the node that *pod* is on."""
    return nodes[node_of(pod)].metadata.labels[key]


def _check_counts(seen: Observation) -> None:
    """Cliques, groups and sets count what is there."""
    for name, clique in seen.cliques.items():
        pods = [pod for pod in seen.active if clique_of(pod) == name]
        bound = [pod for pod in pods if node_of(pod)]
        status = clique.status
        assert len(pods) == clique.spec.replicas == status.replicas, f"{name}: {len(pods)} pods, {clique}"
        assert status.scheduled_replicas == len(bound), name
        assert status.ready_replicas == _count(seen.ready, name), name
        has_minimum = len(bound) >= clique.spec.min_available
        if clique.spec.replicas:
            assert condition(status.conditions, "PodCliqueScheduled") == str(has_minimum), name
    for name, group in seen.groups.items():
        scheduled, available = _replicas_of_group(seen, group)
        assert group.status.replicas == group.spec.replicas, name
        assert group.status.scheduled_replicas == scheduled, f"{name}: {scheduled} scheduled, {group.status}"
        assert group.status.available_replicas == available, f"{name}: {available} available, {group.status}"
    for name, owner in seen.sets.items():
        assert owner.status.observed_generation == owner.metadata.generation, name
        assert owner.status.replicas == owner.spec.replicas, name
        gangs = {g.metadata.name for g in seen.gangs.values() if is_owned_by(g.metadata, owner)}
        assert {g.name for g in owner.status.pod_gang_statuses} == gangs, name
        for gang in owner.status.pod_gang_statuses:
            assert gang.phase == seen.gangs[gang.name].status.phase, f"{name}: {gang}"


def _replicas_of_group(seen: Observation, group: PodCliqueScalingGroup) -> tuple[int, int]:
    """Return how many group replicas have their minimum scheduled, and how many have it ready."""
    scheduled = available = 0
    for replica in range(group.spec.replicas):
        cliques = [
            clique
            for clique in seen.cliques.values()
            if clique.metadata.labels.get("grove.io/podcliquescalinggroup") == group.metadata.name
            and clique.metadata.labels["grove.io/podcliquescalinggroup-replica-index"] == str(replica)
        ]
        assert len(cliques) == len(group.spec.clique_names)
        scheduled += all(c.status.scheduled_replicas >= c.spec.min_available for c in cliques)
        available += all(c.status.ready_replicas >= c.spec.min_available for c in cliques)
    return scheduled, available


def is_owned_by(metadata: ObjectMeta, owner: PodCliqueSet) -> bool:
    """Return whether the resource belongs to *owner*."""
    return any(reference.uid == owner.metadata.uid for reference in metadata.owner_references)
