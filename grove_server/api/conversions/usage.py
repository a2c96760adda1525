"""What pods and nodes use, as messages. Quantities in the spelling that metrics of Kubernetes have."""

from __future__ import annotations

from typing import Final

from grove.v1 import container_pb2 as pb
from grove_server.resources.duration import format_duration
from grove_server.runtime.containers import ContainerUse, GpuUse, NodeUse, PodUse, Use

_KIB: Final = 1024


def usage_message(use: Use) -> pb.ContainerServiceGetUsageResponse:
    """Return the answer, pods sorted by namespace and name."""
    pods = sorted(use.pods, key=lambda each: (each.pod.metadata.namespace, each.pod.metadata.name))
    return pb.ContainerServiceGetUsageResponse(
        pods=[_pod(each) for each in pods],
        nodes=[_node(each) for each in use.nodes],
        window=format_duration(round(use.window_s, 3)),
    )


def _pod(use: PodUse) -> pb.PodUsage:
    return pb.PodUsage(
        namespace=use.pod.metadata.namespace,
        name=use.pod.metadata.name,
        containers=[_container(each) for each in use.containers],
        gpus=[_gpu(each) for each in use.gpus],
    )


def _container(use: ContainerUse) -> pb.ContainerUsage:
    return pb.ContainerUsage(
        name=use.name, cpu=_cores(use.cpu_cores), memory=_bytes(use.memory_bytes), process_count=use.process_count
    )


def _node(use: NodeUse) -> pb.NodeUsage:
    return pb.NodeUsage(
        name=use.name,
        cpu=_cores(use.cpu_cores),
        cpu_capacity=_cores(use.cpu_capacity_cores),
        memory=_bytes(use.memory_bytes),
        memory_capacity=_bytes(use.memory_capacity_bytes),
        gpus=[_gpu(each) for each in use.gpus],
    )


def _gpu(use: GpuUse) -> pb.GpuUsage:
    return pb.GpuUsage(
        id=use.gpu_id,
        utilization_percent=use.utilization_percent,
        memory=_bytes(use.memory_bytes),
        memory_capacity=_bytes(use.memory_capacity_bytes),
    )


def _cores(cores: float | None) -> str:
    return "" if cores is None else f"{round(cores * 1000)}m"


def _bytes(count: int) -> str:
    return f"{count // _KIB}Ki"
