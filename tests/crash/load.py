"""Clients that create, change, scale and delete sets without pause, and write down what they were told."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

import grove_client
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove_client import FailedPreconditionError, GroveClient, NotFoundError
from tests.crash.ledger import STEP, Ledger, State, deleted, told_by

NAMESPACE: Final = "crash"
CLIENTS: Final = 4
SETS_PER_CLIENT: Final = 3
GPUS_PER_MEMBER: Final = 2
COPIES: Final = 2
CLUSTER: Final = """\
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: node}
spec:
  count: 12
  allocatable: {cpu: "16", memory: 64Gi, pods: "20", nvidia.com/gpu: "8"}
  topology:
    - {key: example.com/rack, count: 3}
---
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {name: racks}
spec:
  levels:
    - {domain: rack, key: example.com/rack}
    - {domain: host, key: kubernetes.io/hostname}
"""


def group_of(set_name: str) -> str:
    """Return the name of the first copy's group."""
    return f"{set_name}-0-group"


def manifest(name: str, step: str) -> PodCliqueSet:
    """Return a set: per copy a router, and a group of a leader and two workers with GPUs in one rack."""
    wanted = PodCliqueSet(api_version="grove.io/v1alpha1", kind="PodCliqueSet")
    wanted.metadata.name, wanted.metadata.namespace = name, NAMESPACE
    wanted.metadata.annotations[STEP] = step
    wanted.spec.replicas = COPIES
    for clique, pods, resources in (
        ("router", 1, {"requests": {"cpu": "500m"}}),
        ("leader", 1, {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": str(GPUS_PER_MEMBER)}}),
        ("worker", 2, {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": str(GPUS_PER_MEMBER)}}),
    ):
        spec = wanted.spec.template.cliques.add(name=clique).spec
        spec.role_name, spec.replicas = clique, pods
        spec.pod_spec.update({"containers": [{"name": "main", "image": "crash", "resources": resources}]})
    group = wanted.spec.template.pod_clique_scaling_groups.add(name="group", clique_names=["leader", "worker"])
    group.replicas = 1
    group.topology_constraint.topology_name = "racks"
    group.topology_constraint.pack.required = "rack"
    return wanted


class Client:
    """One client with sets of its own. `run` ends when it is cancelled or the server is gone."""

    def __init__(self, address: str, number: int, ledger: Ledger, dice: random.Random) -> None:
        self._address = address
        self._names = [f"c{number}-{index}" for index in range(SETS_PER_CLIENT)]
        self._ledger = ledger
        self._dice = dice

    async def run(self) -> None:
        """Change sets without end."""
        async with grove_client.connect(self._address) as grove:
            while True:
                name = self._dice.choice(self._names)
                try:
                    await self._change(grove, name)
                except (FailedPreconditionError, NotFoundError):
                    # It is still being deleted, or what was to be scaled is not made yet.
                    self._ledger.refuse(name)

    async def _change(self, grove: GroveClient, name: str) -> None:
        state = self._ledger.state(name)
        if not state.is_there:
            await self._apply(grove, name, State(is_there=True))
            return
        choice = self._dice.random()
        if choice < 0.25:
            self._ledger.begin(name, deleted(state))
            await grove.pod_clique_sets.delete([name], namespace=NAMESPACE)
            self._ledger.answer(name, deleted(state))
        elif choice < 0.5:
            await self._apply(grove, name, state)
        elif choice < 0.75:
            copies = self._dice.randint(0, 3)
            wanted = replace(state, copies=copies, group_size=state.group_size if copies else 0)
            self._ledger.begin(name, wanted)
            scaled = await grove.pod_clique_sets.scale(name, copies, namespace=NAMESPACE)
            self._ledger.answer(name, told_by(scaled.resource, state.group_size))
        else:
            size = self._dice.randint(1, 4)
            self._ledger.begin(name, replace(state, group_size=size))
            await grove.pod_clique_scaling_groups.scale(group_of(name), size, namespace=NAMESPACE)
            # Without copies it may have been scaled in its last moment.
            self._ledger.answer(name, replace(state, group_size=size if state.copies else 0))

    async def _apply(self, grove: GroveClient, name: str, state: State) -> None:
        step = str(self._dice.randrange(10**9))
        # The same number each time, so that after the first time the live one is kept, whatever it was scaled to.
        copies = state.copies if state.is_there and state.uid else COPIES
        self._ledger.begin(name, replace(state, is_there=True, copies=copies, step=step))
        applied = await grove.pod_clique_sets.apply(manifest(name, step))
        told = told_by(applied.resource, state.group_size)
        assert (told.copies, told.step) == (copies, step), f"asked {copies} and {step}, answered {told}"
        self._ledger.answer(name, told)
