"""What a killed server leaves on the disk, read from a copy of its database before anybody repairs anything."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

from grove_server.app import DATABASE_NAME
from grove_server.resources import codec
from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod, PodGang, PodPhase
from grove_server.store import SqliteStore
from grove_server.store.interface import Reader
from tests.crash.load import GPUS_PER_MEMBER

_GPU: Final = "nvidia.com/gpu"
_CPU_MILLIS: Final = {"router": 500, "leader": 1000, "worker": 1000}
_NODE_CPU_MILLIS: Final = 16_000
_NODE_PODS: Final = 20


async def check_wreck(data_dir: Path, scratch: Path) -> None:
    """Check that what is durable keeps every promise: nothing doubled, bound in part, or handed out twice."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for file in data_dir.glob(f"{DATABASE_NAME}*"):
        if not file.name.endswith(".lock"):
            shutil.copy(file, scratch / file.name)
    store = SqliteStore(scratch / DATABASE_NAME, codec)
    await store.open()
    try:
        _check_doubles(store.read())
        _check_gangs(store.read())
        _check_nodes(store.read())
    finally:
        await store.close()


def _check_doubles(reader: Reader) -> None:
    places = Counter((pod.identity.name, pod.index) for pod in reader.list(Pod) if pod.is_active)
    doubled = [place for place, count in places.items() if count > 1]
    assert not doubled, f"doubled pods: {doubled}"


def _check_gangs(reader: Reader) -> None:
    for gang in reader.list(PodGang):
        counts = []
        is_leaving = False
        for group in gang.pod_groups:
            pods = [reader.get(Pod, gang.metadata.namespace, name) for name in group.pods]
            active = [pod for pod in pods if pod is not None and pod.is_active]
            is_leaving |= len(active) < len(pods)
            counts.append((group.name, sum(bool(pod.node) for pod in active), group.min_replicas))
        is_whole = all(bound >= minimum for _, bound, minimum in counts)
        assert is_whole or not any(bound for _, bound, _ in counts), f"{gang.metadata.name} bound in part: {counts}"
        # The transaction that binds also says so. While pods leave, the gang is told afterwards.
        assert is_leaving or is_whole == (gang.status.scheduled_at is not None), f"{gang.metadata.name}: {gang.status}"


def _check_nodes(reader: Reader) -> None:
    held: defaultdict[str, list[Pod]] = defaultdict(list)
    for pod in reader.list(Pod):
        if pod.node and pod.phase not in (PodPhase.FAILED, PodPhase.SUCCEEDED):
            held[pod.node].append(pod)
    nodes = {node.metadata.name: node for node in reader.list(Node)}
    assert held.keys() <= nodes.keys()
    for name, pods in held.items():
        members = [pod for pod in pods if pod.identity.group]
        gpu_ids = [gpu_id for pod in members for gpu_id in pod.gpu_ids]
        assert all(len(pod.gpu_ids) == GPUS_PER_MEMBER for pod in members), name
        assert len(gpu_ids) == len(set(gpu_ids)), f"{name}: a GPU has two pods"
        assert set(gpu_ids) <= set(range(int(nodes[name].allocatable[_GPU]))), name
        assert sum(_CPU_MILLIS[pod.identity.clique] for pod in pods if pod.identity.clique in _CPU_MILLIS) <= (
            _NODE_CPU_MILLIS
        ), f"{name}: more CPU than there is"
        assert len(pods) <= _NODE_PODS, f"{name}: more pods than there may be"
