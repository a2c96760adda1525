"""From request messages to the JSON that the schema reads: the manifest as if it had come as text.

A walk over the fields that are set, with names and converters looked up once per message type; ``json_format`` would
cost ten times as much and turn whole numbers of a Struct into floats. Whole numbers are restored here: 30.0 in a Struct
is 30. Fields that this server does not know are an error, because a field that is dropped silently is a setting that
does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import orjson
from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from grove_server.api.reasons import ApiError, Reason
from grove_server.resources.meta import API_VERSIONS, Kind

# Beyond this, doubles skip whole numbers, so one cannot know that a whole number was meant.
_EXACT_MAX: Final = 2**53


def manifest_of(message: Message, kind: Kind) -> bytes:
    """Return the manifest in *message* as JSON; a request of one kind need not say apiVersion and kind again."""
    manifest = plain(message)
    manifest.setdefault("apiVersion", API_VERSIONS[kind])
    manifest.setdefault("kind", kind.value)
    return orjson.dumps(manifest)


def refuse_unknown_fields(message: Message) -> None:
    """Raise ApiError if *message* holds fields that this server does not know."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise ApiError(
            reason=Reason.INVALID_REQUEST,
            message="the request has fields that this server does not know; is the client newer than the server?",
        )


def plain(message: Message) -> Any:  # noqa: ANN401 -- JSON
    """Return *message* as JSON values under its JSON names."""
    if isinstance(message, struct_pb2.Struct):
        return _struct(message)
    if isinstance(message, struct_pb2.Value):
        return _value(message)
    table = _fields(message.DESCRIPTOR)
    return {name: convert(value) for field, value in message.ListFields() for name, convert in (table[field.number],)}


@cache
def _fields(descriptor: Descriptor) -> dict[int, tuple[str, Callable[[Any], Any]]]:
    return {field.number: (field.json_name, _converter(field)) for field in descriptor.fields}


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        if nested.fields_by_name["value"].message_type is None:
            return dict
        return _map_of_messages
    if field.is_repeated:
        return list if nested is None else _list_of_messages
    return _same if nested is None else plain


def _same(value: Any) -> Any:  # noqa: ANN401 -- JSON
    return value


def _list_of_messages(values: Any) -> list[Any]:  # noqa: ANN401 -- a repeated field
    return [plain(value) for value in values]


def _map_of_messages(values: Any) -> dict[str, Any]:  # noqa: ANN401 -- a map field
    return {key: plain(value) for key, value in values.items()}


def _struct(message: struct_pb2.Struct) -> dict[str, Any]:
    return {key: _value(value) for key, value in message.fields.items()}


def _value(value: struct_pb2.Value) -> Any:  # noqa: ANN401 -- JSON
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _EXACT_MAX else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _struct(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case _:
            return None
