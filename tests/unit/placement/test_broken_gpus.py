"""GPUs that are out of service: their ids are not given to pods, and the others keep theirs."""

from __future__ import annotations

from grove_server.placement.cluster import Cluster
from grove_server.placement.shapes import node_state
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Metadata


def test_the_ids_of_broken_gpus_are_left_out() -> None:
    """A node of four GPUs that lacks number 1 offers 0, 2 and 3, whatever its allocatable count is."""
    node = Node(
        metadata=Metadata(name="box"),
        allocatable={"cpu": "8", "pods": "10", "nvidia.com/gpu": "3"},
        capacity={"cpu": "8", "pods": "10", "nvidia.com/gpu": "4"},
        broken_gpus=(1,),
    )
    state = node_state(node)
    assert (state.gpu_count, state.gpu_busy) == (4, frozenset({1}))
    cluster = Cluster([state])
    assert cluster.ledger.gpu_free[0] == 0b1101
