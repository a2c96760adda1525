"""The health call on the wire: whatever a server of HTTP/2 may send, and what none may."""

from __future__ import annotations

import asyncio

import pytest

from grove_server.runtime.process.grpc_health import GrpcHealthError, _huffman, check

SETTINGS = bytes.fromhex("000000 04 00 00000000")
SERVING = b"\x00\x00\x00\x00\x02\x08\x01"
# ":status: 200", indexed in the static table.
STATUS_200 = b"\x88"


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    """Return an HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def headers(block: bytes, flags: int = 0x4) -> bytes:
    """Return a HEADERS frame, the last of its block."""
    return frame(1, flags, block)


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header without indexing, spelled out."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def squeezed(name: str, value: str) -> bytes:
    """Return a header with incremental indexing in Huffman code."""
    forms = [_huffman(name), _huffman(value)]
    return b"\x40" + b"".join(bytes((0x80 | len(form),)) + form for form in forms)


class Sent:
    """Takes what is written; the client's side of a connection."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep *data*."""
        self.data += data


async def answered(*frames: bytes, sent: Sent | None = None) -> str:
    """Return what a call says that is answered by *frames*."""
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(frames))
    reader.feed_eof()
    writer = sent or Sent()
    return await check(reader, writer, authority="127.0.0.1:1", service="", timeout_s=1)  # type: ignore[arg-type]  # only its write is used


OK = literal(b"grpc-status", b"0")
USUAL = (SETTINGS, headers(STATUS_200), frame(0, 0, SERVING), headers(OK, 0x5))


def test_huffman_codes_are_those_of_the_standard() -> None:
    """RFC 7541, C.6.1 to C.6.3: "302" and "307"; C.6.3 holds "gzip", whose letters stand in our word."""
    assert (_huffman("302"), _huffman("307")) == (bytes.fromhex("6402"), bytes.fromhex("640eff"))
    # "custom-key" of C.4.3 begins like this: c u s t (00100 101101 01000 01001), then padding.
    assert _huffman("cust") == bytes.fromhex("25a84f")


@pytest.mark.parametrize(
    "frames",
    [
        USUAL,
        (SETTINGS, headers(STATUS_200), frame(0, 0x1, SERVING)),
        (SETTINGS, headers(STATUS_200), frame(0, 0, SERVING[:3]), frame(0, 0, SERVING[3:]), headers(OK, 0x5)),
        (SETTINGS, headers(STATUS_200), frame(0, 0x8, b"\x02" + SERVING + b"\0\0"), headers(OK, 0x5)),
        (SETTINGS, headers(b"\0\0\0\0\x10" + STATUS_200, 0x24), frame(0, 0, SERVING), headers(OK, 0x5)),
        (SETTINGS, headers(STATUS_200), frame(0, 0, SERVING), headers(OK[:4], 0x1), frame(9, 0x4, OK[4:])),
        (SETTINGS, headers(b"\x20" + STATUS_200), frame(0, 0, SERVING), headers(squeezed("grpc-status", "0"), 0x5)),
        (SETTINGS, frame(8, 0, b"\0\0\xff\xff", 0), frame(0x20, 0, b"later kinds"), *USUAL[1:]),
        (SETTINGS, frame(0, 0, b"another stream", 3), *USUAL[1:]),
    ],
    ids=["usual", "no trailers", "in pieces", "padded", "priority", "continued", "huffman", "unknown", "other stream"],
)
async def test_every_form_of_an_answer_is_understood(frames: tuple[bytes, ...]) -> None:
    """However a server cuts, pads and codes its answer, SERVING is SERVING."""
    assert await answered(*frames) == "SERVING"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ((SETTINGS, headers(STATUS_200 + literal(b"grpc-status", b"12"), 0x5)), "the server answers UNIMPLEMENTED"),
        ((SETTINGS, headers(squeezed("grpc-status", "14"), 0x5)), "the server answers UNAVAILABLE"),
        ((SETTINGS, headers(STATUS_200), headers(OK, 0x5)), "the server answers no health status"),
        ((SETTINGS, headers(STATUS_200), frame(0, 0x1, b"\x00\x00\x00\x00\x02\x08\x09")), "a status that is not known"),
        ((SETTINGS, headers(STATUS_200), frame(0, 0x1, b"\x00\x00\x00\x00\x02\x10\x01")), "a status that is not known"),
        ((SETTINGS, frame(7, 0, bytes(8), 0)), "GOAWAY"),
        ((SETTINGS, frame(3, 0, b"\0\0\0\x07")), "RST_STREAM, error 7"),
        ((SETTINGS, headers(b"\x00\x7f\xff\xff\xff\xff\xff\xff", 0x5)), "cannot be read"),
        ((SETTINGS, headers(b"\x00\x05ab", 0x5)), "cannot be read"),
        ((SETTINGS, frame(0, 0x8, b"\x09")), "no HTTP/2"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "no HTTP/2"),
        ((SETTINGS, *[frame(0, 0, bytes(16_000))] * 5), "longer than 65536 bytes"),
        ((SETTINGS,) * 300, "does not come to an end"),
    ],
)
async def test_every_other_answer_is_a_failure_with_words(frames: tuple[bytes, ...], message: str) -> None:
    """Errors of the call, broken frames and answers without an end are told apart, and none hangs."""
    with pytest.raises(GrpcHealthError, match=message):
        await answered(*frames)


async def test_an_answer_that_breaks_off_is_a_failure() -> None:
    """A connection that ends in the middle is no answer."""
    with pytest.raises(asyncio.IncompleteReadError):
        await answered(SETTINGS, headers(STATUS_200))


async def test_settings_and_pings_are_acknowledged() -> None:
    """A server that waits for its settings, or asks whether anybody is there, gets its answer."""
    sent = Sent()
    await answered(SETTINGS, frame(6, 0, b"12345678", 0), *USUAL[1:], sent=sent)
    assert sent.data.endswith(frame(4, 1, b"", 0) + frame(6, 1, b"12345678", 0))
