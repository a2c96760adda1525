"""Sets of any shape on a cluster where a node holds one pod, and the counts that Grove's rules demand of them.

The rules are those behind cases GS1 to GS8: what runs stays; then base gangs by age of the set and copy, each with its
whole minimum or not at all; then scaled gangs whose base is placed, in the same manner; then surplus pods, one by one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml


class Size(NamedTuple):
    """Number of pods or group replicas, and the minimum of it."""

    replicas: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The template of a set: standalone cliques by name, and groups of cliques by name."""

    cliques: Mapping[str, Size]
    groups: Mapping[str, tuple[Size, Mapping[str, Size]]]


@dataclass(slots=True)
class ModelSet:
    """A set: its shape, number of copies, and the sizes that were scaled, by full name."""

    name: str
    shape: Shape
    copies: int
    scaled: dict[str, int] = field(default_factory=dict)

    def manifest(self) -> str:
        """Return the manifest of the set."""
        cliques = dict(self.shape.cliques)
        for _, members in self.shape.groups.values():
            cliques.update(members)
        template = {
            "cliques": [_clique(name, size) for name, size in cliques.items()],
            "podCliqueScalingGroups": [
                {"name": n, "cliqueNames": list(members), "replicas": size.replicas, "minAvailable": size.minimum}
                for n, (size, members) in self.shape.groups.items()
            ],
        }
        document = {
            "apiVersion": "grove.io/v1alpha1",
            "kind": "PodCliqueSet",
            "metadata": {"name": self.name},
            "spec": {"replicas": self.copies, "template": template},
        }
        return yaml.safe_dump(document, sort_keys=False)

    def size_of(self, full_name: str, size: Size) -> int:
        """Return the present size of a group or clique."""
        return self.scaled.get(full_name, size.replicas)

    def forget_copies(self, first: int) -> None:
        """Forget what was scaled in copies from *first* on: they are gone."""
        kept = tuple(f"{self.name}-{copy}-" for copy in range(first))
        self.scaled = {name: size for name, size in self.scaled.items() if name.startswith(kept)}

    def gangs(self) -> Iterator[tuple[str, str, dict[str, Size]]]:
        """Yield name, base gang (empty for a base gang) and the cliques of each gang."""
        for copy in range(self.copies):
            base = f"{self.name}-{copy}"
            names = {f"{base}-{name}": size for name, size in self.shape.cliques.items()}
            cliques = {name: Size(self.size_of(name, size), size.minimum) for name, size in names.items()}
            scaled = []
            for group, (size, members) in self.shape.groups.items():
                for replica in range(self.size_of(f"{base}-{group}", size)):
                    of_replica = {f"{base}-{group}-{replica}-{name}": member for name, member in members.items()}
                    if replica < size.minimum:
                        cliques.update(of_replica)
                    else:
                        scaled.append((f"{base}-{group}-{replica - size.minimum}", base, of_replica))
            yield base, "", cliques
            yield from scaled


class Forecast(NamedTuple):
    """What must be there once nothing moves: pods, bound pods, and the gangs that are placed."""

    pods: int
    bound: int
    placed: frozenset[str]


def forecast(sets: list[ModelSet], bound: Mapping[str, int], nodes: int) -> Forecast:
    """Return what Grove's rules demand; *bound* is how many pods of each clique had a node before."""
    gangs = [gang for item in sets for gang in item.gangs()]
    sizes = {name: size for _, _, cliques in gangs for name, size in cliques.items()}
    held = {name: min(bound.get(name, 0), size.replicas) for name, size in sizes.items()}
    free = nodes - sum(held.values())
    placed: set[str] = set()
    for name, base, cliques in sorted(gangs, key=lambda gang: bool(gang[1])):
        lacking = {clique: max(0, size.minimum - held[clique]) for clique, size in cliques.items()}
        if (base and base not in placed) or sum(lacking.values()) > free:
            continue
        placed.add(name)
        free -= sum(lacking.values())
        for clique, count in lacking.items():
            held[clique] += count
    surplus = sum(
        size.replicas - held[clique] for name, _, cliques in gangs if name in placed for clique, size in cliques.items()
    )
    total = sum(held.values()) + min(free, surplus)
    return Forecast(sum(size.replicas for size in sizes.values()), total, frozenset(placed))


def random_shape(dice: random.Random) -> Shape:
    """Return a small shape: one to two cliques and up to two groups."""

    def size(most: int) -> Size:
        replicas = dice.randint(1, most)
        return Size(replicas, dice.randint(1, replicas))

    cliques = {f"c{index}": size(3) for index in range(dice.randint(1, 2))}
    groups = {
        f"g{index}": (size(2), {f"m{index}{member}": size(2) for member in range(dice.randint(1, 2))})
        for index in range(dice.randint(0, 2))
    }
    return Shape(cliques, groups)


def _clique(name: str, size: Size) -> dict[str, object]:
    container = {"name": "main", "image": "pause", "resources": {"requests": {"memory": "80Mi"}}}
    spec = {
        "roleName": name,
        "replicas": size.replicas,
        "minAvailable": size.minimum,
        "podSpec": {"containers": [container]},
    }
    return {"name": name, "spec": spec}
