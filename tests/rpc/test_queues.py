"""Queues and priority classes through a real server: services, manifests, deletion, stories, and who may write."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from grove.v1 import manifest_pb2, priority_class_pb2, queue_pb2, story_pb2, story_pb2_grpc
from grove_server.resources.meta import Metadata
from grove_server.resources.priority import BUILT_IN_CLASSES
from grove_server.resources.queues import BUILT_IN_QUEUE, Queue
from tests.rpc.harness import Harness, refused, sample_set

TREE = """
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: search}
spec: {parent: products, guarantee: {nvidia.com/gpu: 8}, limit: {nvidia.com/gpu: "16"}, weight: 2, earmarkAfter: 90s}
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: products}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
preemptionPolicy: Never
"""
SET = """
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: chat, labels: {grove.io/queue: search}}
spec:
  replicas: 1
  template:
    priorityClassName: high
    cliques: [{name: a, spec: {roleName: a, replicas: 1, podSpec: {containers: [{name: c, image: i}]}}}]
"""


def queue(name: str, **spec: object) -> queue_pb2.Queue:
    """Return a queue as a client would send it."""
    message = queue_pb2.Queue(spec=queue_pb2.QueueSpec(**spec))  # type: ignore[arg-type]  # the fields of a spec
    message.metadata.name = name
    return message


async def test_a_text_in_any_order_is_one_change(rpc: Harness) -> None:
    """A set before its queue, a queue before its parent: all of it is admitted, without a warning, or nothing."""
    dry = await rpc.apply_text(f"{SET}---{TREE}", validate_only=True)
    assert [each.action for each in dry.results] == ["created"] * 4
    applied = await rpc.apply_text(f"{SET}---{TREE}")
    assert [(each.kind, each.name) for each in applied.results] == [
        ("PodCliqueSet", "chat"),
        ("Queue", "search"),
        ("Queue", "products"),
        ("PriorityClass", "high"),
    ]
    assert {warning for each in applied.results for warning in each.warnings if "queue" in warning.lower()} == {
        (
            "the queues below products are guaranteed 8 of nvidia.com/gpu, products itself 0: "
            "what is missing is borrowed, and may be taken back by others"
        ),
    }
    again = await rpc.apply_text(f"{TREE}---{SET}")
    assert {each.action for each in again.results} == {"unchanged"}
    stored = await rpc.queues.Get(queue_pb2.QueueServiceGetRequest(name="search"))
    assert dict(stored.spec.guarantee) == {"nvidia.com/gpu": "8"}
    assert (stored.spec.weight, stored.spec.blocking, stored.spec.earmark_after) == (2.0, "SkipAhead", "1m30s")
    assert (stored.api_version, stored.kind) == ("grove.io/v1alpha1", "Queue")
    high = await rpc.priority_classes.Get(priority_class_pb2.PriorityClassServiceGetRequest(name="high"))
    assert (high.api_version, high.value, high.preemption_policy) == ("scheduling.k8s.io/v1", 1000, "Never")


async def test_all_mistakes_of_a_text_are_told_with_their_documents(rpc: Harness) -> None:
    """A circle, a priority of 2^31, and a queue with a field that does not exist refuse the whole text."""
    text = TREE.replace("metadata: {name: products}", "metadata: {name: products}\nspec: {parent: search, share: 1}")
    refusal = await refused(rpc.apply_text(text.replace("value: 1000", f"value: {2**31}")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MANIFEST")
    assert sorted(refusal.fields) == [
        "document[1].spec.parent",
        "document[2].spec.parent",
        "document[2].spec.share",
        "document[3].value",
    ]
    assert list((await rpc.queues.List(queue_pb2.QueueServiceListRequest())).items) == []


async def test_an_unknown_parent_is_refused_and_a_dry_run_changes_nothing(rpc: Harness) -> None:
    """The service holds to the same rules as manifests."""
    refusal = await refused(rpc.queues.Create(queue_pb2.QueueServiceCreateRequest(queue=queue("a", parent="b"))))
    assert refusal.fields == ["spec.parent"]
    request = queue_pb2.QueueServiceApplyRequest(queue=queue("a"), validate_only=True)
    assert (await rpc.queues.Apply(request)).action == "created"
    assert (await refused(rpc.queues.Get(queue_pb2.QueueServiceGetRequest(name="a")))).reason == "NOT_FOUND"


async def test_an_update_needs_the_version_that_was_read(rpc: Harness) -> None:
    """A lost race is told; a class keeps its value."""
    await rpc.queues.Create(queue_pb2.QueueServiceCreateRequest(queue=queue("a")))
    read = await rpc.queues.Get(queue_pb2.QueueServiceGetRequest(name="a"))
    refusal = await refused(rpc.queues.Update(queue_pb2.QueueServiceUpdateRequest(queue=queue("a"))))
    assert refusal.fields == ["queue.metadata.resourceVersion"]
    read.spec.weight = 3
    updated = await rpc.queues.Update(queue_pb2.QueueServiceUpdateRequest(queue=read))
    assert updated.queue.spec.weight == 3
    lost = await refused(rpc.queues.Update(queue_pb2.QueueServiceUpdateRequest(queue=read)))
    assert (lost.code, lost.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    await rpc.apply_text(TREE)
    fixed = await refused(rpc.apply_text(TREE.replace("value: 1000", "value: 1001").replace("Never", "")))
    assert fixed.fields == ["document[3].value", "document[3].preemptionPolicy"]


async def test_a_queue_in_use_stays(rpc: Harness) -> None:
    """Children and sets hold it; together they may go; a set that is being deleted holds nothing."""
    await rpc.apply_text(f"{TREE}---{SET}")
    for name, user in (("products", "Queue search"), ("search", "PodCliqueSet default/chat")):
        refusal = await refused(rpc.queues.Delete(queue_pb2.QueueServiceDeleteRequest(names=[name])))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "QUEUE_IN_USE")
        assert user in refusal.message
    both = queue_pb2.QueueServiceDeleteRequest(names=["products", "search"])
    assert (await refused(rpc.queues.Delete(both))).reason == "QUEUE_IN_USE"
    done = await rpc.manifests.Delete(manifest_pb2.ManifestServiceDeleteRequest(manifest=f"{TREE}---{SET}"))
    assert [each.action for each in done.results] == ["deleted"] * 4
    assert list((await rpc.queues.List(queue_pb2.QueueServiceListRequest())).items) == []


async def test_what_is_built_in_stays(rpc: Harness) -> None:
    """The default queue can be changed and neither of them deleted, by name or by manifest."""
    await rpc.put(*BUILT_IN_CLASSES, BUILT_IN_QUEUE)
    changed = await rpc.queues.Apply(queue_pb2.QueueServiceApplyRequest(queue=queue("default", weight=2.0)))
    assert changed.action == "configured"
    refusals = [
        await refused(rpc.queues.Delete(queue_pb2.QueueServiceDeleteRequest(names=["default"]))),
        await refused(
            rpc.priority_classes.Delete(
                priority_class_pb2.PriorityClassServiceDeleteRequest(names=["system-node-critical"])
            )
        ),
        await refused(
            rpc.manifests.Delete(
                manifest_pb2.ManifestServiceDeleteRequest(
                    manifest="{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: default}}"
                )
            )
        ),
    ]
    assert [(each.code, each.reason) for each in refusals] == [(grpc.StatusCode.FAILED_PRECONDITION, "BUILT_IN")] * 3


async def test_a_broken_tree_does_not_lock_the_queues(rpc: Harness) -> None:
    """Two changes at the same moment can make a circle; either queue can be moved out of it, and be deleted."""
    circle = [
        Queue(metadata=Metadata(name=name), spec=Queue(metadata=Metadata(name=name)).spec) for name in ("one", "two")
    ]
    await rpc.put(*circle)
    moved = queue_pb2.QueueServiceApplyRequest(queue=queue("one", parent="two"))
    assert (await rpc.queues.Apply(moved)).action == "configured"
    refusal = await refused(rpc.queues.Apply(queue_pb2.QueueServiceApplyRequest(queue=queue("two", parent="one"))))
    assert refusal.fields == ["spec.parent"]


async def test_classes_and_queues_have_watches_and_stories(rpc: Harness) -> None:
    """A watch begins with what is there; a story tells who changed it."""
    await rpc.apply_text(TREE)
    watch = rpc.queues.Watch(queue_pb2.QueueServiceWatchRequest())
    seen = [await watch.read() for _ in range(3)]
    watch.cancel()
    assert [step.type for step in seen if isinstance(step, queue_pb2.QueueServiceWatchResponse)] == [
        "ADDED",
        "ADDED",
        "SYNCED",
    ]
    stories = story_pb2_grpc.StoryServiceStub(rpc.channel)
    for kind, name in (("Queue", "search"), ("PriorityClass", "high")):
        story = await stories.Get(story_pb2.StoryServiceGetRequest(kind=kind, name=name))
        assert story.involved_object.kind == kind


@pytest.mark.parametrize("text", [TREE, "{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: a}}"])
async def test_a_set_with_an_unknown_queue_is_told_so(rpc: Harness, text: str) -> None:
    """It is admitted with warnings; where its queue exists there is none about it."""
    request = sample_set("demo", labels={"kai.scheduler/queue": "search"})
    first = await rpc.apply_text(SET)
    assert ["QueueUnknown" in warning for warning in first.results[0].warnings] == [True, False]
    assert request.metadata.labels["kai.scheduler/queue"] == "search"
    await rpc.apply_text(text)
    warnings = (await rpc.apply("demo", labels={"kai.scheduler/queue": "search"})).warnings
    assert any("QueueUnknown" in warning for warning in warnings) == ("search" not in text)


async def test_two_moves_at_once_make_no_circle(rpc: Harness) -> None:
    """Of two changes at the same moment that would make a circle together one is refused, as if it came later."""
    for name in ("one", "two", "three"):
        await rpc.queues.Apply(queue_pb2.QueueServiceApplyRequest(queue=queue(name)))
    below = queue("three", parent="two")
    await rpc.queues.Apply(queue_pb2.QueueServiceApplyRequest(queue=below))
    moves = [queue("one", parent="three"), queue("two", parent="one")]
    answers = await asyncio.gather(
        *(rpc.queues.Apply(queue_pb2.QueueServiceApplyRequest(queue=each)) for each in moves), return_exceptions=True
    )
    assert sum(isinstance(each, BaseException) for each in answers) == 1
    parents = {}
    for name in ("one", "two"):
        parents[name] = (await rpc.queues.Get(queue_pb2.QueueServiceGetRequest(name=name))).spec.parent
    assert sorted(parents.values()) in (["", "three"], ["", "one"])
