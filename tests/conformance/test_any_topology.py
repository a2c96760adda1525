"""The rules behind Grove's topology cases, for sets of any shape: random constraints, checked by counting free nodes.

On this cluster a node holds one pod, a rack seven nodes, a block two racks. Sets are small enough that a base gang fits
an empty rack, so it must run. A further group replica must run exactly if some domain of the group's level, inside the
domain that its copy has chosen, has as many free nodes as it has pods; counting decides that.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from grove.v1.pod_pb2 import Pod
from tests.conformance.observation import Observation, label_of, node_of
from tests.conformance.scene import Scene
from tests.tidy.sources import ROOT

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
KEYS: Final = {"zone": "kubernetes.io/zone", "block": "kubernetes.io/block", "rack": "kubernetes.io/rack"}
LEVELS: Final = ("", "zone", "block", "rack")
STEPS: Final = 8
COPY_LABEL: Final = "grove.io/podcliqueset-replica-index"


class TopologyWalk:
    """A set with random constraints on a scene of its own, scaled at random."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._dice = random.Random(seed)
        set_level = self._dice.randrange(len(LEVELS))
        self.set_level = LEVELS[set_level]
        # A child must not be broader than its parent.
        self.group_level = self._dice.choice(["", *LEVELS[max(1, set_level) :]])
        self._router_pods = self._dice.randint(1, 2)
        self.member_pods = self._dice.randint(1, 2)
        self.base_pods = self._router_pods + 1 + self.member_pods
        self._sizes: dict[str, int] = {}
        self._copies = 1
        self.steps = [f"set {self.set_level or '-'}, group {self.group_level or '-'}, {self.member_pods} + 1 pods"]

    def manifest(self) -> str:
        """Return the set: a router, and a group of a leader and workers."""
        template: dict[str, Any] = {
            "cliques": [
                _clique("router", self._router_pods),
                _clique("leader", 1),
                _clique("worker", self.member_pods),
            ],
            "podCliqueScalingGroups": [{"name": "group", "cliqueNames": ["leader", "worker"], "replicas": 1}],
        }
        if self.set_level:
            template["topologyConstraint"] = _constraint(self.set_level)
        if self.group_level:
            template["podCliqueScalingGroups"][0]["topologyConstraint"] = _constraint(self.group_level)
        document = {
            "apiVersion": "grove.io/v1alpha1",
            "kind": "PodCliqueSet",
            "metadata": {"name": "any"},
            "spec": {"replicas": 1, "template": template},
        }
        return yaml.safe_dump(document, sort_keys=False)

    async def step(self) -> None:
        """Scale something, wait until nothing moves, and check who runs and who waits."""
        if self._dice.random() < 0.25:
            self._copies = self._dice.randint(1, 2)
            self.steps.append(f"{self._copies} copies")
            self._sizes = {copy: size for copy, size in self._sizes.items() if int(copy) < self._copies}
            await self._scene.scale_set("any", self._copies)
        else:
            copy = str(self._dice.randrange(self._copies))
            self._sizes[copy] = self._dice.randint(1, 6)
            self.steps.append(f"copy {copy} to {self._sizes[copy]}")
            await self._scene.scale_group(f"any-{copy}-group", self._sizes[copy])
        seen = await self._scene.rests()
        self._check(seen)

    def _check(self, seen: Observation) -> None:
        pods_wanted = sum(
            self.base_pods + (self._sizes.get(str(copy), 1) - 1) * (self.member_pods + 1)
            for copy in range(self._copies)
        )
        assert len(seen.active) == pods_wanted
        free = set(self._scene.nodes) - {node_of(pod) for pod in seen.active}
        for copy in map(str, range(self._copies)):
            bound = [pod for pod in seen.active if node_of(pod) and pod.metadata.labels[COPY_LABEL] == copy]
            domains = self._domains_of(bound)
            assert len(domains) <= 1, f"copy {copy} is spread over {domains}"
            if not bound:
                assert len(free) < self.base_pods or self._is_fragmented(free), "it had room"
                continue
            for name, gang in seen.gangs.items():
                if name.startswith(f"any-{copy}-") and gang.status.phase == "Pending":
                    counts = list(self._free_by_domain(free, domains))
                    assert max(counts, default=0) <= self.member_pods, f"{name} waits, free in its domains: {counts}"
        assert all(pod in seen.ready for pod in seen.active if node_of(pod))

    def _domains_of(self, pods: list[Pod]) -> set[str]:
        """Return the domains of the set's level that *pods* are in; none if the set asks for no level."""
        return {label_of(self._scene.nodes, pod, KEYS[self.set_level]) for pod in pods} if self.set_level else set()

    def _free_by_domain(self, free: set[str], inside: set[str]) -> Iterator[int]:
        """Yield the number of free nodes in each domain of the group's level inside the domain chosen for the copy."""
        counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        for name in free:
            labels = self._scene.nodes[name].metadata.labels
            outer = labels[KEYS[self.set_level]] if self.set_level else ""
            if not inside or outer in inside:
                counts[outer, labels[KEYS[self.group_level]] if self.group_level else ""] += 1
        yield from counts.values()

    def _is_fragmented(self, free: set[str]) -> bool:
        """Return whether no domain of the set's level has room for all of a base gang."""
        if not self.set_level:
            return max(self._free_by_domain(free, set()), default=0) <= self.member_pods
        counts: defaultdict[str, int] = defaultdict(int)
        for name in free:
            counts[self._scene.nodes[name].metadata.labels[KEYS[self.set_level]]] += 1
        return max(counts.values(), default=0) < self.base_pods


def _clique(name: str, replicas: int) -> dict[str, Any]:
    container = {"name": "main", "image": "pause", "resources": {"requests": {"memory": "80Mi"}}}
    return {"name": name, "spec": {"roleName": name, "replicas": replicas, "podSpec": {"containers": [container]}}}


def _constraint(level: str) -> dict[str, Any]:
    return {"topologyName": "grove-topology", "pack": {"required": level}}


@pytest.mark.parametrize("seed", range(6))
async def test_gangs_run_exactly_where_there_is_room(scene: Scene, seed: int) -> None:
    """After each random step every constraint holds, and no gang waits that would fit."""
    walk = TopologyWalk(scene, seed)
    await scene.apply_text(walk.manifest())
    seen = await scene.rests()
    assert len(seen.ready) == len(seen.active) == walk.base_pods
    for _ in range(STEPS):
        try:
            await walk.step()
        except AssertionError as error:
            error.add_note(f"seed {seed}: " + "; ".join(walk.steps))
            raise
