"""Lets pods go back to the nodes of their predecessors, as far as an answer stays one.

Rules: an answer of `place` is taken as it is and only its nodes are exchanged: each pod that can have its predecessor's
node has it, one that cannot takes of what was found the place nearest to it. What comes out has room for all, is in
every domain that the request demands, and reaches as much of each preferred level as the answer did; otherwise the
answer stands, member by member. Rules between pods and shares of a GPU leave it as it is. Deterministic; the cluster is
as before.

Not here: waiting until a predecessor has gone (`control.gang_desk`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final, TypeAlias

from grove_server.placement import gpus
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.gangs import Ask
from grove_server.placement.matching import is_eligible
from grove_server.placement.nodes import NodeState
from grove_server.placement.requests import (
    GPU_RESOURCE,
    PODS_RESOURCE,
    CliqueRequest,
    DomainPath,
    GangRequest,
    GroupRequest,
    PodShape,
)
from grove_server.placement.results import DomainChoice, Placement, PodBinding, Reason, ScopeKind
from grove_server.resources.replacing import replace

# So many pods cost some milliseconds, a step of the event loop; larger asks keep what they can have by dealing.
_PODS_MAX: Final = 250
_COMPARISONS_MAX: Final = 2_000
_TIE_BREAK: Final = "where its predecessors ran"

_Scope: TypeAlias = CliqueRequest | GroupRequest | GangRequest
_Nodes: TypeAlias = Mapping[str, Sequence[str]]


def may_run(cluster: Cluster, shape: PodShape, name: str) -> bool:
    """Return whether a pod of this shape may use a node, room aside; False for a node that is not there."""
    state = _node(cluster, name)
    return state is not None and is_eligible(shape, state)


def has_room(cluster: Cluster, shape: PodShape, name: str) -> bool:
    """Return whether a pod of this shape may use a node and has room there now."""
    return may_run(cluster, shape, name) and _Room(cluster).take(shape, name)


def wanted(ask: Ask, placement: Placement) -> Placement:
    """Return the part of *placement* that *ask* really takes."""
    cliques = tuple(replace(each, bindings=each.bindings[: ask.take[each.name]]) for each in placement.cliques)
    return replace(placement, cliques=cliques)


def taken(cluster: Cluster, ask: Ask, placement: Placement) -> Placement:
    """Return the part of *placement* that *ask* really takes, in the places of the pods' predecessors if possible."""
    part = wanted(ask, placement)
    old = {
        each.name: [pod.previous_node for pod in ask.pods[each.name][: len(each.bindings)]]
        for each in part.cliques
        if any(pod.previous_node for pod in ask.pods[each.name][: len(each.bindings)])
    }
    return in_old_places(cluster, ask.request, part, old) if old else part


def in_old_places(cluster: Cluster, request: GangRequest, placement: Placement, old: _Nodes) -> Placement:
    """Return *placement* with as many pods as possible on their predecessors' nodes.

    *old* are these nodes by clique, in the order of the bindings, "" for a pod without predecessor. The placement is
    one for *request* on the present state; it may have fewer bindings, when optional pods are not taken.
    """
    if request.rules or any(clique.shape.gpu_milli for clique in placement.cliques):
        # Where one pod may be depends on where the others are, or on the GPU that it shares.
        return placement
    found = {clique.name: [binding.node for binding in clique.bindings] for clique in placement.cliques}
    shapes = {clique.name: clique.shape for clique in placement.cliques}
    terms = _Terms(cluster, request, found)
    kept = found
    tries = ([request], request.members if len(request.members) > 1 else [])
    for members in tries if placement.pod_count <= _PODS_MAX else ():
        for member in members:
            names = [clique.name for clique in _cliques(member) if any(old.get(clique.name, ()))]
            moved = _exchanged(cluster, shapes, kept, {name: old[name] for name in names if name in kept}, terms)
            if moved is not None and terms.hold(moved):
                kept = moved
        if kept is not found:
            break
    kept = {name: _dealt(nodes, old.get(name, ())) for name, nodes in kept.items()}
    return placement if kept == found else _answer(cluster, placement, kept, terms)


def _exchanged(
    cluster: Cluster, shapes: Mapping[str, PodShape], found: _Nodes, old: _Nodes, terms: _Terms
) -> dict[str, list[str]] | None:
    """Return the nodes with the pods of the cliques in *old* at their old places; None if a pod has no place left."""
    room = _Room(cluster)
    for name, nodes in found.items():
        if name not in old and not all(room.take(shapes[name], node) for node in nodes):
            return None
    result = {name: [*nodes] for name, nodes in found.items()}
    homeless: list[tuple[str, int]] = []
    for name, wanted in old.items():
        for index, node in enumerate(wanted[: len(found[name])]):
            if node and may_run(cluster, shapes[name], node) and room.take(shapes[name], node):
                result[name][index] = node
            else:
                homeless.append((name, index))
    places = sorted({node for name in old for node in found[name]})
    is_small = len(places) * len(homeless) <= _COMPARISONS_MAX
    for name, index in homeless:
        own = found[name][index]
        chosen = _nearest(terms, places, old[name][index], own) if is_small else [own]
        fitting = (n for n in chosen if may_run(cluster, shapes[name], n) and room.take(shapes[name], n))
        node = next(fitting, "")
        if not node:
            return None
        result[name][index] = node
    return result


def _dealt(nodes: Sequence[str], old: Sequence[str]) -> list[str]:
    """Return the same nodes, dealt so that each pod that can have its predecessor's has it."""
    left = Counter(nodes)
    own = [node if node and left[node] > 0 and not left.subtract((node,)) else "" for node in old]
    rest = left.elements()
    return [node or next(rest) for node in (*own, *[""] * (len(nodes) - len(own)))]


def _nearest(terms: _Terms, places: Sequence[str], old: str, found: str) -> list[str]:
    """Return *places*, those first that share most with the old node, of equals what was found, then by name."""
    path = terms.path(old)
    return sorted(places, key=lambda node: (-_shared([path, terms.path(node)]), node != found, node))


class _Terms:
    """What a request demands and prefers of domains, and how much of it an answer reaches."""

    def __init__(self, cluster: Cluster, request: GangRequest, found: _Nodes) -> None:
        self._cluster = cluster
        self.keys = request.topology
        self._scopes = [*_walk(request)]
        self._paths: dict[str, tuple[str, ...]] = {}
        self.scopes = {(_kind(scope), scope.name): scope for scope in self._scopes}
        self._reached = [self._reach(scope, found) for scope in self._scopes]

    def path(self, node: str) -> tuple[str, ...]:
        """Return the domains of a node, broadest first."""
        path = self._paths.get(node)
        if path is None:
            state = _node(self._cluster, node)
            labels = {} if state is None else state.labels
            path = self._paths[node] = tuple(labels[key] for key in takewhile(labels.__contains__, self.keys))
        return path

    def common(self, scope: _Scope, nodes: _Nodes) -> tuple[str, ...]:
        """Return the domains that all pods of a scope share."""
        paths = [self.path(node) for clique in _cliques(scope) for node in dict.fromkeys(nodes.get(clique.name, ()))]
        return paths[0][: _shared(paths)] if paths else ()

    def hold(self, nodes: _Nodes) -> bool:
        """Return whether every demand is met and nothing preferred is reached less than before."""
        for scope, reached in zip(self._scopes, self._reached, strict=True):
            if not any(nodes.get(clique.name) for clique in _cliques(scope)):
                continue
            common = self.common(scope, nodes)
            if len(common) < self._level(scope.required) or not _is_within(common, scope.within, self.keys):
                return False
            if self._reach(scope, nodes) < reached:
                return False
        return True

    def _reach(self, scope: _Scope, nodes: _Nodes) -> int:
        level = self._level(scope.preferred)
        if not level:
            return 0
        common = self.common(scope, nodes)
        # What was chosen for the scope before counts with its present pods; a freed place that is hinted at is as deep.
        chosen = tuple(value for _, value in scope.prefer[:level])
        return min(level, _shared([common, chosen]) if chosen else len(common))

    def _level(self, key: str | None) -> int:
        return self.keys.index(key) + 1 if key is not None and key in self.keys else 0


class _Room:
    """What is left on nodes after the pods that were given places so far."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._left: dict[str, dict[str, int]] = {}
        self._needs: dict[PodShape, list[tuple[str, int]]] = {}

    def take(self, shape: PodShape, node: str) -> bool:
        """Give one pod a place on an existing node; return whether there was room."""
        need = self._needs.get(shape)
        if need is None:
            amounts = {**{name: amount for name, amount in shape.requests if amount > 0}, PODS_RESOURCE: 1}
            need = self._needs[shape] = [*amounts.items()]
        left = self._left.get(node)
        if left is None:
            left = self._left[node] = self._cluster.free_of(node)
        for name, amount in need:
            if left.get(name, 0) < amount:
                return False
        for name, amount in need:
            left[name] -= amount
        return True


def _answer(cluster: Cluster, placement: Placement, nodes: _Nodes, terms: _Terms) -> Placement:
    """Return *placement* on other nodes, with GPUs chosen and with the domains that it has there."""
    free: dict[str, int] = {}
    cliques = []
    for clique in placement.cliques:
        bindings = []
        for node in nodes[clique.name]:
            mask = free[node] if node in free else gpus.mask_of(cluster.gpus_free_of(node))
            ids, free[node] = gpus.take(mask, clique.shape.amount(GPU_RESOURCE))
            bindings.append(PodBinding(node, ids))
        cliques.append(replace(clique, bindings=tuple(bindings)))

    def path(place: DomainChoice | Reason) -> DomainPath:
        """Return the domains of a scope down to the level that was named, as far as its pods share them."""
        shared = tuple(zip(terms.keys, terms.common(terms.scopes[place.kind, place.scope], nodes), strict=False))
        return shared[: terms.keys.index(place.level) + 1] if place.level in terms.keys else shared

    return replace(
        placement,
        cliques=tuple(cliques),
        domains=tuple(_domain(choice, path(choice)) for choice in placement.domains),
        reasons=tuple(_reason(reason, path(reason)) for reason in placement.reasons),
    )


def _domain(choice: DomainChoice, path: DomainPath) -> DomainChoice:
    return replace(choice, level=path[-1][0], value=path[-1][1], path=path) if path else choice


def _reason(reason: Reason, path: DomainPath) -> Reason:
    level, domain = path[-1] if path else ("", "")
    return replace(reason, level=level, domain=domain, domains_considered=1, domains_fitting=1, tie_break=_TIE_BREAK)


def _node(cluster: Cluster, name: str) -> NodeState | None:
    try:
        return cluster.node(name)
    except UnknownNodeError:
        return None


def _walk(scope: _Scope) -> Iterator[_Scope]:
    yield scope
    if not isinstance(scope, CliqueRequest):
        for member in scope.members:
            yield from _walk(member)


def _cliques(scope: _Scope) -> Iterator[CliqueRequest]:
    return (each for each in _walk(scope) if isinstance(each, CliqueRequest))


def _kind(scope: _Scope) -> ScopeKind:
    if isinstance(scope, CliqueRequest):
        return ScopeKind.CLIQUE
    return ScopeKind.GROUP if isinstance(scope, GroupRequest) else ScopeKind.GANG


def _is_within(common: Sequence[str], within: DomainPath, keys: Sequence[str]) -> bool:
    """Return whether domains lie in *within*, whose keys may be any of the topology's."""
    have = dict(zip(keys, common, strict=False))
    return all(have.get(key) == value for key, value in within)


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """Return how many domains all paths share from the broadest on."""
    return sum(1 for _ in takewhile(lambda values: len(set(values)) == 1, zip(*paths, strict=False)))
