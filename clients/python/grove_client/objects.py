"""Messages as plain Kubernetes objects: what `-o json` prints and what programs without protobuf types want.

The same as protobuf's own JSON form with three differences: whole numbers are whole (30, never 30.0, also inside a
Struct), maps are sorted by key so that equal objects print equally, and fields that this client does not know are
reported instead of dropped unseen.
"""

from __future__ import annotations

from typing import Final, TypeAlias, cast

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_STRUCT: Final = "google.protobuf.Struct"
_VALUE: Final = "google.protobuf.Value"
_LIST: Final = "google.protobuf.ListValue"

# Largest whole number that a double holds exactly; beyond it a float stays a float.
_EXACT_MAX: Final = 2**53


def to_object(message: Message) -> dict[str, Json]:
    """Return the Kubernetes object that *message* mirrors."""
    result: dict[str, Json] = {}
    for field, value in message.ListFields():
        result[field.json_name] = _field(field, value)
    return result


def has_unknown_fields(message: Message) -> bool:
    """Return whether the server sent fields that this client has no name for, at any depth."""
    if len(UnknownFieldSet(message)) > 0:
        return True
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name in {_STRUCT, _VALUE, _LIST}:
            continue
        if field.message_type.GetOptions().map_entry:
            continue
        parts = value if field.is_repeated else [value]
        if any(has_unknown_fields(part) for part in parts):
            return True
    return False


def from_struct(struct: struct_pb2.Struct) -> dict[str, Json]:
    """Return the plain form of a Struct."""
    return {key: _value(struct.fields[key]) for key in sorted(struct.fields)}


def _field(field: FieldDescriptor, value: object) -> Json:
    """Return the plain form of one set field."""
    kind = field.message_type
    if kind is None:
        if field.is_repeated:
            return [_scalar(item) for item in cast("list[Json]", value)]
        return _scalar(cast("Json", value))
    if kind.GetOptions().map_entry:
        entries = cast("dict[str, Json | Message]", value)
        return {key: _entry(entries[key]) for key in sorted(entries)}
    if field.is_repeated:
        return [_message(item) for item in cast("list[Message]", value)]
    return _message(cast("Message", value))


def _entry(value: Json | Message) -> Json:
    """Return the plain form of what a map holds."""
    return _message(value) if isinstance(value, Message) else _scalar(value)


def _message(message: Message) -> Json:
    """Return the plain form of a nested message."""
    if isinstance(message, struct_pb2.Struct):
        return from_struct(message)
    if isinstance(message, struct_pb2.Value):
        return _value(message)
    return to_object(message)


def _value(value: struct_pb2.Value) -> Json:
    """Return the plain form of a Value."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _scalar(value.number_value)
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    if kind == "bool_value":
        return value.bool_value
    return None


def _scalar(value: Json) -> Json:
    """Return *value*, a whole float as an int."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_MAX:
        return int(value)
    return value
