"""Counting the pods a set will have: the same as walking through all of it, at the cost of what was resized."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grove_server.api.set_sizes import ScalesUnderway, pod_count
from grove_server.control.indexes import store_indexes
from grove_server.resources.meta import Key, Kind, Metadata, key_of
from grove_server.resources.workload import (
    CliqueIdentity,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodTemplate,
)
from grove_server.store.state import State, Write
from tests.lifecycle_cases import admitted, clique, group, manifest

TEMPLATE = PodTemplate(metadata=Metadata(name="t"), clique="c", hash="h", pod_spec={})
ROUTERS, GROUP_REPLICAS, WORKERS = 2, 2, 3
MADE_COPIES, MADE_REPLICAS = 3, 3


class CountingState(State):
    """A state that counts how many resources its indexes handed out."""

    looked_at = 0

    def indexed(self, index: str, value: Hashable) -> Collection[Any]:
        """Count what is returned."""
        found = super().indexed(index, value)
        self.looked_at += len(found)
        return found


def demo(replicas: int) -> PodCliqueSet:
    """Return a set of two routers and a group of two replicas of three workers per copy."""
    cliques = [clique("router", ROUTERS), clique("worker", WORKERS)]
    return replace(
        admitted(manifest(cliques, [group("model", ["worker"], GROUP_REPLICAS)], replicas=replicas)), resource_version=1
    )


def router(owner: PodCliqueSet, copy: int, replicas: int) -> PodClique:
    """Return a standalone clique."""
    return part(owner, f"demo-{copy}-router", replicas, ROUTERS, copy=copy, clique="router")


def worker(owner: PodCliqueSet, copy: int, replica: int, replicas: int) -> PodClique:
    """Return a member of the group."""
    name = f"demo-{copy}-model-{replica}-worker"
    return part(owner, name, replicas, WORKERS, copy=copy, clique="worker", group="model", group_replica=replica)


def part(owner: PodCliqueSet, name: str, replicas: int, template_replicas: int, **where: Any) -> PodClique:  # noqa: ANN401 -- fields of an identity
    """Return a clique."""
    uid = owner.metadata.uid
    identity = CliqueIdentity(set_name="demo", set_uid=uid, name=name, gang="g", headless_service="s", **where)
    return PodClique(
        metadata=Metadata(name=name, namespace=owner.metadata.namespace, uid=name),
        identity=identity,
        template=TEMPLATE,
        replicas=replicas,
        min_available=1,
        template_replicas=template_replicas,
    )


def model(owner: PodCliqueSet, copy: int, replicas: int) -> PodCliqueScalingGroup:
    """Return a group."""
    return PodCliqueScalingGroup(
        metadata=Metadata(name=f"demo-{copy}-model", namespace=owner.metadata.namespace, uid=f"g{copy}"),
        set_name="demo",
        set_uid=owner.metadata.uid,
        copy=copy,
        group="model",
        clique_names=("worker",),
        replicas=replicas,
        min_available=1,
        template_replicas=GROUP_REPLICAS,
    )


def filled(*resources: Any) -> CountingState:  # noqa: ANN401 -- any resource
    """Return a state that holds *resources*."""
    state = CountingState(store_indexes())
    for version, resource in enumerate(resources, start=1):
        state.apply(Write(key_of(resource), resource, version))
    return state


@st.composite
def worlds(draw: st.DrawFn) -> tuple[State, PodCliqueSet]:
    """Draw a set of up to five copies, of which up to three were made, with sizes of all kinds."""
    owner = demo(draw(st.integers(0, 5)))
    size = st.integers(0, 4)
    resources: list[Any] = [owner]
    for copy in range(draw(st.integers(0, MADE_COPIES))):
        resources += [router(owner, copy, draw(size)), model(owner, copy, draw(size))]
        resources += (worker(owner, copy, j, draw(size)) for j in range(draw(st.integers(0, MADE_REPLICAS))))
    return filled(*resources), owner


def walked(reader: State, owner: PodCliqueSet, copies: int) -> int:
    """Return the count the long way round."""
    return sum(sum(sizes_of(reader, owner, copy)) for copy in range(copies))


def sizes_of(reader: State, owner: PodCliqueSet, copy: int) -> Iterator[int]:
    """Yield the size of each clique that a copy has or will have."""

    def size(kind: Any, name: str, default: int) -> int:  # noqa: ANN401 -- as the reader's
        found = reader.get(kind, owner.metadata.namespace, name)
        return default if found is None else int(found.replicas)

    yield size(PodClique, f"demo-{copy}-router", ROUTERS)
    for replica in range(size(PodCliqueScalingGroup, f"demo-{copy}-model", GROUP_REPLICAS)):
        yield size(PodClique, f"demo-{copy}-model-{replica}-worker", WORKERS)


@given(worlds())
def test_the_count_is_that_of_a_walk(world: tuple[State, PodCliqueSet]) -> None:
    """Every copy, made or not, counts with its own sizes where it has some and the template's where it has none."""
    reader, owner = world
    target = Key(Kind.POD_CLIQUE, owner.metadata.namespace, "demo-0-router")
    assert pod_count(reader, owner, {}, target, 1) == walked(reader, owner, owner.spec.replicas or 0)


@given(worlds(), st.integers(0, 6))
def test_growing_a_set_counts_what_comes_back(world: tuple[State, PodCliqueSet], wanted: int) -> None:
    """The count, and the added copies at the template's sizes, are what the larger set will have."""
    reader, owner = world
    size = owner.spec.replicas or 0
    if wanted > size:
        added = (wanted - size) * (ROUTERS + GROUP_REPLICAS * WORKERS)
        assert pod_count(reader, owner, {}, key_of(owner), wanted) + added == walked(reader, owner, wanted)


@given(worlds(), st.integers(0, 6))
def test_what_others_asked_for_counts_like_what_is_there(world: tuple[State, PodCliqueSet], wanted: int) -> None:
    """A larger set that is on its way counts as if it were there already."""
    reader, owner = world
    target = Key(Kind.POD_CLIQUE, owner.metadata.namespace, "demo-0-router")
    copies = max(wanted, owner.spec.replicas or 0)
    assert pod_count(reader, owner, {key_of(owner): wanted}, target, 1) == walked(reader, owner, copies)


def test_only_what_was_resized_is_looked_at() -> None:
    """In a set of many copies a call looks at the few that differ from their template."""
    owner = demo(1_000)
    routers = [router(owner, copy, ROUTERS) for copy in range(999)]
    reader = filled(owner, *routers, router(owner, 999, 7), model(owner, 5, 1))
    count = pod_count(reader, owner, {}, key_of(routers[0]), 3)
    assert count == 1_000 * (ROUTERS + GROUP_REPLICAS * WORKERS) + (7 - ROUTERS) - WORKERS
    assert reader.looked_at == 2


def test_announcements_end_with_their_call() -> None:
    """A size counts while its call runs, the largest of several for one target, and no longer."""
    scales = ScalesUnderway()
    key = Key(Kind.POD_CLIQUE, "default", "demo-0-router")
    with scales.announcing() as first, scales.announcing() as second:
        first("uid", key, 5)
        second("uid", key, 3)
        assert scales.of_set("uid") == {key: 5}
        assert scales.of_set("another") == {}
    assert scales.of_set("uid") == {}
