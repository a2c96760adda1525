"""From a gang and its pods to what placement is asked: the whole minimum, the parts that are missing, or the surplus.

A gang without any node asks for its minimum. A gang that lost some asks for what is missing, in the smallest parts
that are worth something by themselves: a standalone clique, or a group replica; a whole group if it has nothing (it
came back from size 0). Surplus pods ask one by one. Whatever comes later stays in the domains that were chosen
before: they are read from where the bound pods are, so there is nothing to keep in step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from grove_server.placement.nearness import near_cliques, path_around
from grove_server.placement.peers import PeerBook, Spread
from grove_server.placement.requests import CliqueRequest, DomainPath, GangRequest, GroupRequest, PodShape
from grove_server.resources.gang_parts import LevelConstraint, PodGroup
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.replacing import replace
from grove_server.resources.workload import Pod, PodGang

NodeLabels = Callable[[str], Mapping[str, str] | None]
"""Returns a node's labels; None if there is no such node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangPods:
    """The active pods of one gang by pod group, bound ones apart; in index order."""

    bound: Mapping[str, Sequence[Pod]]
    unbound: Mapping[str, Sequence[Pod]]

    def missing(self, group: PodGroup) -> int:
        """Return how many pods of the group's minimum have no node."""
        return max(0, group.min_replicas - len(self.bound.get(group.name, ())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question to placement, and who gets the answer: per clique the pods in the order of the bindings.

    Optional pods are asked for only so that the domain is chosen with them in mind; ``take`` says how many bindings of
    each clique are really taken. ``is_whole``: nothing of the gang has a node yet, and all of its minimum is asked for.
    """

    request: GangRequest
    pods: Mapping[str, Sequence[Pod]]
    take: Mapping[str, int]
    is_whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GangScene:
    """All that is needed to ask for a gang: its pods, its copy's bound pods, the topology, and shapes of templates.

    ``peers`` are all pods with nodes, for rules between pods; ``spread`` is what the set says about its copies. Without
    them there are no such rules.
    """

    gang: PodGang
    pods: GangPods
    copy_bound: Sequence[Pod]
    topology: tuple[str, ...]
    labels_of: NodeLabels
    shape_of: Callable[[SharedTemplate], PodShape]
    peers: PeerBook | None = None
    spread: Spread | None = None

    def pod_of(self, group: PodGroup) -> Pod:
        """Return a pod of a pod group, one without a node if there is any."""
        return (self.pods.unbound.get(group.name) or self.pods.bound[group.name])[0]


def split_pods(pods: Sequence[Pod]) -> GangPods:
    """Sort a gang's pods by pod group, index and whether they have a node."""
    bound: dict[str, list[Pod]] = {}
    unbound: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda pod: pod.index):
        if pod.is_active:
            (bound if pod.node else unbound).setdefault(pod.identity.name, []).append(pod)
    return GangPods(bound=bound, unbound=unbound)


def is_complete(gang: PodGang, pods: GangPods) -> bool:
    """Return whether every pod of the minimum exists (with or without a node)."""
    return all(
        len(pods.bound.get(g.name, ())) + len(pods.unbound.get(g.name, ())) >= g.min_replicas for g in gang.pod_groups
    )


def is_placed(gang: PodGang, pods: GangPods) -> bool:
    """Return whether the whole minimum has nodes."""
    return all(pods.missing(group) == 0 for group in gang.pod_groups)


def ask_minimum(scene: GangScene) -> list[Ask]:
    """Return what to ask for the gang's minimum: one question if nothing has a node, else one per missing part."""
    gang = scene.gang
    if not any(scene.pods.bound.values()):
        return [replace(_ask(scene, list(gang.pod_groups), gang.metadata.name), is_whole=True)]
    return [_ask(scene, part, name) for name, part in _missing_parts(scene)]


def ask_surplus(scene: GangScene) -> list[Ask]:
    """Return what to ask for pods above the minimum, clique by clique."""
    asks = []
    for group in scene.gang.pod_groups:
        pods = scene.pods.unbound.get(group.name, ())
        if not pods:
            continue
        clique = _clique(scene, group, minimum=0, optional=len(pods))
        asks.append(
            Ask(
                request=_gang_request(scene, scene.gang.metadata.name, [(group, clique)]),
                pods={group.name: pods},
                take={group.name: len(pods)},
            )
        )
    return asks


def _missing_parts(scene: GangScene) -> list[tuple[str, list[PodGroup]]]:
    """Return the parts of the minimum that lack nodes, in template order, by name."""
    parts: dict[str, list[PodGroup]] = {}
    bound_groups = {pod.identity.group for pods in scene.pods.bound.values() for pod in pods}
    for group in scene.gang.pod_groups:
        if not scene.pods.missing(group):
            continue
        identity = scene.pods.unbound[group.name][0].identity
        if not identity.group:
            name = group.name
        elif identity.group in bound_groups:
            name = f"{identity.group_name}-{identity.group_replica}"
        else:
            name = identity.group_name
        parts.setdefault(name, []).append(group)
    return list(parts.items())


def _ask(scene: GangScene, groups: Sequence[PodGroup], name: str) -> Ask:
    members = []
    pods = {}
    take = {}
    for group in groups:
        waiting = scene.pods.unbound.get(group.name, ())
        missing = scene.pods.missing(group)
        members.append((group, _clique(scene, group, minimum=missing, optional=len(waiting) - missing)))
        pods[group.name] = waiting
        take[group.name] = missing
    return Ask(request=_gang_request(scene, name, members), pods=pods, take=take)


def _clique(scene: GangScene, group: PodGroup, *, minimum: int, optional: int) -> CliqueRequest:
    constraint = group.topology_constraint
    pod = scene.pod_of(group)
    bound = scene.pods.bound.get(group.name, ())
    return CliqueRequest(
        name=group.name,
        shape=scene.shape_of(pod.template),
        minimum=minimum,
        optional=optional,
        required=constraint.required if constraint else None,
        preferred=constraint.preferred if constraint else None,
        within=_chosen(scene, constraint.required if constraint else None, bound),
        prefer=_old_place(scene, [group.name], _chosen(scene, constraint.preferred if constraint else None, bound))
        or path_around(pod, scene.copy_bound, scene.topology, scene.labels_of),
    )


def _old_place(scene: GangScene, names: Sequence[str], chosen: DomainPath) -> DomainPath:
    """Return the narrowest domain that all freed places of some cliques' waiting pods lie in, if it is in *chosen*."""
    common: DomainPath | None = None
    for pod in itertools.chain.from_iterable(scene.pods.unbound.get(name, ()) for name in names):
        labels = scene.labels_of(pod.previous_node) if pod.previous_node else None
        if labels is None:
            continue
        keys = list(itertools.takewhile(labels.__contains__, scene.topology))
        path = tuple((key, labels[key]) for key in keys)
        if common is not None:
            path = tuple(
                a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(common, path, strict=False))
            )
        common = path
    return common if common and common[: len(chosen)] == chosen else chosen


def _gang_request(scene: GangScene, name: str, members: Sequence[tuple[PodGroup, CliqueRequest]]) -> GangRequest:
    gang = scene.gang
    asked = {group.name: scene.pod_of(group) for group, _ in members}
    cliques = {
        group.name: replace(clique, near=near) if (near := near_cliques(asked[group.name], asked)) else clique
        for group, clique in members
    }
    nested: list[CliqueRequest | GroupRequest] = []
    grouped: set[str] = set()
    for topology_group in gang.topology_groups:
        inside = tuple(cliques[n] for n in topology_group.pod_group_names if n in cliques)
        if not inside:
            continue
        grouped.update(clique.name for clique in inside)
        bound = [pod for n in topology_group.pod_group_names for pod in scene.pods.bound.get(n, ())]
        nested.append(_group_request(scene, topology_group.name, inside, topology_group.topology_constraint, bound))
    alone = [clique for clique in cliques.values() if clique.name not in grouped]
    constraint = gang.topology_constraint
    preferred = constraint.preferred if constraint else None
    if preferred is None and scene.spread is not None and scene.spread.key in scene.topology:
        preferred = scene.spread.key  # Copies can only lie apart if each is in as few domains as can be.
    return GangRequest(
        name=name,
        members=(*alone, *nested),
        topology=scene.topology,
        required=constraint.required if constraint else None,
        preferred=preferred,
        within=_chosen(scene, constraint.required if constraint else None, scene.copy_bound),
        prefer=_old_place(scene, [*cliques], _chosen(scene, preferred, scene.copy_bound)),
        rules=() if scene.peers is None else scene.peers.rules(asked, scene.labels_of, scene.spread),
    )


def _group_request(
    scene: GangScene,
    name: str,
    members: tuple[CliqueRequest, ...],
    constraint: LevelConstraint | None,
    bound: Sequence[Pod],
) -> GroupRequest:
    return GroupRequest(
        name=name,
        members=members,
        required=constraint.required if constraint else None,
        preferred=constraint.preferred if constraint else None,
        within=_chosen(scene, constraint.required if constraint else None, bound),
        prefer=_old_place(
            scene,
            [clique.name for clique in members],
            _chosen(scene, constraint.preferred if constraint else None, bound),
        ),
    )


def _chosen(scene: GangScene, level: str | None, bound: Sequence[Pod]) -> DomainPath:
    """Return the domain at *level* that bound pods are in; () if none is asked, chosen, or known any more."""
    if level is None or level not in scene.topology:
        return ()
    keys = scene.topology[: scene.topology.index(level) + 1]
    for pod in bound:
        labels = scene.labels_of(pod.node)
        if labels is not None and all(key in labels for key in keys):
            return tuple((key, labels[key]) for key in keys)
    return ()
