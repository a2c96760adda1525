"""Sets and nodes as users might write them, drawn from a seed: groups, constraints, minimums, zero sizes, delays.

Sizes are small: races need few pods, and a run should meet many of them. Every pod can in principle become ready, so
that the end of a run may demand it: crashes that a template asks for are bounded in number.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.manifest import ClusterTopologyBindingSpec, TopologyLevel
from grove_server.resources.meta import Metadata
from tests.simulation.policies import add_policies, draw_strategy, redraw_annotations, redraw_delay
from tests.simulation.ranks import PRIORITIES, QUEUE_LABELS

Json = dict[str, Any]

DOMAINS: Final = ("zone", "block", "rack", "host")
TOPOLOGY: Final = "grove-topology"
NAMESPACES: Final = ("default", "team-a")
_GPUS: Final = 8
_EDITS: Final = (0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9)
_EDITS_OF_RESTLESS: Final = (*_EDITS, *((3,) * 20), 7)


def label_key(domain: str) -> str:
    """Return the node label that holds the instance of a domain."""
    return f"example.com/{domain}"


def node(index: int, *, uid: str, now: float, nodes_per_rack: int) -> Node:
    """Return node number *index*; two racks make a block, two blocks a zone."""
    name = f"n{index}"
    rack = index // nodes_per_rack
    domains = {"host": name, "rack": f"r{rack}", "block": f"b{rack // 2}", "zone": f"z{rack // 4}"}
    return Node(
        metadata=Metadata(
            name=name,
            uid=uid,
            created_at=now,
            labels={label_key(domain): value for domain, value in domains.items()},
        ),
        allocatable={"pods": "16", "cpu": "64", "nvidia.com/gpu": str(_GPUS)},
        capacity={"pods": "16", "cpu": "64", "nvidia.com/gpu": str(_GPUS)},
        ready_changed_at=now,
        address=f"172.16.{index >> 8}.{index & 255}",
    )


def topology(*, uid: str, now: float) -> ClusterTopologyBinding:
    """Return the topology binding of the nodes."""
    levels = tuple(TopologyLevel(domain=domain, key=label_key(domain)) for domain in DOMAINS)
    return ClusterTopologyBinding(
        metadata=Metadata(name=TOPOLOGY, uid=uid, created_at=now), spec=ClusterTopologyBindingSpec(levels=levels)
    )


class Author:
    """Writes manifests and edits them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        # Some authors mostly try new images, on sets that are large enough for several steps and small enough to fit.
        self.is_restless = rng.random() < 0.4

    def write(self, name: str, namespace: str) -> Json:
        """Return a new set."""
        rng = self._rng
        cliques = [self._clique(f"c{index}") for index in range(rng.choice((1, 1, 2, 2, 3, 4)))]
        free = [clique["name"] for clique in cliques]
        groups = []
        for index in range(rng.choice((0, 0, 1, 1, 2))):
            if free:
                members, free = _split(free, rng.randint(1, len(free)))
                groups.append(self._group(f"g{index}", members))
        template: Json = {"cliques": cliques, "podCliqueScalingGroups": groups}
        if rng.random() < 0.3:
            # The broadest level: levels within must be narrower.
            template["topologyConstraint"] = self._pack(("zone", "block"))
        if priority := rng.choice(PRIORITIES):
            template["priorityClassName"] = priority
        document: Json = {
            "apiVersion": "grove.io/v1alpha1",
            "kind": "PodCliqueSet",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"team": rng.choice("xyz"), **rng.choice(QUEUE_LABELS)},
            },
            "spec": {"replicas": rng.choice((0, 1, 1, 1, 2, 2, 3)), "template": template},
        }
        add_policies(rng, document)
        return document

    def edit(self, document: Json) -> None:
        """Change something that may change: a size, what runs, how it is updated, labels, or nothing at all."""
        rng = self._rng
        template = document["spec"]["template"]
        clique = rng.choice(template["cliques"])
        edit = rng.choice(_EDITS_OF_RESTLESS if self.is_restless else _EDITS)
        if edit == 0:
            document["spec"]["replicas"] = rng.choice((0, 1, 2, 3))
        elif edit == 1:
            clique["spec"]["replicas"] = self._size(clique["spec"].get("minAvailable", 1))
        elif edit == 2 and template["podCliqueScalingGroups"]:
            group = rng.choice(template["podCliqueScalingGroups"])
            group["replicas"] = self._size(group["minAvailable"])
        elif edit == 3:
            image = f"registry.example/app:{rng.randrange(4)}"
            # Parts that work together are updated together; often it is one alone.
            for changed in template["cliques"] if rng.random() < 0.5 else [clique]:
                changed["spec"]["podSpec"]["containers"][0]["image"] = image
        elif edit == 4:
            clique.setdefault("annotations", {}).update(self._behaviour(may_crash=_restarts(clique["spec"])))
        elif edit == 5:
            document["metadata"]["labels"]["team"] = rng.choice("xyz")
        elif edit == 7:
            draw_strategy(rng, document)
        elif edit == 8:
            redraw_annotations(rng, document)
        elif edit == 9:
            redraw_delay(rng, document)
        elif clique["spec"].get("replicas") is not None and rng.random() < 0.5:
            # Left out: the live size stays as it is.
            del clique["spec"]["replicas"]

    def _clique(self, name: str) -> Json:
        rng = self._rng
        minimum = rng.choice((1, 1, 1, 2, 2, 3))
        spec: Json = {
            "roleName": name,
            "replicas": self._size(minimum),
            "podSpec": {
                "containers": [{"name": "main", "image": "registry.example/app:0", "resources": self._resources()}],
                "terminationGracePeriodSeconds": rng.choice((0, 1, 10)),
            },
        }
        if minimum > 1 or rng.random() < 0.3:
            spec["minAvailable"] = minimum
        if rng.random() < 0.4:
            spec["podSpec"]["restartPolicy"] = rng.choice(("Never", "OnFailure"))
        clique: Json = {"name": name, "spec": spec}
        if rng.random() < 0.5:
            clique["annotations"] = self._behaviour(may_crash=_restarts(spec))
        if rng.random() < 0.2:
            clique["topologyConstraint"] = self._pack(("host", "rack"))
        return clique

    def _group(self, name: str, members: Iterable[str]) -> Json:
        rng = self._rng
        minimum = rng.choice((1, 1, 1, 2))
        group: Json = {
            "name": name,
            "cliqueNames": list(members),
            "replicas": self._size(minimum),
            "minAvailable": minimum,
        }
        if rng.random() < 0.3:
            group["topologyConstraint"] = self._pack(("rack",))
        return group

    def _size(self, minimum: int) -> int:
        """Return a legal size, now and then 0."""
        if self._rng.random() < 0.1:
            return 0
        return minimum + self._rng.choice((0, 1, 2, 2, 3, 4) if self.is_restless else (0, 0, 1, 1, 2))

    def _resources(self) -> Json:
        rng = self._rng
        requests: Json = {"cpu": rng.choice(("100m", "2", "8"))}
        gpu_count = rng.choice((0, 0, 0, 1) if self.is_restless else (0, 0, 1, 1, 2, 4, 8))
        if not gpu_count:
            return {"requests": requests}
        return {"requests": requests, "limits": {"nvidia.com/gpu": gpu_count}}

    def _behaviour(self, *, may_crash: bool) -> dict[str, str]:
        """Return annotations. Where pods are not restarted, each new one would crash, and no end would come."""
        rng = self._rng
        found: dict[str, str] = {}
        if rng.random() < 0.4:
            found["fake.grove.io/start-delay"] = rng.choice(("200ms", "3s", "20s"))
        if rng.random() < 0.4:
            found["fake.grove.io/ready-delay"] = rng.choice(("100ms", "2s", "30s"))
        if rng.random() < 0.3:
            found["fake.grove.io/stop-delay"] = rng.choice(("50ms", "1s", "8s"))
        if may_crash and rng.random() < 0.15:
            found["fake.grove.io/crash-after"] = rng.choice(("500ms", "4s"))
            found["fake.grove.io/crash-times"] = rng.choice(("1", "2", "3"))
        if rng.random() < 0.1:
            found["fake.grove.io/ignore-sigterm"] = "true"
        return found

    def _pack(self, domains: tuple[str, ...]) -> Json:
        level = self._rng.choice(domains)
        kind = self._rng.choice(("required", "required", "preferred"))
        return {"topologyName": TOPOLOGY, "pack": {kind: level}}


def _restarts(spec: Json) -> bool:
    return "restartPolicy" not in spec["podSpec"]


def _split(names: list[str], count: int) -> tuple[list[str], list[str]]:
    return names[:count], names[count:]
