"""Every example is placed and started by the real loops, on the cluster it is made for and in a clock's own time.

Goal: the manifests do what their comments say. Method: store, loops and fake runtime in this process, without a disk
and without the API; the clock is moved on whenever everybody waits.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from grove_server.control.indexes import store_indexes
from grove_server.control.plane import ControlPlane
from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod, PodGang
from grove_server.runtime.cluster_file import default_cluster_text, parse_cluster
from grove_server.runtime.cluster_seed import seed_cluster
from grove_server.runtime.fake import FakeRuntime
from grove_server.store import VolatileStore
from grove_server.store.interface import Put, Store
from tests.unit.examples.test_examples import EXAMPLES, ROOT, TABLE, WORKLOAD_PODS, WORKLOADS, admit
from tests.unit.runtime.simulated import SteppedClock
from tests.waiting import until

# Sets that no node or rack of their cluster can hold.
TOO_BIG: Final = {"too-big", "tas13"}
# The level that each instance of the larger models must share.
RACK: Final = "topology.grove.io/rack"


def cluster_of(path: Path) -> str:
    """Return the text of the cluster file that a manifest is made for."""
    if path.parent != WORKLOADS:
        return default_cluster_text()
    if path.stem.startswith("tas17"):
        return (ROOT / "tests/conformance/clusters/two-fabrics.yaml").read_text()
    return (EXAMPLES / "clusters/one-pod-per-node.yaml").read_text()


@asynccontextmanager
async def applied(path: Path, clock: SteppedClock) -> AsyncIterator[Store]:
    """Run a server's inside with the set of a manifest in it."""
    store = VolatileStore(indexes=store_indexes())
    await store.open()
    numbers = itertools.count()
    cluster = parse_cluster(cluster_of(path))
    await seed_cluster(store, cluster, now=clock.now(), new_uid=lambda: f"uid-{next(numbers)}")
    plane = ControlPlane(store, clock, lambda: False)
    runtime = FakeRuntime(store, clock, note=plane.events.note)
    plane.start()
    await runtime.start()
    await store.commit([Put(admit(path, cluster_of(path)).resource)])
    yield store
    assert plane.problems() == {}
    assert runtime.health().is_healthy
    await runtime.stop()
    await plane.stop()
    await store.close()


def domains_by_instance(store: Store, key: str) -> dict[str, set[str]]:
    """Return the domains in which the pods of each group replica are."""
    found: dict[str, set[str]] = defaultdict(set)
    for pod in store.read().list(Pod):
        if pod.identity.group:
            node = store.read().get(Node, "", pod.node)
            assert node is not None
            found[f"{pod.identity.group_name}-{pod.identity.group_replica}"].add(node.metadata.labels[key])
    return found


MANIFESTS: Final = sorted([*(EXAMPLES / name for name in TABLE), *WORKLOADS.glob("*.yaml")])


@pytest.mark.parametrize("path", [p for p in MANIFESTS if p.stem not in TOO_BIG], ids=lambda path: path.stem)
async def test_an_example_runs(path: Path) -> None:
    """All pods of the set become ready on a fresh cluster, and its gangs are placed."""
    clock = SteppedClock()
    pod_count = WORKLOAD_PODS[path.stem] if path.parent == WORKLOADS else TABLE[str(path.relative_to(EXAMPLES))][1]

    def is_running(store: Store) -> bool:
        pods = store.read().list(Pod)
        if len(pods) == pod_count and all(pod.is_ready for pod in pods):
            return True
        clock.advance(0.1)
        return False

    async with applied(path, clock) as store:
        await until(lambda: is_running(store), f"{pod_count} pods are ready")
        assert len({pod.pod_ip for pod in store.read().list(Pod)}) == pod_count


@pytest.mark.parametrize("name", ["disaggregated", "multi-node-model", "agentic-pipeline"])
async def test_instances_stay_in_one_rack(name: str) -> None:
    """Each instance of a model that spans nodes is placed in one rack."""
    clock = SteppedClock()
    async with applied(EXAMPLES / f"{name}.yaml", clock) as store:
        await until(lambda: _all_bound(store), "all pods have a node")
        instances = domains_by_instance(store, RACK)
        assert instances
        assert all(len(racks) == 1 for racks in instances.values())


def _all_bound(store: Store) -> bool:
    pods = store.read().list(Pod)
    return bool(pods) and all(pod.node for pod in pods)


@pytest.mark.parametrize("path", [p for p in MANIFESTS if p.stem in TOO_BIG], ids=lambda path: path.stem)
async def test_what_is_too_big_waits_and_says_why(path: Path) -> None:
    """A gang that no rack can hold gets no node at all, and its message names the level."""
    async with applied(path, SteppedClock()) as store:
        await until(lambda: any(gang.status.message for gang in store.read().list(PodGang)), "the gang says why")
        (gang,) = store.read().list(PodGang)
        assert "in one rack" in gang.status.message
        assert not any(pod.node for pod in store.read().list(Pod))
