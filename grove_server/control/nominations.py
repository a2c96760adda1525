"""Places that are kept for gangs while others leave them.

A nomination is a promise of the cluster and the same in the gang's status, so that a restart goes on with it. It ends
when the gang takes its places, when it asks for something else or goes, and when a place cannot be had any more: the
node is gone, nobody leaves it who would make room, or a rule between pods would not hold there even when all who leave
are gone. Pods that were told to leave then leave all the same: routers have turned away from them and their successors
are made, so taking a drain back would only add a second disturbance.

Not here: who leaves for whom (``evictions``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from grove_server.control.decisions import Holdings
from grove_server.control.indexes import PODS_BY_NODE
from grove_server.control.seats import key_of_name
from grove_server.placement.cluster import Cluster, ClusterError, StalePlacementError, UnknownNodeError
from grove_server.placement.eviction import GENERATION_UNBOUND
from grove_server.placement.gang_facts import full_name
from grove_server.placement.gangs import Ask
from grove_server.placement.outsiders import without_gone
from grove_server.placement.peers import PeerBook
from grove_server.placement.preemption import without_optional
from grove_server.placement.requests import CliqueRequest, Counting, GangRequest, GroupRequest
from grove_server.placement.results import CliquePlacement, Placement, PodBinding
from grove_server.placement.violations import unkept
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.workload import NominatedPlace, Nomination, Pod, PodGang
from grove_server.store.interface import Store

NODES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Nominated:
    """Places kept for one part of a gang."""

    part: str
    placement: Placement
    queue: str

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes the places are on, by name."""
        return tuple(sorted({node for clique in self.placement.cliques for node, _ in clique.bindings}))

    def on_nodes(self) -> str:
        """Return where the places are, for people."""
        nodes = self.nodes
        more = f" and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
        return f"{', '.join(nodes[:NODES_SHOWN])}{more}"


class Nominations:
    """Nominations by gang; each has one at most."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        holdings: Holdings,
        *,
        peers: PeerBook,
        counting: Counting,
        leaving: Collection[Key],
    ) -> None:
        """*leaving*, read anew: pods that leave although the store does not say so yet."""
        self._store = store
        self._cluster = cluster
        self._holdings = holdings
        self._peers = peers
        self._counting = counting
        self._leaving = leaving
        self._by_gang: dict[Key, Nominated] = {}
        # Counts what was promised, taken and given back.
        self.version = 0

    def __bool__(self) -> bool:
        return bool(self._by_gang)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._by_gang))

    def get(self, key: Key) -> Nominated | None:
        """Return what is kept for a gang."""
        return self._by_gang.get(key)

    def promise(self, key: Key, ask: Ask, placement: Placement, queue: str) -> bool:
        """Keep places for what is asked for a gang; False if they cannot be promised."""
        name = full_name(key.namespace, key.name)
        named = replace(placement, gang=name, generation=GENERATION_UNBOUND)
        try:
            self._cluster.promise(named)
        except ClusterError:
            return False
        self.version += 1
        self._by_gang[key] = Nominated(part=ask.request.name, placement=named, queue=queue)
        self._peers.keep(
            name, ((ask.pods[clique.name][0], each.node) for clique in named.cliques for each in clique.bindings)
        )
        return True

    def withdraw(self, key: Key) -> bool:
        """Keep nothing for a gang any more; return whether something was."""
        if self._by_gang.pop(key, None) is None:
            return False
        self.version += 1
        self._cluster.withdraw(full_name(key.namespace, key.name))
        self._peers.keep_no_more(full_name(key.namespace, key.name))
        return True

    def take(self, key: Key, request: GangRequest) -> Placement | None:
        """Turn what is kept for a gang into a reservation, if that is free and keeps all rules; else it stays."""
        if self._is_kept_away(self._by_gang[key], request):
            return None
        try:
            placement = self._cluster.keep(full_name(key.namespace, key.name))
        except StalePlacementError:
            return None
        self._peers.keep_no_more(full_name(key.namespace, key.name))
        self.version += 1
        del self._by_gang[key]
        return placement

    def answers(self, nominated: Nominated, request: GangRequest) -> bool:
        """Return whether what is kept is what a gang asks for, and keeps all rules once those who leave are gone."""
        wanted = {clique.name: clique for clique in _cliques(without_optional(request))}
        cliques = nominated.placement.cliques
        if any(each.name not in wanted or each.shape != wanted[each.name].shape for each in cliques):
            return False
        try:
            settled = without_gone(without_optional(request), self._counting, self._is_leaving)
            return not unkept(self._cluster, settled, nominated.placement)
        except UnknownNodeError:
            return False

    def is_hopeless(self, nominated: Nominated, request: GangRequest) -> bool:
        """Return whether nobody leaves any more who is in the way, so that what is missing will not come by itself.

        Only for what `answers`: then a rule that does not hold now will.
        """
        if self._is_kept_away(nominated, request):
            return False
        reader = self._store.read()
        pods: Iterator[Pod] = (pod for node in nominated.nodes for pod in reader.indexed(PODS_BY_NODE, node))
        return not any(not pod.is_active and key_of(pod) in self._holdings for pod in pods)

    def broken(self) -> list[Key]:
        """Return the gangs whose places cannot be had any more, because of their nodes."""
        return [key_of_name(name, Kind.POD_GANG) for name in self._cluster.broken_promises()] if self else []

    def used(self) -> dict[str, Counter[str]]:
        """Return what is kept for gangs by queue and resource: it counts as used for all others."""
        used: dict[str, Counter[str]] = {}
        for nominated in self._by_gang.values():
            amounts = used.setdefault(nominated.queue, Counter())
            for clique in nominated.placement.cliques:
                for resource, amount in (("pods", 1), *clique.shape.requests):
                    amounts[resource] += amount * len(clique.bindings)
        return used

    def restore(self, gang: PodGang, ask: Ask, queue: str) -> bool:
        """Keep again what a gang's status says, after a restart; False if that is not what it asks for now."""
        kept = gang.status.nomination
        if kept is None or kept.part != ask.request.name:
            return False
        bindings: dict[str, list[PodBinding]] = {}
        for place in kept.places:
            bindings.setdefault(place.pod_group, []).append(PodBinding(place.node, place.gpu_ids))
        cliques = tuple(
            CliquePlacement(
                name=clique.name, shape=clique.shape, minimum=clique.minimum, bindings=tuple(bindings[clique.name])
            )
            for clique in _cliques(ask.request)
            if clique.name in bindings
        )
        placement = Placement(
            gang=gang.metadata.name,
            cliques=cliques,
            domains=(),
            score=kept.score,
            reasons=(),
            generation=GENERATION_UNBOUND,
        )
        nominated = Nominated(part=kept.part, placement=placement, queue=queue)
        return self.answers(nominated, ask.request) and self.promise(key_of(gang), ask, placement, queue)

    def _is_kept_away(self, nominated: Nominated, request: GangRequest) -> bool:
        """Return whether a rule between pods does not hold as long as all are there who are there now."""
        return bool(request.rules) and bool(unkept(self._cluster, without_optional(request), nominated.placement))

    def _is_leaving(self, name: str) -> bool:
        key = key_of_name(name, Kind.POD)
        pod = self._store.read().get(Pod, key.namespace, key.name)
        return key in self._leaving or (pod is not None and not pod.is_active)


def as_stored(nominated: Nominated, now: float) -> Nomination:
    """Return what a gang's status says of places that are kept for it."""
    return Nomination(
        part=nominated.part,
        at=now,
        score=nominated.placement.score,
        places=tuple(
            NominatedPlace(pod_group=clique.name, node=binding.node, gpu_ids=binding.gpu_ids)
            for clique in nominated.placement.cliques
            for binding in clique.bindings
        ),
    )


def _cliques(request: GangRequest | GroupRequest) -> Iterator[CliqueRequest]:
    for member in request.members:
        if isinstance(member, CliqueRequest):
            yield member
        else:
            yield from _cliques(member)
