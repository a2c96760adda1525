"""Many clients at once: whatever they scale, delete and cordon at the same time, the server ends where it must.

A storm ends with all nodes free to use. Then no pod may be doubled or share a node, every clique has its pods, and
nothing may wait that would fit: what a gang still needs is counted against the nodes that are free.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

import grpc
import pytest

from grove_client import GroveError
from tests.conformance.observation import Observation, clique_of, node_of, place_of
from tests.conformance.scene import Scene
from tests.conformance.shapes import ModelSet, random_shape
from tests.tidy.sources import ROOT

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
CLIENTS: Final = 4
CALLS: Final = 25
# What a call may meet when others change the same things.
RACES: Final = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}


class Client:
    """One of several clients that know the same sets."""

    def __init__(self, scene: Scene, sets: list[ModelSet], seed: int) -> None:
        self._scene = scene
        self._sets = sets
        self._dice = random.Random(seed)

    async def run(self) -> None:
        """Make one call after the other."""
        calls = (
            self._scale_set,
            self._scale_group,
            self._scale_clique,
            self._delete_pods,
            self._apply,
            self._delete_set,
            self._cordon,
            self._uncordon,
        )
        for _ in range(CALLS):
            call = self._dice.choices(calls, (4, 4, 3, 3, 3, 1, 2, 3))[0]
            try:
                await call(self._dice.choice(self._sets))
            except GroveError as error:
                if error.code not in RACES:
                    raise

    async def _scale_set(self, item: ModelSet) -> None:
        await self._scene.scale_set(item.name, self._dice.randint(0, 3))

    async def _scale_group(self, item: ModelSet) -> None:
        for group, (size, _) in item.shape.groups.items():
            replicas = self._dice.choice([0, *range(size.minimum, size.minimum + 3)])
            await self._scene.scale_group(f"{item.name}-{self._dice.randint(0, 1)}-{group}", replicas)

    async def _scale_clique(self, item: ModelSet) -> None:
        clique, size = self._dice.choice(sorted(item.shape.cliques.items()))
        replicas = self._dice.choice([0, *range(size.minimum, size.minimum + 3)])
        await self._scene.scale_clique(f"{item.name}-{self._dice.randint(0, 1)}-{clique}", replicas)

    async def _delete_pods(self, _: ModelSet) -> None:
        names = sorted((await self._scene.observe()).pods)
        if names:
            chosen = self._dice.sample(names, min(3, len(names)))
            await self._scene.grove.pods.delete(chosen, namespace=self._scene.namespace)

    async def _apply(self, item: ModelSet) -> None:
        await self._scene.apply_text(item.manifest())

    async def _delete_set(self, item: ModelSet) -> None:
        await self._scene.grove.pod_clique_sets.delete([item.name], namespace=self._scene.namespace)

    async def _cordon(self, _: ModelSet) -> None:
        await self._scene.grove.nodes.cordon(self._dice.sample(sorted(self._scene.nodes), 5))

    async def _uncordon(self, _: ModelSet) -> None:
        await self._scene.grove.nodes.uncordon(self._dice.sample(sorted(self._scene.nodes), 9))


def check_after_storm(seen: Observation, node_count: int) -> None:
    """Check pods, and that nothing waits that would fit."""
    places = Counter(place_of(pod) for pod in seen.active)
    assert max(places.values(), default=1) == 1, f"doubled: {[p for p, n in places.items() if n > 1]}"
    assert len(seen.active) == len(seen.pods), "something is still being stopped"
    pods = Counter(clique_of(pod) for pod in seen.active)
    assert {name: pods[name] for name in seen.cliques} == {n: c.spec.replicas for n, c in seen.cliques.items()}
    nodes = [node_of(pod) for pod in seen.active if node_of(pod)]
    assert len(set(nodes)) == len(nodes) == len(seen.ready)
    free = node_count - len(nodes)
    bound = Counter(clique_of(pod) for pod in seen.active if node_of(pod))
    labels = [clique.metadata.labels for clique in seen.cliques.values()]
    bases = {each["grove.io/podgang"]: each.get("grove.io/base-podgang") for each in labels}
    for name, gang in seen.gangs.items():
        wanting = {group.name: group.min_replicas - bound[group.name] for group in gang.spec.podgroups}
        lacking = sum(count for count in wanting.values() if count > 0)
        waiting = sum(len(group.pod_references) - bound[group.name] for group in gang.spec.podgroups)
        base = bases.get(name)
        if lacking and (base is None or seen.gangs[base].status.phase != "Pending"):
            assert lacking > free, f"{name} waits for {lacking} nodes, {free} are free: {gang.status.message}"
        if not lacking and waiting:
            assert not free, f"{name} has {waiting} surplus pods waiting, {free} nodes are free"


@pytest.mark.parametrize("seed", range(4))
async def test_a_storm_ends_where_it_must(scene: Scene, seed: int) -> None:
    """After four clients did 100 random things at once, everything that fits runs and nothing is doubled."""
    dice = random.Random(seed)
    sets = [ModelSet(f"s{number}", random_shape(dice), dice.randint(1, 2)) for number in range(3)]
    for item in sets:
        await scene.apply_text(item.manifest())
    await asyncio.gather(*(Client(scene, sets, 100 * seed + number).run() for number in range(CLIENTS)))
    await scene.grove.nodes.uncordon(sorted(scene.nodes))
    check_after_storm(await scene.observe_until_quiet(), len(scene.nodes))
