"""What placement knows of a node, as the caller hands it over.

Rules: frozen; amounts are whole numbers in the units of the pods' requests; a resource that is not listed is not there
(0), `pods` included. GPU ids are 0 .. allocatable[nvidia.com/gpu] - 1.

Not here: what is reserved on a node; that is the state of `cluster.Cluster`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from grove_server.placement.requests import GPU_RESOURCE

AMOUNT_MAX: Final = 2**60
"""Largest amount of one resource on one node; sums over many pods must stay within 64 bits."""

GPUS_MAX: Final = 1_024
"""Most GPUs of one node."""


class Effect(StrEnum):
    """Effects of a taint, as in Kubernetes; the first two exclude, the last one is only avoided."""

    NO_SCHEDULE = "NoSchedule"
    NO_EXECUTE = "NoExecute"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Taint:
    """A node's taint."""

    key: str
    value: str = ""
    effect: str = Effect.NO_SCHEDULE

    def __str__(self) -> str:
        """Return kubectl's spelling, key=value:effect."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node without its pods.

    `unschedulable` is kubectl's cordon; `ready` is False for a node that is down. `gpu_busy` are ids that cannot be
    given to pods for a reason outside of placement (a broken device). `gpu_islands` are the ids that share NVLink or a
    NUMA node, each id once; () if nothing is known.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, int] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True
    gpu_busy: frozenset[int] = frozenset()
    gpu_islands: tuple[tuple[int, ...], ...] = ()

    @property
    def gpu_count(self) -> int:
        """Return how many GPU ids the node has, busy ones included."""
        return self.allocatable.get(GPU_RESOURCE, 0)


def problem_of(state: NodeState) -> str | None:
    """Return what is out of bounds with a node; None if nothing is."""
    for resource, amount in state.allocatable.items():
        if not 0 <= amount <= AMOUNT_MAX:
            return f"{amount} of {resource} is not between 0 and {AMOUNT_MAX}"
    if state.gpu_count > GPUS_MAX:
        return f"{state.gpu_count} GPUs are more than {GPUS_MAX}"
    in_islands = [gpu_id for island in state.gpu_islands for gpu_id in island]
    if len(set(in_islands)) != len(in_islands):
        return "a GPU is in two islands"
    if any(not 0 <= gpu_id < GPUS_MAX for gpu_id in (*state.gpu_busy, *in_islands)):
        return f"GPU ids lie between 0 and {GPUS_MAX - 1}"
    return None
