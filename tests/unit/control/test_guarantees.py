"""What a queue is guaranteed it gets, on virtual time, whatever others are due and however large gangs are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from grove_server.lifecycle.removal import StopReason
from grove_server.resources.cluster import Event, Node
from grove_server.resources.queues import QUEUE
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang
from grove_server.store.interface import ChangeType, Notice
from tests.lifecycle_cases import Json, clique, condition, manifest, pack
from tests.planes import binding, worker
from tests.property.test_said_and_done import GPU, owner_of
from tests.unit.control.test_queues import queue
from tests.virtual_plane import VirtualPlane


def machines(count: int = 16) -> list[Node]:
    """Return nodes of eight GPUs, four in a block."""
    return [
        replace(worker(index, pods=64), allocatable={"pods": "64", "cpu": "64", GPU: "8"}) for index in range(count)
    ]


QUEUES: Final = (
    queue("top", limit={GPU: "96"}, guarantee={GPU: "64"}),
    queue("qa", parent="top", guarantee={GPU: "32"}, limit={GPU: "64"}, weight=2.0),
    queue("qb", parent="top", guarantee={GPU: "16"}, earmark_after="1m0s"),
)


class World:
    """A server with queues, and how many pods of each set had to leave."""

    def __init__(self) -> None:
        self.plane = VirtualPlane()
        self.left: Counter[str] = Counter()
        self._queues: dict[str, str] = {}
        self.plane.store.subscribe(self._observe)
        self.plane.put(binding(), *QUEUES, *machines())

    def _observe(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            pod, before = notice.resource, notice.previous
            if not isinstance(pod, Pod) or not isinstance(before, Pod) or notice.kind is not ChangeType.MODIFIED:
                continue
            if before.is_active and not pod.is_active and pod.stop_reason == StopReason.RECLAIMED:
                self.left[pod.identity.set_name] += 1

    def apply(self, *documents: Json) -> None:
        """Apply sets at once, and wait until nothing happens any more."""
        self._queues.update((each["metadata"]["name"], each["metadata"]["labels"][QUEUE]) for each in documents)
        self.plane.put(*(owner_of(self.plane, document) for document in documents))

    def delete(self, *names: str) -> None:
        """Delete sets at once, and wait until nothing happens any more."""
        plane = self.plane
        found = [owner for owner in plane.all(PodCliqueSet) if owner.metadata.name in names]
        plane.put(*(replace(o, metadata=replace(o.metadata, deleted_at=plane.clock.now())) for o in found))

    def running(self, name: str) -> int:
        """Return how many pods of a set have nodes and stay."""
        pods = self.plane.all(Pod)
        return sum(1 for pod in pods if pod.identity.set_name == name and pod.node and pod.is_active)

    def used(self, in_: str) -> int:
        """Return how many pods with nodes stay of the sets in a queue."""
        pods = self.plane.all(Pod)
        return sum(1 for pod in pods if pod.node and pod.is_active and self._queues[pod.identity.set_name] == in_)

    def why(self, gang: str) -> tuple[str, str]:
        """Return reason and message of a gang."""
        found = self.plane.get(PodGang, gang)
        return ("", "") if found is None else (found.status.reason, found.status.message)


@pytest.fixture
def world() -> Iterator[World]:
    """A world that ends with the test."""
    found = World()
    yield found
    found.plane.end()


def gang(
    name: str,
    in_: str,
    gpus: str,
    size: int,
    minimum: int | None = None,
    *,
    nodes: str = "",
    **template: Any,  # noqa: ANN401 -- any field of a template
) -> Json:
    """Return a set of one clique whose pods want so many GPUs each, in one block if that is given."""
    requests = {"cpu": "1"} | ({GPU: gpus} if gpus.isdigit() else {})
    fields: Json = {} if gpus.isdigit() else {"annotations": {"grove.io/gpu-fraction": gpus}}
    container = {"name": "main", "image": "registry.example/app:1", "resources": {"limits": requests}}
    spec: Json = {"containers": [container]} | ({"nodeSelector": {"example.com/block": nodes}} if nodes else {})
    workers = clique("w", size, size if minimum is None else minimum, podSpec=spec, **fields)
    document = manifest([workers], name=name, **template)
    document["metadata"]["labels"] = {QUEUE: in_}
    return document


def test_a_guarantee_goes_before_a_fair_share(world: World) -> None:
    """Gangs of 32 GPUs fill the cluster, only 8 of it more than fair; a queue guaranteed 32 ends one of them."""
    world.apply(*(gang(f"d{n}", "default", "8", 4) for n in range(4)))
    world.apply(gang("a", "qa", "8", 4, 1))
    assert world.running("a") == 4
    assert world.left.total() == 4
    world.plane.pass_time(60.0)
    assert (world.running("a"), world.left.total()) == (4, 4), "nobody takes it back"


def test_victims_may_go_that_are_placed_again(world: World) -> None:
    """Free GPUs in the wrong blocks: three gangs leave one block, and the fair share of their queue is no bound."""
    world.apply(*(gang(f"d{n}", "default", "8", 1) for n in range(16)))
    nodes = {pod.node: pod.identity.set_name for pod in world.plane.all(Pod)}
    world.delete(nodes["n0"], nodes["n4"], nodes["n8"])
    world.apply(gang("big", "qa", "8", 4, topologyConstraint=pack(required="block")))
    assert world.running("big") == 4
    assert world.left.total() == 3
    assert world.used("default") == 12


def test_shares_of_gpus_give_way_to_a_guarantee(world: World) -> None:
    """Halves of GPUs fill the cluster in gangs of 10 GPUs; a smaller one ends for a node."""
    world.apply(*(gang(f"d{n}", "default", "0.5", 20) for n in range(12)), gang("rest", "default", "0.5", 16))
    world.apply(gang("a", "qa", "8", 1))
    assert world.running("a") == 1
    assert world.left == {"rest": 16}


def test_nobody_goes_below_a_guarantee(world: World) -> None:
    """A queue takes what it is guaranteed, and nothing of what a sibling is guaranteed."""
    world.apply(*(gang(f"b{n}", "qb", "8", 1) for n in range(12)), gang("d", "default", "8", 4))
    world.apply(*(gang(f"a{n}", "qa", "8", 2) for n in range(4)))
    assert world.used("qa") == 4
    assert world.used("qb") >= 2
    world.apply(gang("more", "qa", "8", 1))
    assert world.running("more") == 0


def test_those_over_their_due_give_first(world: World) -> None:
    """Of two queues that could give way the one that uses more than is fair does."""
    world.plane.put(queue("lean", weight=10.0), queue("fat", weight=1.0))
    world.apply(*(gang(f"fat{n}", "fat", "8", 1) for n in range(8)))
    world.apply(*(gang(f"lean{n}", "lean", "8", 1) for n in range(8)))
    world.apply(gang("a", "qa", "8", 4))
    assert world.running("a") == 4
    assert sorted(name.rstrip("0123456789") for name in world.left) == ["fat"] * 4


def test_a_gang_is_asked_again_when_what_is_fair_changes(world: World) -> None:
    """A sibling keeps its due; when more is wanted that gets less, and a gang that waited for that takes back."""
    world.plane.put(queue("hall", guarantee={GPU: "128"}), queue("hx", parent="hall"), queue("hy", parent="hall"))
    world.apply(*(gang(f"x{n}", "hx", "8", 1, nodes=f"b{n % 3}") for n in range(12)))
    world.apply(gang("y", "hy", "8", 1, nodes="b0"))
    assert world.running("y") == 0
    world.apply(gang("large", "hy", "8", 8, topologyConstraint=pack(required="block")))
    assert world.running("y") == 1
    assert world.left.total() == 1


def test_who_waits_for_a_limit_hears_why_nobody_leaves(world: World) -> None:
    """The message has the limit, and why others cannot be displaced."""
    world.apply(*(gang(f"b{n}", "qb", "8", 1) for n in range(8)), *(gang(f"a{n}", "qa", "8", 1) for n in range(4)))
    world.apply(gang("more", "qa", "8", 1))
    reason, message = world.why("more-0")
    assert reason == "QueueLimit"
    assert "queue top would use 104 of nvidia.com/gpu, its limit is 96" in message
    assert "queue qa would use more than it is guaranteed" in message


def test_a_large_gang_is_not_starved_under_a_limit(world: World) -> None:
    """What comes free under a limit is held for a gang that has waited long enough, though nodes are free."""
    world.apply(*(gang(f"s{n}", "qb", "4", 1) for n in range(24)))
    world.apply(gang("large", "qb", "8", 4))
    world.plane.pass_time(61.0)
    found = world.plane.get(PodGang, "large-0")
    assert found is not None
    aside = "room under the limit of queue top is set aside for it"
    assert condition(found, "Earmarked").message == aside
    assert aside in world.why("large-0")[1]
    assert any(aside in each.message for each in world.plane.all(Event))
    for number in range(0, 8, 2):
        world.delete(f"s{number}", f"s{number + 1}")
        world.apply(gang(f"t{number}", "qb", "4", 1), gang(f"t{number + 1}", "qb", "4", 1))
    assert world.running("large") == 4
    assert [world.running(f"t{number}") for number in range(8)] == [0] * 8
    assert world.used("qb") == 16 + 4
    found = world.plane.get(PodGang, "large-0")
    assert found is not None
    assert condition(found, "Earmarked").status == "False"
    assert "of which" not in world.why("t0-0")[1], "the limit alone is in its way now"
    world.delete("s8", "s9")
    assert sum(world.running(f"t{number}") for number in range(8)) == 2


def test_what_is_held_under_a_limit_binds_no_guarantee(world: World) -> None:
    """While room is held for a gang of one queue, a sibling takes what it is guaranteed, and no more."""
    world.apply(*(gang(f"s{n}", "qb", "4", 1) for n in range(24)))
    world.apply(gang("large", "qb", "8", 9))
    world.plane.pass_time(61.0)
    world.delete("s0", "s1")
    world.apply(gang("a", "qa", "8", 4))
    assert world.running("a") == 4
    world.apply(gang("more", "qa", "4", 1), gang("t", "qb", "4", 1))
    world.delete("s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9")
    assert (world.running("more"), world.running("t")) == (0, 0)
    world.apply(gang("later", "qa", "4", 1))
    held = "queue top would use 68 of nvidia.com/gpu, its limit is 96, of which 32 are set aside for others"
    assert held in world.why("later-0")[1]
    world.delete("a")
    assert world.running("more") == 1


def test_a_what_if_knows_what_is_held_under_a_limit(world: World) -> None:
    """A set of the same queue is told the same by a what-if as by the server."""
    world.apply(*(gang(f"s{n}", "qb", "4", 1) for n in range(24)))
    world.apply(gang("large", "qb", "8", 4, topologyConstraint=pack(required="block")))
    world.plane.pass_time(61.0)
    world.delete("s0", "s1")
    owner = owner_of(world.plane, gang("t", "qb", "4", 1))
    [said] = world.plane.run(world.plane.control.planning.simulate([owner], [], gang_count_max=10)).gangs
    world.apply(gang("t", "qb", "4", 1))
    assert said.decision.reason == world.why("t-0")[0] == "QueueLimit"
    assert said.decision.message == world.why("t-0")[1]


def test_a_gang_over_its_own_limit_hears_that_it_never_runs(world: World) -> None:
    """A gang that alone is more than a limit says so, and nothing is ever held for it."""
    world.apply(*(gang(f"s{n}", "qb", "4", 1) for n in range(20)))
    world.apply(gang("giant", "qb", "8", 13))
    world.plane.pass_time(61.0)
    reason, message = world.why("giant-0")
    assert reason == "QueueLimit"
    assert "and the gang alone is more than that: it can never run" in message
    assert not world.plane.control.placement.room.set_asides.earmarks
    world.apply(gang("small", "qb", "4", 1))
    assert world.running("small") == 1
