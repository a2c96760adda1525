"""Priorities and queues of the simulated server, and what must hold when some have to leave for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from grove_server.lifecycle.gang_status import is_displaced
from grove_server.lifecycle.removal import StopReason
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.resources.meta import Key, Kind, Metadata, Resource
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import EARMARK_NEVER, QUEUE, Queue, QueueSpec, queue_of
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang, PodPhase
from tests.simulation.books import Books, GangKey

CLASSES: Final = (
    PriorityClass(metadata=Metadata(name="low"), value=-10),
    PriorityClass(metadata=Metadata(name="high"), value=1000),
    PriorityClass(metadata=Metadata(name="meek"), value=500, preemption_policy="Never"),
)
# Without limits and earmarks, so that what fits is placed when nothing goes wrong any more.
QUEUES: Final = (
    Queue(
        metadata=Metadata(name="gold"),
        spec=QueueSpec(guarantee={"nvidia.com/gpu": "16"}, earmark_after=EARMARK_NEVER),
    ),
    Queue(
        metadata=Metadata(name="silver"),
        spec=QueueSpec(guarantee={"nvidia.com/gpu": "8"}, weight=2.0, earmark_after=EARMARK_NEVER),
    ),
    Queue(metadata=Metadata(name="default"), spec=QueueSpec(earmark_after=EARMARK_NEVER)),
)
PRIORITIES: Final = ("", "", "", "low", "low", "high", "meek")
QUEUE_LABELS: Final[tuple[Mapping[str, str], ...]] = ({}, {}, {}, {QUEUE: "gold"}, {QUEUE: "silver"})

GUARANTEED: Final = {"gold": 16, "silver": 8}
OVER: Final = (PodPhase.FAILED, PodPhase.SUCCEEDED)
_EVICTED: Final = (StopReason.PREEMPTED, StopReason.RECLAIMED)


def check_evictions(
    books: Books, cause: str, previous: Mapping[Key, Resource | None], decided_at_s: float
) -> Iterator[str]:
    """Yield what is wrong with the pods that a commit, if it is one of placement, told to leave."""
    if cause != "placement":
        return
    victims = [
        after
        for key, before in previous.items()
        if isinstance(before, Pod) and before.is_active
        if isinstance(after := books.rows.get(key), Pod) and not after.is_active
    ]
    if not victims:
        return
    winners = [row for key in previous if isinstance(row := books.rows.get(key), PodGang) and row.status.nomination]
    if not winners:
        yield f"{victims[0].metadata.name} has to leave and nobody gets its place"
        return
    for pod in victims:
        yield from _check_victim(books, pod, winners)
    yield from _check_dues(books, victims, winners, decided_at_s)
    for gang_key in sorted({(pod.metadata.namespace, pod.identity.gang) for pod in victims}):
        yield from _check_gang(books, gang_key, previous)


def _check_victim(books: Books, pod: Pod, winners: list[PodGang]) -> Iterator[str]:
    name = pod.metadata.name
    victim = books.gang((pod.metadata.namespace, pod.identity.gang))
    if pod.stop_reason not in _EVICTED:
        yield f"placement stops {name}: {pod.stop_reason}"
    elif victim is None:
        yield f"{name} of no gang has to leave"
    elif pod.stop_reason == StopReason.PREEMPTED:
        if not any(
            victim.priority < each.priority
            and each.preemption_policy != "Never"
            and _queue(books, each) == _queue(books, victim)
            for each in winners
        ):
            yield f"{name} of priority {victim.priority} has to leave for {[each.metadata.name for each in winners]}"
    elif not any(_queue(books, each) != _queue(books, victim) for each in winners):
        yield f"{name} is reclaimed for a gang of its own queue"


def _check_dues(books: Books, victims: list[Pod], winners: list[PodGang], decided_at_s: float) -> Iterator[str]:
    """No queue is taken below its guarantee of GPUs, and none takes back more than it is guaranteed."""
    lost: Counter[str] = Counter()
    for pod in victims:
        if pod.stop_reason == StopReason.RECLAIMED:
            lost[_queue_of_pod(books, pod)] += books.shape(pod).amount(GPU_RESOURCE)
    if not lost:
        return
    unseen = books.all_lost_unseen(decided_at_s)
    pods = [pod for on_node in books.pods_on.values() for pod in on_node.values()]
    takers = {_queue(books, each) for each in winners}
    for queue, amount in lost.items():
        left = _gpus_of(books, queue, [*(pod for pod in pods if pod.is_active), *unseen])
        if queue not in takers and left < min(GUARANTEED.get(queue, 0), left + amount):
            yield f"queue {queue} is left with {left} GPUs, it had {left + amount}"
    for queue in takers:
        kept = sum(_gpus_kept(books, gang) for gang in _nominated(books) if _queue(books, gang) == queue)
        has = _gpus_of(books, queue, [pod for pod in pods if pod.phase not in OVER]) + kept
        if has > GUARANTEED.get(queue, 0):
            yield f"queue {queue} takes back and would have {has} GPUs, {kept} of them are kept for it"


def _nominated(books: Books) -> list[PodGang]:
    return [row for row in books.rows.values() if isinstance(row, PodGang) and row.status.nomination is not None]


def _gpus_kept(books: Books, gang: PodGang) -> int:
    """Return how many whole GPUs the places have that are kept for a gang."""
    assert gang.status.nomination is not None
    groups = {group.name: group for group in gang.pod_groups}
    found = 0
    for place in gang.status.nomination.places:
        group = groups.get(place.pod_group)
        pod = books.rows.get(Key(Kind.POD, gang.metadata.namespace, group.pods[0])) if group and group.pods else None
        found += books.shape(pod).amount(GPU_RESOURCE) if isinstance(pod, Pod) else 0
    return found


def _gpus_of(books: Books, queue: str, pods: list[Pod]) -> int:
    return sum(books.shape(pod).amount(GPU_RESOURCE) for pod in pods if _queue_of_pod(books, pod) == queue)


def _queue_of_pod(books: Books, pod: Pod) -> str:
    gang = books.gang((pod.metadata.namespace, pod.identity.gang))
    return "" if gang is None else _queue(books, gang)


def _check_gang(books: Books, key: GangKey, previous: Mapping[Key, Resource | None]) -> Iterator[str]:
    """A gang that was whole stays so, or leaves as a whole and says so."""
    gang = books.gang(key)
    if gang is None:
        return
    left = Counter(pod.identity.name for pod in books.active_of_gang(key))
    before = left + Counter(
        row.identity.name
        for row in previous.values()
        if isinstance(row, Pod) and row.node and row.is_active and (row.metadata.namespace, row.identity.gang) == key
    )
    was_whole = all(before[group.name] >= group.min_replicas for group in gang.pod_groups)
    is_whole = all(left[group.name] >= group.min_replicas for group in gang.pod_groups)
    if was_whole and not is_whole and (left.total() or not is_displaced(gang)):
        yield f"gang {gang.metadata.name} is left with {dict(left)} of {dict(before)}"


def _queue(books: Books, gang: PodGang) -> str:
    owner = books.rows.get(Key(Kind.POD_CLIQUE_SET, gang.metadata.namespace, gang.set_name))
    return queue_of(owner) if isinstance(owner, PodCliqueSet) else ""
