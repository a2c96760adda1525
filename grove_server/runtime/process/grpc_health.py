"""One call of ``grpc.health.v1.Health/Check`` over a connection that is thrown away afterwards.

A probe asks one question of one byte or two, many times an hour for each pod; a whole gRPC channel for it costs ten
times the processor time of the bytes themselves. So they are written and read here: HTTP/2 with prior knowledge (RFC
9113), headers in HPACK (RFC 7541) without a dynamic table, the message by hand.

Rules: frames are at most 16 KiB and an answer at most 64 KiB; whatever is not understood of a header is passed over,
except ``grpc-status``; anything that is no HTTP/2 raises GrpcHealthError with words for people.

Not here: connecting, time limits (``probing``), other calls than this one.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_FRAME_BYTES_MAX: Final = 16_384
_ANSWER_BYTES_MAX: Final = 65_536
_FRAMES_MAX: Final = 256
_STREAM: Final = 1
_FRAME_HEAD_BYTES: Final = 9
# In front of a gRPC message: whether it is compressed, and its length.
_MESSAGE_HEAD_BYTES: Final = 5
# Protobuf: field 1 as a varint.
_STATUS_FIELD: Final = 0x08
_SEVEN_BITS: Final = 0x7F
# No length or index of HPACK is larger here than four more digits can say.
_INTEGER_SHIFT_MAX: Final = 28
# SETTINGS_HEADER_TABLE_SIZE 0, SETTINGS_ENABLE_PUSH 0.
_OUR_SETTINGS: Final = struct.pack(">HIHI", 1, 0, 2, 0)
# HPACK: indexed fields of the static table, and literals without indexing that take their name from it.
_POST, _HTTP = b"\x83", b"\x86"
_AUTHORITY, _PATH, _CONTENT_TYPE, _USER_AGENT = b"\x01", b"\x04", b"\x0f\x10", b"\x0f\x2b"
_NEW_NAME: Final = b"\x00"
# HPACK's Huffman code of the letters in "grpc-status" and of digits (RFC 7541, Appendix B), as (code, bits).
_HUFFMAN: Final = {
    "0": (0x0, 5),
    "1": (0x1, 5),
    "2": (0x2, 5),
    "3": (0x19, 6),
    "4": (0x1A, 6),
    "5": (0x1B, 6),
    "6": (0x1C, 6),
    "7": (0x1D, 6),
    "8": (0x1E, 6),
    "9": (0x1F, 6),
    "a": (0x3, 5),
    "c": (0x4, 5),
    "s": (0x8, 5),
    "t": (0x9, 5),
    "-": (0x16, 6),
    "g": (0x26, 6),
    "p": (0x2B, 6),
    "r": (0x2C, 6),
    "u": (0x2D, 6),
}
# google.rpc.Code.
_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING: Final = "SERVING"


class GrpcHealthError(Exception):
    """The call came to no health status; the text says why."""


@dataclass(slots=True)
class _Answer:
    """What has come so far."""

    body: bytearray = field(default_factory=bytearray)
    headers: bytearray = field(default_factory=bytearray)
    code: int | None = None
    is_last: bool = False
    is_whole: bool = False


async def check(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, authority: str, service: str, timeout_s: float
) -> str:
    """Return the status of *service* ("" for the server as a whole) in the words of the protocol, such as SERVING.

    *timeout_s* is told to the server; keeping it is the caller's. Raises GrpcHealthError, OSError and
    ``asyncio.IncompleteReadError``.
    """
    writer.write(_request(authority, service, timeout_s))
    answer = _Answer()
    size = 0
    for _ in range(_FRAMES_MAX):
        head = await reader.readexactly(_FRAME_HEAD_BYTES)
        length = int.from_bytes(head[:3], "big")
        if length > _FRAME_BYTES_MAX:
            raise GrpcHealthError("the answer is no HTTP/2")
        size += length
        if size > _ANSWER_BYTES_MAX:
            raise GrpcHealthError(f"the answer is longer than {_ANSWER_BYTES_MAX} bytes")
        payload = await reader.readexactly(length)
        _take(answer, writer, head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload)
        if answer.is_whole:
            return _status(answer)
    raise GrpcHealthError("the answer does not come to an end")


def _request(authority: str, service: str, timeout_s: float) -> bytes:
    headers = b"".join(
        (
            _POST,
            _HTTP,
            _PATH + _text(b"/grpc.health.v1.Health/Check"),
            _AUTHORITY + _text(authority.encode("ascii", "replace")),
            _CONTENT_TYPE + _text(b"application/grpc"),
            _USER_AGENT + _text(b"grove-probe"),
            _NEW_NAME + _text(b"te") + _text(b"trailers"),
            _NEW_NAME + _text(b"grpc-timeout") + _text(b"%dm" % max(1, min(int(timeout_s * 1000), 99_999_999))),
        )
    )
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    # NB: a service name longer than a frame would have to be cut in pieces; Kubernetes bounds it far below that.
    if len(body) > _FRAME_BYTES_MAX:
        raise GrpcHealthError("the name of the service is too long")
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, _OUR_SETTINGS),
            _frame(_HEADERS, _END_HEADERS, _STREAM, headers),
            _frame(_DATA, _END_STREAM, _STREAM, body),
        )
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: bytes) -> bytes:
    """Return a string literal of HPACK without Huffman coding."""
    if len(value) < _SEVEN_BITS:
        return bytes((len(value),)) + value
    return bytes((_SEVEN_BITS,)) + _varint(len(value) - _SEVEN_BITS) + value


def _varint(value: int) -> bytes:
    """Return base-128 digits, lowest first: the form of both protobuf and HPACK's long integers."""
    digits = bytearray()
    while value > _SEVEN_BITS:
        digits.append(value & _SEVEN_BITS | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _take(answer: _Answer, writer: asyncio.StreamWriter, kind: int, flags: int, stream: int, payload: bytes) -> None:
    if kind == _SETTINGS and not flags & _ACK:
        writer.write(_frame(_SETTINGS, _ACK, 0, b""))
    elif kind == _PING and not flags & _ACK:
        writer.write(_frame(_PING, _ACK, 0, payload))
    elif kind == _GOAWAY:
        raise GrpcHealthError("the server ends the connection (GOAWAY)")
    elif stream != _STREAM:
        return
    elif kind == _RST_STREAM:
        raise GrpcHealthError(f"the server ends the call (RST_STREAM, error {int.from_bytes(payload[:4], 'big')})")
    elif kind == _DATA:
        answer.body += _unpadded(flags, payload)
        answer.is_whole = bool(flags & _END_STREAM)
    elif kind in (_HEADERS, _CONTINUATION):
        if kind == _HEADERS:
            block = _unpadded(flags, payload)
            answer.headers = bytearray(block[5:] if flags & _PRIORITY else block)
            # The stream's end is said in the first frame of a block that may go on.
            answer.is_last = bool(flags & _END_STREAM)
        else:
            answer.headers += payload
        if flags & _END_HEADERS:
            code = _grpc_status(bytes(answer.headers))
            answer.code = answer.code if code is None else code
            answer.is_whole = answer.is_last


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise GrpcHealthError("the answer is no HTTP/2")
    return payload[1 : len(payload) - payload[0]]


def _status(answer: _Answer) -> str:
    if answer.code is not None and answer.code > 0:
        name = _CODES[answer.code] if answer.code < len(_CODES) else str(answer.code)
        raise GrpcHealthError(f"the server answers {name}")
    body = bytes(answer.body)
    message = body[_MESSAGE_HEAD_BYTES:]
    if len(body) < _MESSAGE_HEAD_BYTES or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(message):
        raise GrpcHealthError("the server answers no health status")
    if not message:
        return _STATUSES[0]
    if message[0] != _STATUS_FIELD or not 0 <= int.from_bytes(message[1:], "big") < len(_STATUSES):
        raise GrpcHealthError("the server answers a status that is not known")
    return _STATUSES[int.from_bytes(message[1:], "big")]


# HPACK, as far as one header needs it.


def _huffman(text: str) -> bytes:
    """Return HPACK's Huffman form of *text*, padded with ones."""
    bits = "".join(f"{code:0{length}b}" for code, length in (_HUFFMAN[character] for character in text))
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


_GRPC_STATUS: Final = (b"grpc-status", _huffman("grpc-status"))
_NUMBERS: Final = {form: code for code in range(len(_CODES)) for form in (str(code).encode(), _huffman(str(code)))}


def _grpc_status(block: bytes) -> int | None:
    """Return the ``grpc-status`` of a header block; None if it has none, -1 if it cannot be read."""
    position = 0
    try:
        while position < len(block):
            first = block[position]
            if first & 0x80:
                _, position = _integer(block, position, 7)
                continue
            if not first & 0xC0 and first & 0x20:
                _, position = _integer(block, position, 5)
                continue
            index, position = _integer(block, position, 6 if first & 0x40 else 4)
            name = b""
            if index == 0:
                name, position = _string(block, position)
            value, position = _string(block, position)
            if name in _GRPC_STATUS:
                return _NUMBERS.get(value, -1)
    except IndexError as error:
        raise GrpcHealthError("the headers of the answer cannot be read") from error
    return None


def _integer(block: bytes, position: int, prefix_bits: int) -> tuple[int, int]:
    most = (1 << prefix_bits) - 1
    value = block[position] & most
    position += 1
    if value < most:
        return value, position
    shift = 0
    while True:
        digit = block[position]
        position += 1
        value += (digit & _SEVEN_BITS) << shift
        shift += 7
        if not digit & 0x80:
            return value, position
        if shift > _INTEGER_SHIFT_MAX:
            raise IndexError(position)


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    length, start = _integer(block, position, 7)
    end = start + length
    if end > len(block):
        raise IndexError(end)
    return block[start:end], end
