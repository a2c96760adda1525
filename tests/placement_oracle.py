"""Brute force for placement's tests: tries every assignment of all minimums; for tiny clusters only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from grove_server.placement import GPU_RESOURCE, CliqueRequest, Cluster, GangRequest, GroupRequest, PodShape
from grove_server.placement.matching import is_eligible

Scopes: TypeAlias = tuple[GangRequest | GroupRequest | CliqueRequest, ...]


def is_possible(cluster: Cluster, request: GangRequest) -> bool:
    """Return whether any assignment of all minimums exists."""
    return _BruteForce(cluster, request).put(0, 0)


class _BruteForce:
    """Puts pod after pod onto node after node; alike pods of one clique only in ascending order of nodes."""

    def __init__(self, cluster: Cluster, request: GangRequest) -> None:
        self.cluster = cluster
        self.topology = request.topology
        self.names = cluster.node_names()
        self.free = {name: cluster.free_of(name) for name in self.names}
        self.gpus = {name: _gpu_milli(cluster, name) for name in self.names}
        self.homes: dict[str, tuple[str, ...]] = {}
        self.todo = [pod for pod in _cliques(request, ()) for _ in range(pod[0].minimum)]

    def put(self, index: int, start: int) -> bool:
        if index == len(self.todo):
            return True
        clique, scopes = self.todo[index]
        is_twin = index + 1 < len(self.todo) and self.todo[index + 1][0] is clique
        for at in range(start, len(self.names)):
            name = self.names[at]
            if not self._fits(name, clique, scopes):
                continue
            fresh = self._enter(name, scopes)
            self._take(name, clique, 1)
            before = self.gpus[name]
            done = False
            for after in _after(before, clique.shape):
                self.gpus[name] = after
                done = done or self.put(index + 1, at if is_twin else 0)
            self.gpus[name] = before
            self._take(name, clique, -1)
            for scope_name in fresh:
                del self.homes[scope_name]
            if done:
                return True
        return False

    def _fits(self, name: str, clique: CliqueRequest, scopes: Scopes) -> bool:
        node, free = self.cluster.node(name), self.free[name]
        if not is_eligible(clique.shape, node) or free["pods"] < 1:
            return False
        wanted = [(resource, amount) for resource, amount in clique.shape.requests if resource != GPU_RESOURCE]
        if any(free.get(resource, 0) < amount for resource, amount in wanted if amount):
            return False
        return all(self._allows(name, scope) for scope in scopes)

    def _allows(self, name: str, scope: GangRequest | GroupRequest | CliqueRequest) -> bool:
        labels = self.cluster.node(name).labels
        if any(labels.get(key) != value for key, value in scope.within):
            return False
        here = self._domain(name, scope.required)
        return scope.required is None or (here is not None and self.homes.get(scope.name, here) == here)

    def _enter(self, name: str, scopes: Scopes) -> list[str]:
        """Bind scopes that have no domain yet to the node's, and return their names."""
        fresh = [scope for scope in scopes if scope.required is not None and scope.name not in self.homes]
        for scope in fresh:
            self.homes[scope.name] = self._domain(name, scope.required) or ()
        return [scope.name for scope in fresh]

    def _take(self, name: str, clique: CliqueRequest, sign: int) -> None:
        self.free[name]["pods"] -= sign
        for resource, amount in clique.shape.requests:
            self.free[name][resource] = self.free[name].get(resource, 0) - sign * amount

    def _domain(self, name: str, level: str | None) -> tuple[str, ...] | None:
        if level is None:
            return None
        labels = self.cluster.node(name).labels
        keys = self.topology[: self.topology.index(level) + 1]
        return tuple(labels[key] for key in keys) if all(key in labels for key in keys) else None


def _gpu_milli(cluster: Cluster, name: str) -> tuple[int, ...]:
    """Return what is free of each GPU of a node, ascending: GPUs with as much free are alike."""
    return tuple(sorted([1000] * len(cluster.gpus_free_of(name)) + list(cluster.gpu_shares_of(name).values())))


def _after(milli: tuple[int, ...], shape: PodShape) -> Iterator[tuple[int, ...]]:
    """Yield every different state of a node's GPUs after one more pod."""
    if shape.gpu_milli:
        for left in sorted({each for each in milli if each >= shape.gpu_milli}):
            at = milli.index(left)
            yield tuple(sorted((*milli[:at], left - shape.gpu_milli, *milli[at + 1 :])))
        return
    wanted = shape.amount(GPU_RESOURCE)
    if milli.count(1000) >= wanted:
        yield milli[: len(milli) - wanted]


def _cliques(
    scope: GangRequest | GroupRequest | CliqueRequest, above: Scopes
) -> Iterator[tuple[CliqueRequest, Scopes]]:
    """Yield each clique with the scopes it lies in, itself included."""
    if isinstance(scope, CliqueRequest):
        yield scope, (*above, scope)
        return
    for member in scope.members:
        yield from _cliques(member, (*above, scope))
