"""KEDA's external scaler: whoever scales with KEDA can take our sizes, as a metric with the target 1.

The messages and the service are those of KEDA's ``externalscaler.proto``, described here in so many words: they are
few, and the contract of this project does not depend on them. A size that is not known, or was decided too long ago,
is refused and never 0: KEDA's fallback says what then. Scaler metadata: ``policy`` and ``role``; ``copy`` (0),
``namespace`` (the ScaledObject's).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from autoscaler.decision import RoleDecision
from autoscaler.service.journal import Journal

SERVICE: Final = "externalscaler.ExternalScaler"
_OLD_TICKS: Final = 4.0
_TYPES: Final[Mapping[str, int]] = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
}
# Fields in the order of their numbers; a star means repeated, a name with a capital a message.
_MESSAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "ScaledObjectRef": {
        "name": "string",
        "namespace": "string",
        "scalerMetadata": "*ScaledObjectRef.ScalerMetadataEntry",
    },
    "IsActiveResponse": {"result": "bool"},
    "MetricSpec": {"metricName": "string", "targetSize": "int64", "targetSizeFloat": "double"},
    "GetMetricSpecResponse": {"metricSpecs": "*MetricSpec"},
    "GetMetricsRequest": {"scaledObjectRef": "ScaledObjectRef", "metricName": "string"},
    "MetricValue": {"metricName": "string", "metricValue": "int64", "metricValueFloat": "double"},
    "GetMetricsResponse": {"metricValues": "*MetricValue"},
}


def _classes() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="externalscaler.proto", package="externalscaler", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            _add_field(message, field, number, kind)
    reference = file.message_type[0]
    entry = reference.nested_type.add(name="ScalerMetadataEntry")
    entry.options.map_entry = True
    for number, field in enumerate(("key", "value"), start=1):
        _add_field(entry, field, number, "string")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name).message_types_by_name
    return {name: message_factory.GetMessageClass(found[name]) for name in _MESSAGES}


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, json_name=name)
    field.label = (
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        if kind.startswith("*")
        else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    )
    kind = kind.removeprefix("*")
    if kind in _TYPES:
        field.type = _TYPES[kind]  # type: ignore[assignment]  # the stubs have an enumeration of their own
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".externalscaler.{kind}"


CLASSES: Final = _classes()
_Context = grpc.aio.ServicerContext[Any, Any]


class Keda:
    """Answers KEDA from the last decisions."""

    def __init__(self, journal: Journal, now: Callable[[], float], *, tick_s: float) -> None:
        self._journal = journal
        self._now = now
        self._tick_s = tick_s

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server takes."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        reference, metrics = CLASSES["ScaledObjectRef"].FromString, CLASSES["GetMetricsRequest"].FromString
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "IsActive": unary(self._is_active, reference, _bytes),
                "StreamIsActive": stream(self._stream_is_active, reference, _bytes),
                "GetMetricSpec": unary(self._metric_spec, reference, _bytes),
                "GetMetrics": unary(self._metrics, metrics, _bytes),
            },
        )

    async def _is_active(self, reference: Any, context: _Context) -> Message:  # noqa: ANN401 -- a class made at run time
        role = await self._role(reference, context)
        return CLASSES["IsActiveResponse"](result=role.replicas > 0)

    async def _stream_is_active(self, reference: Any, context: _Context) -> AsyncIterator[Message]:  # noqa: ANN401 -- as above
        told: bool | None = None
        while True:
            is_active = (await self._role(reference, context)).replicas > 0
            if is_active is not told:
                told = is_active
                yield CLASSES["IsActiveResponse"](result=is_active)
            await asyncio.sleep(self._tick_s / 2)

    async def _metric_spec(self, reference: Any, context: _Context) -> Message:  # noqa: ANN401 -- as above
        policy, role = await _named(reference, context)
        spec = CLASSES["MetricSpec"](metricName=_metric_name(policy, role), targetSize=1, targetSizeFloat=1.0)
        return CLASSES["GetMetricSpecResponse"](metricSpecs=[spec])

    async def _metrics(self, request: Any, context: _Context) -> Message:  # noqa: ANN401 -- as above
        role = await self._role(request.scaledObjectRef, context)
        value = CLASSES["MetricValue"](
            metricName=request.metricName, metricValue=role.replicas, metricValueFloat=float(role.replicas)
        )
        return CLASSES["GetMetricsResponse"](metricValues=[value])

    async def _role(self, reference: Any, context: _Context) -> RoleDecision:  # noqa: ANN401 -- as above
        """Return the last decision about the role that a ScaledObject speaks of."""
        policy, name = await _named(reference, context)
        namespace = reference.scalerMetadata.get("namespace") or reference.namespace or "default"
        copy = reference.scalerMetadata.get("copy") or "0"
        oldest = self._now() - _OLD_TICKS * self._tick_s
        found = next(
            (
                role
                for decision, _ in self._journal.of_policy(f"{namespace}/{policy}")
                if str(decision.copy) == copy and decision.at >= oldest
                for role in decision.roles
                if role.name == name
            ),
            None,
        )
        if found is None:
            message = f"nothing is decided about {namespace}/{policy} {name}, or it is too old"
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, message)
        return found


async def _named(reference: Any, context: _Context) -> tuple[str, str]:  # noqa: ANN401 -- as above
    policy, role = reference.scalerMetadata.get("policy", ""), reference.scalerMetadata.get("role", "")
    if not policy or not role:
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "metadata needs policy and role")
    return policy, role


def _metric_name(policy: str, role: str) -> str:
    return f"grove-{policy}-{role}"


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


async def _refuse(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")
