"""Admission of Queues: their own fields, and their place in the tree."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.admission.findings import InvalidResourceError
from grove_server.resources.labels import PREEMPTION_DELAY
from grove_server.resources.queues import QueueSpec
from grove_server.resources.schema import SchemaError
from tests.manifest_cases import Json, admit, changed, clique, pod_clique_set, setting, told, violations_of
from tests.queue_cases import GPU, admit_queue_among, queue, world_of


def refusals(manifest: Json, *others: Json) -> dict[str, str]:
    """Return path and reason of everything that is wrong with a queue."""
    try:
        admit_queue_among(manifest, *others)
    except (SchemaError, InvalidResourceError) as error:
        return dict(told(error.violations))
    return {}


def test_defaults_are_filled_in_and_quantities_are_spelled_alike() -> None:
    """An empty spec is legal; numbers and texts are the same quantity."""
    plain = admit_queue_among(queue("a"))
    assert plain.resource.spec == QueueSpec()
    assert (plain.resource.spec.weight, plain.resource.spec.blocking, plain.resource.spec.earmark_after) == (
        1.0,
        "SkipAhead",
        "5m0s",
    )
    first = admit_queue_among(queue("a", limit={GPU: 8, "cpu": "1500m", "memory": "1024Mi"}, earmarkAfter="90s"))
    assert first.resource.spec.limit == {"cpu": "1500m", "memory": "1Gi", GPU: "8"}
    assert first.resource.spec.earmark_after == "1m30s"
    again = queue("a", limit={"memory": "1Gi", GPU: "8", "cpu": 1.5}, earmarkAfter="1m30s")
    assert not admit_queue_among(again, old=first.resource).changed


def test_everything_is_told_at_once() -> None:
    """Each wrong field has its own path."""
    spec: dict[str, Any] = {
        "parent": "nobody",
        "guarantee": {GPU: 9, "cpu": "x", "gpu": 1},
        "limit": {GPU: 8, "memory": -1, "nvidia.com/mig": "0.5"},
        "weight": -1,
        "priority": 2**31,
        "blocking": "Sometimes",
        "earmarkAfter": "soon",
    }
    assert set(refusals(changed(queue("A.b", **spec), setting("metadata.namespace", "x")))) == {
        "metadata.name",
        "metadata.namespace",
        "spec.parent",
        f"spec.guarantee[{GPU}]",
        "spec.guarantee[cpu]",
        "spec.guarantee[gpu]",
        "spec.limit[memory]",
        "spec.limit[nvidia.com/mig]",
        "spec.weight",
        "spec.priority",
        "spec.blocking",
        "spec.earmarkAfter",
    }


@pytest.mark.parametrize("weight", [0, 0.001, 2.5, 10_000])
def test_weights_are_0_or_within_bounds(weight: float) -> None:
    """0 means that the queue never borrows."""
    assert admit_queue_among(queue("a", weight=weight)).resource.spec.weight == weight


@pytest.mark.parametrize("weight", [0.0001, 10_001, -1])
def test_other_weights_are_refused(weight: float) -> None:
    """They would starve a queue by rounding, or all others."""
    assert list(refusals(queue("a", weight=weight))) == ["spec.weight"]


@pytest.mark.parametrize("text", ["never", "0s", "1h"])
def test_earmarks_come_after_a_while_or_never(text: str) -> None:
    """The word is kept, the rest are durations."""
    spec = admit_queue_among(queue("a", earmarkAfter=text)).resource.spec
    assert spec.earmark_after in {"never", "0s", "1h0m0s"}


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "no Queue"),
        ([queue("b", parent="a")], "circle"),
        ([queue("b", parent="c"), queue("c", parent="a")], "circle"),
        ([queue("b", parent="q0"), *(queue(f"q{n}", parent=f"q{n + 1}") for n in range(14)), queue("q14")], "too deep"),
    ],
    ids=["unknown", "two", "three", "deep"],
)
def test_a_way_has_to_lead_to_the_top(others: list[Json], said: str) -> None:
    """Unknown parents, circles and towers are refused at spec.parent."""
    assert said in refusals(queue("a", parent="b"), *others)["spec.parent"]


def test_a_tower_of_16_is_legal() -> None:
    """One more would not be."""
    tower = [*(queue(f"q{n}", parent=f"q{n + 1}") for n in range(14)), queue("q14")]
    assert admit_queue_among(queue("a", parent="q0"), *tower).resource.spec.parent == "q0"


def test_a_tree_that_is_moved_may_not_become_too_deep() -> None:
    """What counts is the deepest queue below the one that moves."""
    tower = [*(queue(f"q{n}", parent=f"q{n + 1}") for n in range(13)), queue("q13")]
    moved, child = queue("a", parent="q0"), queue("b", parent="a")
    assert refusals(moved, *tower, child) == {}
    assert "too deep" in refusals(moved, *tower, child, queue("c", parent="b"))["spec.parent"]


def test_the_default_queue_stands_alone() -> None:
    """It may be changed, but has neither a parent nor children; nor is a queue its own parent."""
    assert admit_queue_among(queue("default", weight=2, limit={GPU: 8})).resource.spec.weight == 2
    assert list(refusals(queue("default", parent="b"), queue("b"))) == ["spec.parent"]
    assert list(refusals(queue("a", parent="default"), queue("default"))) == ["spec.parent"]
    assert list(refusals(queue("a", parent="a"))) == ["spec.parent"]


def test_promises_beyond_what_the_parent_has_are_warned_of() -> None:
    """Whether a child promises more or the parent less; what adds up is not mentioned."""
    top, child = queue("top", guarantee={GPU: 8}), queue("b", parent="top", guarantee={GPU: 6})
    (warning,) = admit_queue_among(queue("a", parent="top", guarantee={GPU: 3}), top, child).warnings
    assert "the queues below top are guaranteed 9 of nvidia.com/gpu, top itself 8" in warning
    assert admit_queue_among(queue("a", parent="top", guarantee={GPU: 2}), top, child).warnings == ()
    (warning,) = admit_queue_among(queue("top", guarantee={GPU: 5}), child).warnings
    assert "guaranteed 6" in warning


def test_a_set_is_warned_of_a_queue_and_a_class_that_do_not_exist() -> None:
    """It is admitted all the same: manifests come in any order."""
    manifest = changed(pod_clique_set(priorityClassName="high"), setting("metadata.labels", {"grove.io/queue": "a"}))
    unknown, priority = admit(manifest).warnings
    assert "there is no queue a" in unknown
    assert "QueueUnknown" in unknown
    assert "there is no PriorityClass high" in priority
    (inner,) = admit(
        changed(manifest, setting("spec.template.priorityClassName", "system-node-critical")),
        context=world_of({"a": QueueSpec(), "b": QueueSpec(parent="a")}),
    ).warnings
    assert "QueueNotLeaf" in inner


def test_all_of_a_set_is_in_one_queue() -> None:
    """Cliques that name another queue are refused with the key that names it; a name that is none is, too."""
    first, second = clique("a"), clique("b")
    first["labels"] = {"kai.scheduler/queue": "one"}
    second["annotations"] = {"grove.io/queue": "two"}
    manifest = pod_clique_set(cliques=[first, second], podCliqueScalingGroups=[])
    assert [v.path for v in violations_of(manifest)] == ["spec.template.cliques[1].annotations[grove.io/queue]"]
    named = changed(manifest, setting("metadata.annotations", {"grove.io/queue": "Not One"}))
    assert "metadata.annotations[grove.io/queue]" in [v.path for v in violations_of(named)]


@pytest.mark.parametrize("delay", ["2m", "0s", "24h"])
def test_a_preemption_delay_of_a_day_at_most_is_fine(delay: str) -> None:
    """The annotation is taken as it is."""
    assert refusals(changed(queue("a"), setting("metadata.annotations", {PREEMPTION_DELAY: delay}))) == {}


@pytest.mark.parametrize("delay", ["25h", "-1s", "soon"])
def test_other_preemption_delays_are_refused(delay: str) -> None:
    """What is no duration, less than nothing or more than a day is refused with the annotation's path."""
    document = changed(queue("a"), setting("metadata.annotations", {PREEMPTION_DELAY: delay}))
    assert set(refusals(document)) == {f"metadata.annotations[{PREEMPTION_DELAY}]"}
