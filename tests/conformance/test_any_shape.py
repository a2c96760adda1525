"""The rules behind Grove's gang scheduling cases, for sets of any shape: random walks against a model of the rules.

Each step changes one thing (nodes given back, a set, group or clique scaled, a set added or deleted) and then demands
the exact counts that the rules give, from what was bound before. The walks are seeded; a failure names its seed and
its steps.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

import pytest

from tests.conformance.observation import Observation, clique_of, node_of
from tests.conformance.scene import Scene
from tests.conformance.shapes import ModelSet, Shape, Size, forecast, random_shape
from tests.tidy.sources import ROOT

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
NODES: Final = 28
STEPS: Final = 12
SETS_MAX: Final = 3


class Walk:
    """One random walk: what the model says is there, and the steps so far."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._dice = random.Random(seed)
        self._sets: list[ModelSet] = []
        self._nodes = 0
        self._names = 0
        self._bound: Counter[str] = Counter()
        self.steps: list[str] = []

    async def begin(self) -> None:
        """Start with few nodes."""
        self._nodes = self._dice.randint(1, 8)
        await self._scene.limit_nodes(NODES, cordoned=NODES - self._nodes)
        self.steps.append(f"{self._nodes} nodes")

    async def step(self) -> None:
        """Change one thing and demand what follows from it."""
        actions = [self._add_set] if not self._sets else [self._give_nodes, self._give_nodes, self._scale_set]
        if self._sets:
            actions += [self._scale_clique, self._scale_group, self._delete_set]
            if len(self._sets) < SETS_MAX:
                actions.append(self._add_set)
        await self._dice.choice(actions)()
        wanted = forecast(self._sets, self._bound, self._nodes)
        seen = await self._scene.settles(pods=wanted.pods, ready=wanted.bound)
        placed = {name for name, gang in seen.gangs.items() if gang.status.phase != "Pending"}
        assert placed == wanted.placed
        self._bound = bound_by_clique(seen)

    async def _give_nodes(self) -> None:
        count = min(self._dice.randint(1, 6), NODES - self._nodes)
        self.steps.append(f"+{count} nodes")
        if count:
            await self._scene.uncordon(count)
            self._nodes += count

    async def _add_set(self) -> None:
        added = ModelSet(f"s{self._names}", random_shape(self._dice), 1)
        self._names += 1
        self.steps.append(f"add {added}")
        self._sets.append(added)
        await self._scene.apply_text(added.manifest())

    async def _delete_set(self) -> None:
        gone = self._sets.pop(self._dice.randrange(len(self._sets)))
        self.steps.append(f"delete {gone.name}")
        await self._scene.grove.pod_clique_sets.delete([gone.name], namespace=self._scene.namespace)

    async def _scale_set(self) -> None:
        chosen = self._dice.choice(self._sets)
        # One copy more at a time: copies that are made together may be placed one after the other.
        chosen.copies = self._dice.randint(max(0, chosen.copies - 2), chosen.copies + 1)
        chosen.forget_copies(chosen.copies)
        self.steps.append(f"scale {chosen.name} to {chosen.copies}")
        await self._scene.scale_set(chosen.name, chosen.copies)

    async def _scale_group(self) -> None:
        chosen = self._dice.choice(self._sets)
        if not chosen.copies or not chosen.shape.groups:
            return
        group, (size, _) = self._dice.choice(sorted(chosen.shape.groups.items()))
        name = f"{chosen.name}-{self._dice.randrange(chosen.copies)}-{group}"
        chosen.scaled[name] = self._dice.randint(size.minimum, size.minimum + 3)
        self.steps.append(f"scale {name} to {chosen.scaled[name]}")
        await self._scene.scale_group(name, chosen.scaled[name])

    async def _scale_clique(self) -> None:
        chosen = self._dice.choice(self._sets)
        if not chosen.copies:
            return
        clique, size = self._dice.choice(sorted(chosen.shape.cliques.items()))
        name = f"{chosen.name}-{self._dice.randrange(chosen.copies)}-{clique}"
        chosen.scaled[name] = self._dice.randint(size.minimum, size.minimum + 3)
        self.steps.append(f"scale {name} to {chosen.scaled[name]}")
        await self._scene.scale_clique(name, chosen.scaled[name])


def bound_by_clique(seen: Observation) -> Counter[str]:
    """Return how many pods of each clique have a node."""
    return Counter(clique_of(pod) for pod in seen.active if node_of(pod))


@pytest.mark.parametrize("seed", range(6))
async def test_a_random_walk_keeps_the_rules(scene: Scene, seed: int) -> None:
    """After each of many random steps the counts are exactly those that the rules demand."""
    walk = Walk(scene, seed)
    await walk.begin()
    for _ in range(STEPS):
        try:
            await walk.step()
        except AssertionError as error:
            error.add_note(f"seed {seed}: " + "; ".join(walk.steps))
            raise


WIDE: Final = Shape({"a": Size(3, 1)}, {"g": (Size(3, 1), {"m": Size(2, 1)})})


async def test_minimums_go_before_surplus_when_much_is_free_at_once(scene: Scene) -> None:
    """Base minimum, scaled minimums and surplus in one step: four nodes for 2 + 1 + 1, though surplus waits as well."""
    await scene.limit_nodes(10, cordoned=9)
    wide = ModelSet("wide", WIDE, 1)
    await scene.apply_text(wide.manifest())
    await scene.settles(pods=9, ready=0)
    await scene.uncordon(3)
    seen = await scene.settles(pods=9, ready=4)
    assert seen.ready_by_clique() == {
        "wide-0-a": 1,
        "wide-0-g-0-m": 1,
        "wide-0-g-1-m": 1,
        "wide-0-g-2-m": 1,
    }


async def test_minimums_of_all_copies_go_before_surplus(scene: Scene) -> None:
    """Three copies with nodes for three base minimums: each copy gets its own, none its surplus."""
    # All copies have to be there when room appears: which of them comes first into an idle cluster is a race.
    await scene.limit_nodes(10, cordoned=9)
    await scene.apply_text(ModelSet("wide", WIDE, 3).manifest())
    await scene.settles(pods=27, ready=0)
    await scene.uncordon(5)
    seen = await scene.settles(pods=27, ready=6)
    assert seen.ready_by_clique() == {f"wide-{copy}-{part}": 1 for copy in range(3) for part in ("a", "g-0-m")}


async def test_the_older_set_goes_first(scene: Scene) -> None:
    """Of two sets that wait, the older one gets the nodes, whatever their names."""
    await scene.limit_nodes(9, cordoned=8)
    for name in ("zebra", "ape"):
        await scene.apply_text(ModelSet(name, Shape({"a": Size(3, 3)}, {}), 1).manifest())
        await scene.rests()
    await scene.uncordon(2)
    seen = await scene.settles(pods=6, ready=3)
    assert seen.ready_by_clique() == {"zebra-0-a": 3}


async def test_a_smaller_gang_overtakes_one_that_does_not_fit(scene: Scene) -> None:
    """A waiting gang holds nothing back from a younger one that fits."""
    await scene.limit_nodes(4, cordoned=2)
    await scene.apply_text(ModelSet("large", Shape({"a": Size(4, 4)}, {}), 1).manifest())
    await scene.settles(pods=4, ready=0)
    await scene.apply_text(ModelSet("small", Shape({"a": Size(2, 2)}, {}), 1).manifest())
    seen = await scene.settles(pods=6, ready=2)
    assert seen.ready_by_clique() == {"small-0-a": 2}


async def test_what_returns_from_zero_returns_as_a_whole(scene: Scene) -> None:
    """A clique and a group at zero are absent; back from zero each comes with its minimum or not at all."""
    await scene.limit_nodes(8, cordoned=6)
    shape = Shape({"a": Size(1, 1), "b": Size(2, 2)}, {"g": (Size(1, 1), {"m": Size(2, 2)})})
    scaled = ModelSet("zero", shape, 1)
    await scene.apply_text(scaled.manifest())
    await scene.settles(pods=5, ready=0)
    await scene.scale_clique("zero-0-b", 0)
    await scene.scale_group("zero-0-g", 0)
    seen = await scene.settles(pods=1, ready=1)
    assert seen.sets["zero"].status.available_replicas == 1
    assert seen.gangs["zero-0"].status.phase == "Running"
    await scene.scale_clique("zero-0-b", 2)
    seen = await scene.observe_until_quiet()
    assert seen.ready_by_clique() == {"zero-0-a": 1}
    await scene.uncordon(1)
    seen = await scene.settles(pods=3, ready=3)
    await scene.scale_group("zero-0-g", 1)
    await scene.uncordon(1)
    seen = await scene.observe_until_quiet()
    assert seen.ready_by_clique() == {"zero-0-a": 1, "zero-0-b": 2}
    await scene.uncordon(1)
    await scene.settles(pods=5, ready=5)
