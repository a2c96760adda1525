"""Calls by name: finds the messages of a method in the generated descriptors, sends, and translates failures.

This is the only module that touches gRPC's call objects for unary calls; watches are in `watching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from grove.v1 import (
    autoscaler_pb2,
    cluster_topology_binding_pb2,
    container_pb2,
    debug_pb2,
    endpoint_pb2,
    event_pb2,
    manifest_pb2,
    node_pb2,
    placement_pb2,
    pod_clique_pb2,
    pod_clique_scaling_group_pb2,
    pod_clique_set_pb2,
    pod_gang_pb2,
    pod_pb2,
    priority_class_pb2,
    queue_pb2,
    scaling_policy_pb2,
    server_pb2,
    story_pb2,
)
from grove_client.deadlines import deadline_s
from grove_client.errors import from_rpc_error

_FILES: Final[tuple[FileDescriptor, ...]] = tuple(
    module.DESCRIPTOR
    for module in (
        autoscaler_pb2,
        cluster_topology_binding_pb2,
        container_pb2,
        debug_pb2,
        endpoint_pb2,
        event_pb2,
        manifest_pb2,
        node_pb2,
        placement_pb2,
        pod_clique_pb2,
        pod_clique_scaling_group_pb2,
        pod_clique_set_pb2,
        pod_gang_pb2,
        pod_pb2,
        priority_class_pb2,
        queue_pb2,
        scaling_policy_pb2,
        server_pb2,
        story_pb2,
    )
)


class Method(NamedTuple):
    """One RPC: its full name and the classes of its two messages."""

    name: str
    request: Callable[..., Message]
    response: type[Message]
    is_stream: bool


def _load_methods() -> dict[str, Method]:
    """Return every method of the package by its full name."""
    methods: dict[str, Method] = {}
    for file in _FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                name = f"/{service.full_name}/{method.name}"
                methods[name] = Method(
                    name,
                    GetMessageClass(method.input_type),
                    GetMessageClass(method.output_type),
                    method.server_streaming,
                )
    return methods


METHODS: Final = _load_methods()


def all_methods() -> list[str]:
    """Return the full names of all methods, sorted."""
    return sorted(METHODS)


class Caller:
    """Sends calls over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[Message, Message]] = {}

    async def call(self, name: str, fields: Mapping[str, object], timeout_s: float | None = None) -> Message:
        """Send a unary call; *fields* are those of its request. GroveError if it is refused.

        *timeout_s* replaces the method's default deadline.
        """
        method = METHODS[name]
        stub = self._unary.get(name)
        if stub is None:
            stub = self._unary[name] = self._channel.unary_unary(
                name, request_serializer=_serialize, response_deserializer=method.response.FromString
            )
        try:
            return await stub(method.request(**fields), timeout=deadline_s(name) if timeout_s is None else timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    def stream(self, name: str, fields: Mapping[str, object]) -> grpc.aio.UnaryStreamCall[Message, Message]:
        """Open a stream; *fields* are those of its request. It has no deadline: cancel it."""
        method = METHODS[name]
        stub = self._channel.unary_stream(
            name, request_serializer=_serialize, response_deserializer=method.response.FromString
        )
        return stub(method.request(**fields))

    def converse(self, name: str) -> grpc.aio.StreamStreamCall[Message, Message]:
        """Open a stream both ways. It has no deadline: cancel it."""
        stub = self._channel.stream_stream(
            name, request_serializer=_serialize, response_deserializer=METHODS[name].response.FromString
        )
        return stub()


def _serialize(message: Message) -> bytes:
    """Return the wire form of a request."""
    return message.SerializeToString()
