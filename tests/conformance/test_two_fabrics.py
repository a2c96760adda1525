"""Grove's case TAS17: two topologies over one cluster, and "block" means something else in each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.conformance.observation import label_of
from tests.conformance.scene import Scene

CLUSTER: Final = Path(__file__).parent / "clusters" / "two-fabrics.yaml"


@pytest.mark.parametrize(
    ("workload", "key"),
    [
        pytest.param("tas17-h100", "kubernetes.io/rack", id="h100"),
        pytest.param("tas17-gb200", "example.com/nvl-block", id="gb200"),
    ],
)
async def test_tas17_a_set_lands_in_the_half_of_its_topology(scene: Scene, workload: str, key: str) -> None:
    """Both pods are in one block of the half that has such blocks."""
    await scene.apply(workload)
    seen = await scene.settles(pods=2, ready=2)
    assert len({label_of(scene.nodes, pod, key) for pod in seen.ready}) == 1
    assert {(c.scope, c.level, c.key) for c in seen.gangs[f"{workload}-0"].status.topology} >= {
        (f"{workload}-0", "block", key)
    }


async def test_tas17_both_halves_serve_at_the_same_time(scene: Scene) -> None:
    """Neither set takes nodes of the other's half."""
    await scene.apply("tas17-h100")
    await scene.apply("tas17-gb200")
    seen = await scene.settles(pods=4, ready=4)
    assert len({(c.key, c.domain) for gang in seen.gangs.values() for c in gang.status.topology}) >= 2
