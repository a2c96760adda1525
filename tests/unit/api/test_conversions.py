"""Conversions against protobuf's own: what we write by hand must be what the library would write and read."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from grove.v1 import (
    cluster_topology_binding_pb2,
    event_pb2,
    node_pb2,
    pod_clique_pb2,
    pod_clique_scaling_group_pb2,
    pod_clique_set_pb2,
    pod_gang_pb2,
    pod_pb2,
    priority_class_pb2,
    queue_pb2,
)
from grove_server.api import reading, scaling, streams
from grove_server.api.conversions.explanations import amount_text
from grove_server.api.conversions.requests import plain
from grove_server.api.conversions.timestamps import rfc3339
from grove_server.api.conversions.wire import (
    STRUCT_NESTING_MAX,
    NestingError,
    struct_bytes,
    to_struct,
    too_deep,
    varint,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
MODULES = (
    cluster_topology_binding_pb2,
    event_pb2,
    node_pb2,
    pod_clique_pb2,
    pod_clique_scaling_group_pb2,
    pod_clique_set_pb2,
    pod_gang_pb2,
    pod_pb2,
    priority_class_pb2,
    queue_pb2,
)


def messages(suffix: str) -> list[type[Message]]:
    """Return all message classes of the contract whose name ends so."""
    return [
        getattr(module, name)
        for module in MODULES
        for name in module.DESCRIPTOR.message_types_by_name
        if name.endswith(suffix)
    ]


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_struct_comes_back_as_it_went(content: dict[str, Any]) -> None:
    """Any JSON map survives the way into a Struct and back; the library reads the same."""
    message = to_struct(content)
    assert plain(message) == content
    assert json_format.MessageToDict(message) == content


@given(st.integers(0, 2**40))
def test_varints_are_the_librarys(number: int) -> None:
    """A number is written as protobuf writes it."""
    length = len(varint(number))
    assert length == max(1, -(-number.bit_length() // 7))
    if number < 2**31:
        assert pod_clique_pb2.PodCliqueSpec.FromString(b"\x18" + varint(number)).replicas == number


def test_deep_structs_are_refused_before_clients_choke_on_them() -> None:
    """What is nested as deep as allowed can be read by clients, deeper is refused."""
    content: dict[str, Any] = {}
    for _ in range(STRUCT_NESTING_MAX - 1):
        content = {"a": content}
    assert isinstance(struct_pb2.Struct.FromString(struct_bytes(content)), struct_pb2.Struct)
    assert too_deep({"list": [content]}) == ("list", 0, *["a"] * (STRUCT_NESTING_MAX - 2))
    with pytest.raises(NestingError):
        struct_bytes({"a": content})


def test_whole_numbers_of_a_struct_are_restored() -> None:
    """30.0 becomes 30, 0.5 stays, and so does what no double can count exactly."""
    values = plain(to_struct({"a": 30, "b": 0.5, "c": 1e300, "d": -1.0}))
    assert values == {"a": 30, "b": 0.5, "c": 1e300, "d": -1}
    assert {key: type(value) for key, value in values.items()} == {"a": int, "b": float, "c": float, "d": int}


def test_requests_become_the_manifest_they_mirror() -> None:
    """The walk over a message gives what the library's JSON gives, whole numbers restored."""
    manifest = {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {
            "replicas": 0,
            "template": {
                "cliques": [{"name": "c", "spec": {"podSpec": {"n": 3, "l": [1, {"x": None}]}, "startsAfter": ["d"]}}],
                "headlessServiceConfig": {"publishNotReadyAddresses": False},
                "podCliqueScalingGroups": [{"name": "g", "scaleConfig": {"metrics": [{"type": "Resource"}]}}],
            },
        },
    }
    assert plain(json_format.ParseDict(manifest, pod_clique_set_pb2.PodCliqueSet())) == manifest


@pytest.mark.parametrize("response", messages("ServiceListResponse"))
def test_list_responses_number_their_fields_alike(response: type[Message]) -> None:
    """Lists are put together from bytes by these numbers."""
    numbers = {field.name: field.number for field in response.DESCRIPTOR.fields}
    assert numbers == dict(reading.field_numbers())


@pytest.mark.parametrize("response", messages("ServiceWatchResponse"))
def test_watch_responses_number_their_fields_alike(response: type[Message]) -> None:
    """Watch events are put together from bytes by these numbers."""
    numbers = {field.name: field.number for field in response.DESCRIPTOR.fields}
    fields = {"type": streams.TYPE_FIELD, "object": streams.OBJECT_FIELD, "resume_token": streams.TOKEN_FIELD}
    assert numbers == fields


@pytest.mark.parametrize("response", messages("ServiceScaleResponse"))
def test_scale_responses_number_their_fields_alike(response: type[Message]) -> None:
    """Scale answers are put together from bytes by these numbers."""
    numbers = {field.name: field.number for field in response.DESCRIPTOR.fields}
    assert numbers == {
        "previous": scaling.PREVIOUS_FIELD,
        "replicas": scaling.REPLICAS_FIELD,
        "scale_owner": scaling.OWNER_FIELD,
        "resource": scaling.RESOURCE_FIELD,
    }


@pytest.mark.parametrize(
    ("epoch_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.9996, "2023-11-14T22:13:21.000Z"),
        (1_700_000_000.123, "2023-11-14T22:13:20.123Z"),
    ],
)
def test_times_have_milliseconds(epoch_s: float, text: str) -> None:
    """Times are RFC 3339 in UTC, rounded to milliseconds."""
    assert rfc3339(epoch_s) == text


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("cpu", 1500, "1500m"),
        ("cpu", 2000, "2"),
        ("memory", 80 << 20, "80Mi"),
        ("memory", 3 << 30, "3Gi"),
        ("memory", 1000, "1000"),
        ("nvidia.com/gpu", 8, "8"),
    ],
)
def test_amounts_are_kubernetes_quantities(resource: str, amount: int, text: str) -> None:
    """Placement's whole numbers are shown as users write them."""
    assert amount_text(resource, amount) == text
