"""Admission of priority classes and queues, and of any tree of queues.

Goal: no document makes the rules fail in another way than by refusing it with paths; what was admitted is unchanged
when it is applied again and comes back from its row; and queues that are admitted together always make a tree. Method:
drawn values in drawn places of a full manifest, and drawn parents for a handful of queues.
"""

from __future__ import annotations

import copy
import json
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from grove_server.admission.findings import InvalidResourceError
from grove_server.admission.priority_class import admit_priority_class
from grove_server.admission.queue import admit_queue, queue_spec, read_queue
from grove_server.placement.queue_objects import queue_specs
from grove_server.placement.queues import QueueTree
from grove_server.resources.codec import decode, encode
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import DEFAULT_QUEUE, Queue, QueueSpec, sound_queues
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.schema import SchemaError, parse_priority_class, parse_queue
from tests.manifest_cases import CONTEXT, Json
from tests.queue_cases import GPU, admit_queue_among, priority_class, queue, world_of

CLASS: Final = priority_class(globalDefault=False, description="x", preemptionPolicy="Never")
QUEUE: Final = queue(
    "a",
    guarantee={GPU: 8, "cpu": "1500m"},
    limit={GPU: "8", "memory": "1Gi"},
    weight=2.5,
    priority=-1,
    blocking="Strict",
    earmarkAfter="90s",
)
NO_TEMPLATES: Final[dict[str, SharedTemplate]] = {}

nearly_right: Final = st.sampled_from(
    ["", "a", "A", "default", "system-a", "a" * 64, "1.5", "10Gi", "never", "0s", "-1s", "Never", "SkipAhead", "9" * 30]
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), nearly_right),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.one_of(nearly_right, st.sampled_from(["name", "cpu", GPU])), inner, max_size=2),
    ),
    max_leaves=4,
)


def places_in(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of each value in a document, but for the document itself."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places_in(item, (*path, key))
    return found


def put(manifest: Json, place: tuple[str, ...], value: object) -> bytes:
    """Return *manifest* with *value* at *place*, as JSON."""
    changed = copy.deepcopy(manifest)
    holder: Any = changed
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return json.dumps(changed).encode()


@given(st.sampled_from(places_in(CLASS)), values)
def test_any_class_is_admitted_or_refused(place: tuple[str, ...], value: object) -> None:
    """And what is admitted stays as it is."""
    data = put(CLASS, place, value)
    try:
        resource = admit_priority_class(parse_priority_class(data), None, CONTEXT).resource
    except (SchemaError, InvalidResourceError) as error:
        assert error.violations  # noqa: PT017 -- most documents are refused, some are not
        return
    assert not admit_priority_class(parse_priority_class(data), resource, CONTEXT).changed
    assert decode(PriorityClass.kind, encode(resource), NO_TEMPLATES.__getitem__) == resource


@given(st.sampled_from(places_in(QUEUE)), values)
def test_any_queue_is_admitted_or_refused(place: tuple[str, ...], value: object) -> None:
    """And what is admitted stays as it is, and makes a tree that placement takes."""
    data = put(QUEUE, place, value)
    try:
        manifest = parse_queue(data)
    except SchemaError as error:
        assert error.violations  # noqa: PT017 -- most documents are refused, some are not
        try:
            read_queue(data, CONTEXT)
        except SchemaError as again:
            assert {v.path for v in error.violations} <= {v.path for v in again.violations}  # noqa: PT017 -- as above
        return
    context = world_of({manifest.metadata.name: queue_spec(manifest.spec)})
    try:
        resource = admit_queue(manifest, None, context).resource
    except InvalidResourceError as error:
        assert error.violations  # noqa: PT017 -- as above
        return
    assert not admit_queue(manifest, resource, context).changed
    assert decode(Queue.kind, encode(resource), NO_TEMPLATES.__getitem__) == resource
    assert set(QueueTree(queue_specs([resource])).numbers) == {resource.metadata.name, DEFAULT_QUEUE}


NAMES: Final = ["a", "b", "c", "d", DEFAULT_QUEUE]


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", *NAMES, "nobody"])))
def test_queues_that_are_admitted_together_make_a_tree(parents: dict[str, str]) -> None:
    """Whatever their parents: either one of them is refused, or all are in the tree. What is sound is always a tree."""
    manifests = [queue(name, parent=parent) for name, parent in parents.items()]
    specs = {name: QueueSpec(parent=parent) for name, parent in parents.items()}
    resources: list[Queue] = []
    refused = 0
    for manifest in manifests:
        try:
            resources.append(admit_queue_among(manifest, *manifests).resource)
        except InvalidResourceError:
            refused += 1
    if not refused:
        assert set(sound_queues(specs)) == {*parents, DEFAULT_QUEUE}
    tree = QueueTree(queue_specs(resources))
    assert set(tree.numbers) <= {*parents, DEFAULT_QUEUE}
