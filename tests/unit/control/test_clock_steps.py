"""The clock of the machine may be set at any time; what the loops do next must not wait for it to catch up."""

import pytest

from grove_server.resources.workload import PodCliqueSet
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


@pytest.mark.parametrize("step_s", [-3_600.0, 3_600.0])
async def test_a_clock_that_is_set_delays_nothing(plane: Plane, step_s: float) -> None:
    """After a step of an hour either way, a set grows, tells its status and goes as promptly as before."""
    await plane.put(*(worker(index) for index in range(3)))
    await plane.apply(manifest([clique("a")]))
    await plane.until(lambda: plane.status().available_replicas == 1, "the set is available")
    plane.clock.set_by(step_s)
    await plane.scale_clique("s-0-a", 3)
    await plane.until(lambda: len(plane.pods()) == 3, "the clique has grown")
    await plane.delete_set()
    await plane.until(lambda: plane.child_count() == 0 and not plane.all(PodCliqueSet), "the set is gone")
