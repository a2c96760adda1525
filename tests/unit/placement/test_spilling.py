"""Gangs of one shape that are larger than a block: every pod has a place, and on few blocks, racks and nodes."""

from __future__ import annotations

import random

import pytest

from grove_server.placement import GPU_RESOURCE, CliqueRequest, GangRequest, PodShape, place
from grove_server.placement.violations import violations
from tests.placement_cases import BLOCK, RACK, placed
from tests.placement_instances import LEVELS, half_full_cluster


@pytest.mark.parametrize("level", [None, BLOCK, RACK])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_after_whole_blocks_joins_them(seed: int, level: str | None) -> None:
    """A gang that fills one block and spills into another has all its pods, however it is spread below."""
    chance = random.Random(seed)
    cluster = half_full_cluster(chance)
    shape = PodShape(requests=(("cpu", 1), (GPU_RESOURCE, chance.choice((1, 2, 4)))))
    room = int(cluster.request_class(shape, cluster.layout(LEVELS)).everywhere[0][0])
    for pods in (room, room - 1, room * 2 // 3, room // 2):
        clique = CliqueRequest(name="worker", shape=shape, minimum=pods)
        request = GangRequest(name="gang", members=(clique,), topology=LEVELS, preferred=level)
        result = placed(place(cluster, request))
        assert violations(cluster, request, result) == []
