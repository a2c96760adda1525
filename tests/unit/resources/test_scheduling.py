"""What a priority class stands for, and which queue a set is in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.placement.queue_objects import queue_specs
from grove_server.placement.queues import QueueTree
from grove_server.resources.codec import decode, encode
from grove_server.resources.meta import Metadata
from grove_server.resources.priority import PriorityClass, ResolvedPriority, priority_of, resolve_priority
from grove_server.resources.queues import Queue, QueueSpec, queue_of, queue_problem, sound_queues
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import PodCliqueSet, PodGang
from tests.manifest_cases import admit, changed, clique, pod_clique_set, setting

NO_TEMPLATES: dict[str, SharedTemplate] = {}
CLASSES = {
    name: PriorityClass(metadata=Metadata(name=name), value=value, global_default=is_default, preemption_policy=policy)
    for name, value, is_default, policy in (
        ("high", 1000, False, "Never"),
        ("usual", 10, True, "PreemptLowerPriority"),
        ("raced", 20, True, "PreemptLowerPriority"),
    )
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("high", ResolvedPriority(value=1000, name="high", preemption_policy="Never")),
        ("", ResolvedPriority(value=10, name="usual")),
        ("system-node-critical", ResolvedPriority(value=2_000_001_000, name="system-node-critical")),
        ("nobody", ResolvedPriority(name="nobody", is_known=False)),
    ],
)
def test_a_class_stands_for_a_priority(name: str, expected: ResolvedPriority) -> None:
    """Of two defaults the lower counts; what is built in needs no object; an unknown class is 0."""
    assert resolve_priority(name, CLASSES) == expected
    assert resolve_priority("", {}) == ResolvedPriority()


def test_a_class_that_is_gone_leaves_the_priority() -> None:
    """As pods keep theirs in Kubernetes."""
    gang = PodGang(
        metadata=Metadata(name="g"),
        set_name="s",
        set_uid="u",
        copy=0,
        pod_groups=(),
        priority_class_name="high",
        priority=7,
        preemption_policy="Never",
    )
    assert priority_of(gang, CLASSES).value == 1000
    gone = priority_of(gang, {})
    assert (gone.value, gone.may_preempt, gone.is_known) == (7, False, False)


def named(labels: dict[str, str], annotations: dict[str, str], of_clique: dict[str, str]) -> PodCliqueSet:
    """Return a set with these labels and annotations; the clique's are labels."""
    member = clique("a") | {"labels": of_clique}
    manifest = pod_clique_set(cliques=[clique("first"), member], podCliqueScalingGroups=[])
    manifest = changed(manifest, setting("metadata.labels", labels))
    return admit(changed(manifest, setting("metadata.annotations", annotations))).resource


@pytest.mark.parametrize(
    ("labels", "annotations", "of_clique", "expected"),
    [
        ({}, {}, {}, "default"),
        ({"grove.io/queue": ""}, {}, {}, "default"),
        ({"grove.io/queue": "a"}, {"grove.io/queue": "b", "kai.scheduler/queue": "c"}, {}, "a"),
        ({"kai.scheduler/queue": "c"}, {"grove.io/queue": "b"}, {}, "b"),
        ({"kai.scheduler/queue": "c"}, {"kai.scheduler/queue": "d"}, {}, "c"),
        ({}, {"kai.scheduler/queue": "d"}, {}, "d"),
        ({}, {}, {"kai.scheduler/queue": "e"}, "e"),
    ],
)
def test_the_first_name_counts(
    labels: dict[str, str], annotations: dict[str, str], of_clique: dict[str, str], expected: str
) -> None:
    """Label before annotation, our key before KAI's, the set before its cliques."""
    assert queue_of(named(labels, annotations, of_clique)) == expected


SPECS = {
    "top": QueueSpec(),
    "leaf": QueueSpec(parent="top", guarantee={"cpu": "500m", "memory": "1Gi"}, earmark_after="1m30s"),
    "lost": QueueSpec(parent="nobody"),
    "one": QueueSpec(parent="two"),
    "two": QueueSpec(parent="one"),
}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("default", ""),
        ("leaf", ""),
        ("top", "QueueNotLeaf"),
        ("nobody", "QueueUnknown"),
        ("lost", "QueueUnknown"),
        ("one", "QueueUnknown"),
    ],
)
def test_a_queue_takes_gangs_or_there_is_a_reason(name: str, reason: str) -> None:
    """Leaves from which a way leads to the top take gangs."""
    problem = queue_problem(name, SPECS)
    assert (problem[0] if problem else "") == reason


def test_broken_queues_do_not_break_the_tree() -> None:
    """Orphans and circles are left out, the default queue is added, and amounts are in placement's units."""
    assert list(sound_queues(SPECS)) == ["default", "leaf", "top"]
    specs = queue_specs([Queue(metadata=Metadata(name=name), spec=spec) for name, spec in SPECS.items()])
    tree = QueueTree(specs)
    leaf = tree.spec("leaf")
    assert (leaf.guarantee, leaf.earmark_after_s) == ({"cpu": 500, "memory": 1 << 30}, 90.0)
    assert tree.lineage("leaf") == ["leaf", "top"]
    never = Queue(metadata=Metadata(name="n"), spec=QueueSpec(earmark_after="never", blocking="Strict"))
    assert tree.spec("default").earmark_after_s == 300.0
    (_, spec) = queue_specs([never])
    assert (spec.earmark_after_s, spec.blocking.value) == (None, "Strict")


def test_rows_come_back_as_they_went() -> None:
    """Classes and queues are stored without loss."""
    queue = Queue(metadata=Metadata(name="q", uid="u"), spec=SPECS["leaf"])
    queue = replace(queue, status=replace(queue.status, used={"cpu": "1"}, pending_gangs=3))
    for resource in (queue, CLASSES["high"]):
        assert decode(resource.kind, encode(resource), NO_TEMPLATES.__getitem__) == resource
