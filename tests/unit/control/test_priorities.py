"""The priority of gangs follows the classes that exist."""

from __future__ import annotations

from grove_server.resources.meta import Metadata
from grove_server.resources.priority import PriorityClass
from grove_server.resources.workload import PodGang
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


def high(**fields: object) -> PriorityClass:
    """Return a class of priority 1000 that never preempts."""
    return PriorityClass(metadata=Metadata(name="high", uid="high"), value=1000, preemption_policy="Never", **fields)  # type: ignore[arg-type]  # the fields of a class


async def has(plane: Plane, priority: int, policy: str) -> None:
    """Wait until the gang has this priority."""

    def shown() -> bool:
        gang = plane.get(PodGang, "s-0")
        return gang is not None and (gang.priority, gang.preemption_policy) == (priority, policy)

    await plane.until(shown, f"the gang has the priority {priority}")


async def test_a_gang_gets_its_priority_when_the_class_comes_and_keeps_it_when_it_goes(plane: Plane) -> None:
    """Until then it is 0; a class that is gone changes nothing."""
    await plane.put(worker(0))
    await plane.apply(manifest([clique("a", 1)], priorityClassName="high"))
    await has(plane, 0, "PreemptLowerPriority")
    await plane.put(high())
    await has(plane, 1000, "Never")
    await plane.remove(plane.one(PriorityClass, "high"))
    await plane.until_quiet()
    await has(plane, 1000, "Never")


async def test_a_default_class_holds_for_sets_that_name_none(plane: Plane) -> None:
    """For gangs that exist, too, and no longer when it is gone."""
    await plane.put(worker(0))
    await plane.apply(manifest([clique("a", 1)]))
    await has(plane, 0, "PreemptLowerPriority")
    await plane.put(high(global_default=True))
    await has(plane, 1000, "Never")
    await plane.remove(plane.one(PriorityClass, "high"))
    await has(plane, 0, "PreemptLowerPriority")
