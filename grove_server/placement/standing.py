"""Where a gang stands: the domains that all its bound pods share, and how good that is.

Rules: read from the labels of the nodes that the pods are on, never from what was decided before, so that pods that
came later cannot make it false. A domain counts for a scope only if every bound pod of the scope is in it. A node that
is unknown is in no domain.

Not here: which domain to take (`choice`), the score of a gang that prefers no level (`place.score_of`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from grove_server.placement.gangs import NodeLabels
from grove_server.resources.gang_parts import LevelConstraint
from grove_server.resources.workload import ChosenDomain, PodGang


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The domains of a gang's scopes by scope and key, and its score 0..1; None if no scope prefers a level.

    The score is the mean over the scopes that prefer a level of (levels reached + 1) / (levels wanted + 1), as in
    `place.score_of`: a level is reached if all bound pods of the scope are in one domain of it.
    """

    domains: tuple[ChosenDomain, ...]
    score: float | None


def standing_of(
    gang: PodGang, nodes: Mapping[str, Collection[str]], level_names: Mapping[str, str], labels_of: NodeLabels
) -> Standing:
    """Return where a gang stands whose pods are on *nodes*, by pod group.

    *level_names* are the domain names of the topology's levels by label key, broadest first.
    """
    keys = tuple(level_names)
    paths = _Paths(keys, nodes, labels_of)
    domains: list[ChosenDomain] = []
    parts: list[float] = []
    for scope, constraint, groups in _scopes(gang):
        placed = [name for name in groups if nodes.get(name)]
        if not placed:
            continue
        path = paths.shared(placed)
        required, preferred = _level(keys, constraint.required), _level(keys, constraint.preferred)
        # A required level that does not hold (labels of nodes change) is not claimed; what is left of it is.
        levels = sorted({min(level, len(path)) for level in (required, preferred)} - {0})
        domains += (
            ChosenDomain(scope=scope, level=level_names[keys[level - 1]], key=keys[level - 1], domain=path[level - 1])
            for level in levels
            if level >= min(required, len(path))
        )
        if preferred:
            parts.append(min(1.0, (len(path) + 1) / (preferred + 1)))
    domains.sort(key=lambda each: (each.scope, each.key))
    return Standing(domains=tuple(domains), score=sum(parts) / len(parts) if parts else None)


def is_constrained(gang: PodGang) -> bool:
    """Return whether any scope of a gang asks for a level."""
    return next(_scopes(gang), None) is not None


def _scopes(gang: PodGang) -> Iterator[tuple[str, LevelConstraint, Sequence[str]]]:
    """Yield name, constraint and pod groups of every scope that asks for a level."""
    if gang.topology_constraint is not None:
        yield gang.metadata.name, gang.topology_constraint, [group.name for group in gang.pod_groups]
    for topology_group in gang.topology_groups:
        if topology_group.topology_constraint is not None:
            yield topology_group.name, topology_group.topology_constraint, topology_group.pod_group_names
    for group in gang.pod_groups:
        if group.topology_constraint is not None:
            yield group.name, group.topology_constraint, [group.name]


def _level(keys: Sequence[str], key: str | None) -> int:
    """Return a level as a number, 1 = broadest; 0 for none."""
    return keys.index(key) + 1 if key in keys else 0


class _Paths:
    """The label values that nodes share, broadest first, each node looked up once."""

    def __init__(self, keys: Sequence[str], nodes: Mapping[str, Collection[str]], labels_of: NodeLabels) -> None:
        self._keys = keys
        self._nodes = nodes
        self._labels_of = labels_of
        self._of_group: dict[str, tuple[str, ...]] = {}

    def shared(self, groups: Sequence[str]) -> tuple[str, ...]:
        """Return what all nodes of pod groups that have nodes share."""
        return _common([self._group(name) for name in groups])

    def _group(self, name: str) -> tuple[str, ...]:
        if name not in self._of_group:
            self._of_group[name] = _common([self._path(node) for node in sorted(set(self._nodes[name]))])
        return self._of_group[name]

    def _path(self, node: str) -> tuple[str, ...]:
        labels = self._labels_of(node) or {}
        depth = next((i for i, key in enumerate(self._keys) if key not in labels), len(self._keys))
        return tuple(labels[key] for key in self._keys[:depth])


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the longest beginning of all paths; the first and the last in order differ first of all."""
    low, high = min(paths), max(paths)
    depth = next((i for i, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), None)
    return low[: len(low) if depth is None else depth]
