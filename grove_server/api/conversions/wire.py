"""Protobuf's wire form, as far as answers are put together from parts that are serialized already.

A list is its items' bytes behind a tag each, a watch event the object's bytes and a token; neither needs the message
classes. Structs (pod specs) are written directly as well, because filling google.protobuf.Struct field by field in
Python costs several times as much. Source: protobuf.dev, Encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from google.protobuf import struct_pb2

# The bit that says that more bytes of a varint follow; seven bits of the number go into each.
_MORE: Final = 0x80
_SMALL: Final = tuple(bytes((n,)) if n < _MORE else bytes((n & 0x7F | _MORE, n >> 7)) for n in range(1 << 14))
_LENGTH_DELIMITED: Final = 2
_DOUBLE: Final = struct.Struct("<d")
_NULL: Final = b"\x08\x00"
_TRUE: Final = b"\x20\x01"
_FALSE: Final = b"\x20\x00"
# google.protobuf messages nest three deep per map; parsers stop at 100.
STRUCT_NESTING_MAX: Final = 24


# Longer strings (scripts, certificates) are not worth remembering.
_REMEMBERED_LENGTH_MAX: Final = 64


class NestingError(ValueError):
    """A value is nested deeper than clients could read."""


def varint(number: int) -> bytes:
    """Return the encoding of a number of 0 or more."""
    if number < len(_SMALL):
        return _SMALL[number]
    parts = bytearray()
    while number >= _MORE:
        parts.append(number & 0x7F | _MORE)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def tag(field_number: int) -> bytes:
    """Return the tag of a length-delimited field (messages, strings, bytes)."""
    return varint(field_number << 3 | _LENGTH_DELIMITED)


def text(field_number: int, value: str) -> bytes:
    """Return a string field; nothing for the empty string, as proto3 does."""
    if not value:
        return b""
    encoded = value.encode()
    return tag(field_number) + varint(len(encoded)) + encoded


def nested(field_number: int, payload: bytes) -> bytes:
    """Return a message field."""
    return tag(field_number) + varint(len(payload)) + payload


def struct_bytes(mapping: Mapping[str, Any], depth: int = 1) -> bytes:
    """Return *mapping* (JSON values) as a serialized google.protobuf.Struct. Raises NestingError."""
    if depth > STRUCT_NESTING_MAX:
        raise NestingError(f"nested more than {STRUCT_NESTING_MAX} deep")
    parts: list[bytes] = []
    for key, value in mapping.items():
        payload = _value_bytes(value, depth)
        entry = b"".join((_key_bytes(key), b"\x12", varint(len(payload)), payload))
        parts += (b"\x0a", varint(len(entry)), entry)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _key_bytes(key: str) -> bytes:
    """Return a map's key field; pod specs use the same few hundred keys over and over."""
    return text(1, key) or b"\x0a\x00"


@lru_cache(maxsize=8192)
def _string_bytes(value: str) -> bytes:
    """Return a string value; the short ones of a pod spec are mostly the same from pod to pod."""
    encoded = value.encode()
    return b"\x1a" + varint(len(encoded)) + encoded


def _value_bytes(value: Any, depth: int) -> bytes:  # noqa: ANN401 -- JSON
    match value:
        case str():
            if len(value) <= _REMEMBERED_LENGTH_MAX:
                return _string_bytes(value)
            encoded = value.encode()
            return b"\x1a" + varint(len(encoded)) + encoded
        case dict():
            payload = struct_bytes(value, depth + 1)
            return b"\x2a" + varint(len(payload)) + payload
        case list() | tuple():
            payload = _list_bytes(value, depth + 1)
            return b"\x32" + varint(len(payload)) + payload
        case None:
            return _NULL
        case True:
            return _TRUE
        case False:
            return _FALSE
        case int() | float():
            return b"\x11" + _DOUBLE.pack(value)
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON value")


def _list_bytes(values: Sequence[Any], depth: int) -> bytes:
    if depth > STRUCT_NESTING_MAX:
        raise NestingError(f"nested more than {STRUCT_NESTING_MAX} deep")
    parts: list[bytes] = []
    for value in values:
        payload = _value_bytes(value, depth)
        parts += (b"\x0a", varint(len(payload)), payload)
    return b"".join(parts)


def too_deep(value: Any, depth: int = 1) -> tuple[str | int, ...] | None:  # noqa: ANN401 -- JSON
    """Return keys and indices that lead to the first part of a JSON *value* nested too deep for a Struct, if any."""
    if not isinstance(value, dict | list | tuple):
        return None
    if depth > STRUCT_NESTING_MAX:
        return ()
    items: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        found = too_deep(part, depth + 1)
        if found is not None:
            return (key, *found)
    return None


def to_struct(mapping: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return *mapping* as a Struct message."""
    return struct_pb2.Struct.FromString(struct_bytes(mapping))
