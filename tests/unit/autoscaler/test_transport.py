"""The HTTP client of the autoscaler's sources, against peers that behave, dawdle, lie and go."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autoscaler.signals.access import AccessFiles
from autoscaler.signals.failures import Failure, SourceError
from autoscaler.signals.transport import Transport, TransportLimits
from tests.scripted_peer import ScriptedPeer, answer
from tests.waiting import until

SMALL = TransportLimits(body_bytes_max=1000, connections_max=4, idle_connections_max=2)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A client with small limits."""
    made = Transport(limits=SMALL)
    yield made
    await made.close()


async def failure_of(transport: Transport, peer: ScriptedPeer | str, *, timeout_s: float = 5.0) -> Failure:
    """Ask once and return why there is no answer."""
    url = peer if isinstance(peer, str) else peer.url
    with pytest.raises(SourceError) as caught:
        await transport.get(url, timeout_s=timeout_s)
    return caught.value.failure


async def test_a_connection_is_used_again(transport: Transport) -> None:
    """Two questions to one peer take one connection."""
    async with ScriptedPeer(answer(b"{}")) as peer:
        first = await transport.get(peer.url + "/a?b=c", timeout_s=5)
        second = await transport.post(peer.url + "/q", b"query=up", timeout_s=5)
        assert (first.status, first.body, second.content_type) == (200, b"{}", "application/json")
        assert peer.connection_count == 1
        assert peer.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
        assert peer.requests[1].endswith(b"\r\n\r\nquery=up")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", id="chunks"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nabcde", id="length"),
    ],
)
async def test_bodies_are_read_whole(said: bytes, transport: Transport) -> None:
    """A body comes whole in chunks or with a length, and the connection is kept."""
    async with ScriptedPeer(said) as peer:
        bodies = [(await transport.get(peer.url, timeout_s=5)).body for _ in range(2)]
        assert bodies == [b"abcde", b"abcde"]
        assert peer.connection_count == 1


async def test_a_body_may_end_with_the_connection(transport: Transport) -> None:
    """Without a length the body is what comes until the end, as HTTP/1.0 servers send it."""

    async def talk(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nabc")
        writer.close()

    async with ScriptedPeer(talk) as peer:
        assert (await transport.get(peer.url, timeout_s=5)).body == b"abc"


async def test_a_kept_connection_that_was_closed_is_replaced(transport: Transport) -> None:
    """A peer that closes idle connections costs a new connection, not a failure."""

    async def talk(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x"))
        await writer.drain()
        writer.close()

    async with ScriptedPeer(talk) as peer:
        for _ in range(3):
            assert (await transport.get(peer.url, timeout_s=5)).body == b"x"
        assert peer.connection_count == 3


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        pytest.param(answer(b"x" * 1001), Failure.TOO_LARGE, id="length-over-bound"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFF\r\n", Failure.TOO_LARGE, id="chunk-over-bound"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", Failure.MALFORMED, id="negative-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", Failure.MALFORMED, id="odd-length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Failure.MALFORMED, id="two-lengths"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Failure.MALFORMED, id="no-chunk"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", Failure.MALFORMED, id="packed"
        ),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", Failure.MALFORMED, id="not-http"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n", Failure.MALFORMED, id="many-headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\na: " + b"b" * 40_000 + b"\r\n\r\n", Failure.MALFORMED, id="long-header"),
    ],
)
async def test_what_is_no_answer_is_refused(said: bytes, failure: Failure, transport: Transport) -> None:
    """Sizes over the bound and malformed answers fail with their reason, and the connection is not used again."""
    async with ScriptedPeer(said) as peer:
        assert await failure_of(transport, peer) is failure
        peer.say = answer(b"ok")
        assert (await transport.get(peer.url, timeout_s=5)).body == b"ok"
        assert peer.connection_count == 2


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
async def test_a_peer_that_stops_talking_ends_at_the_deadline(first: bytes, transport: Transport) -> None:
    """Silence before or within the answer is a timeout."""
    async with ScriptedPeer(first) as peer:
        assert await failure_of(transport, peer, timeout_s=0.05) is Failure.TIMEOUT


async def test_waiting_for_a_connection_counts() -> None:
    """The time that a question waits for its turn behind slow ones is part of its deadline."""
    transport = Transport(limits=TransportLimits(connections_max=1))
    async with ScriptedPeer(b"") as peer:
        slow = asyncio.create_task(failure_of(transport, peer, timeout_s=20))
        await until(lambda: bool(peer.requests), "the slow question is asked")
        assert await failure_of(transport, peer, timeout_s=0.05) is Failure.TIMEOUT
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
    await transport.close()


async def test_a_peer_that_is_not_there_is_unreachable(transport: Transport) -> None:
    """Nobody listening, and a peer that hangs up, are told apart from refusals."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert await failure_of(transport, f"http://127.0.0.1:{port}/") is Failure.UNREACHABLE

    async def hang_up(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with ScriptedPeer(hang_up) as peer:
        assert await failure_of(transport, peer) is Failure.UNREACHABLE


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "http:///x",
        "http://a b/",
        "http://127.0.0.1:99999/",
        "http://u:p@127.0.0.1/",
        "x",
        "http://h/\r\nX: y",
    ],
)
async def test_addresses_that_are_none_are_refused(url: str, transport: Transport) -> None:
    """Only plain http and https addresses are asked; nothing can be slipped into a request."""
    assert await failure_of(transport, url) is Failure.REFUSED


async def test_idle_connections_are_bounded(transport: Transport) -> None:
    """Of connections that are kept the one used longest ago is closed for a new one."""
    async with ScriptedPeer(answer(b"")) as a, ScriptedPeer(answer(b"")) as b, ScriptedPeer(answer(b"")) as c:
        for peer in (a, b, c, c, b, a):
            await transport.get(peer.url, timeout_s=5)
        assert (a.connection_count, b.connection_count, c.connection_count) == (2, 1, 1)


async def test_secrets_are_read_again_when_they_change(tmp_path: Path) -> None:
    """A rotated token is sent with the next question; a broken file fails it without telling its content."""
    token = tmp_path / "token"
    token.write_text("first\n")
    transport = Transport(files=AccessFiles(bearer_token_file=token))
    async with ScriptedPeer(answer(b"")) as peer:
        await transport.get(peer.url, timeout_s=5)
        fresh = tmp_path / "fresh"
        fresh.write_text("second")
        fresh.rename(token)
        await transport.get(peer.url, timeout_s=5)
        assert b"\r\nAuthorization: Bearer first\r\n" in peer.requests[0]
        assert b"\r\nAuthorization: Bearer second\r\n" in peer.requests[1]
        token.write_text("two\nlines, secret")
        with pytest.raises(SourceError, match="no usable secret") as caught:
            await transport.get(peer.url, timeout_s=5)
        assert caught.value.failure is Failure.CREDENTIALS
        assert "lines" not in str(caught.value)
        token.unlink()
        assert await failure_of(transport, peer) is Failure.CREDENTIALS
    await transport.close()


async def test_a_name_and_password_are_sent_as_basic(tmp_path: Path) -> None:
    """Basic authentication carries name and password of the file."""
    password = tmp_path / "password"
    password.write_text("p:w\n")
    transport = Transport(files=AccessFiles(username="grove", password_file=password))
    async with ScriptedPeer(answer(b"")) as peer:
        await transport.get(peer.url, timeout_s=5)
        assert b"Authorization: Basic " + base64.b64encode(b"grove:p:w") + b"\r\n" in peer.requests[0]
    await transport.close()


async def test_secrets_stay_on_this_machine_without_tls(tmp_path: Path) -> None:
    """Credentials are not sent in the clear to another machine; nothing is connected."""
    token = tmp_path / "token"
    token.write_text("t")
    transport = Transport(files=AccessFiles(bearer_token_file=token))
    assert await failure_of(transport, "http://192.0.2.1/") is Failure.CREDENTIALS
    await transport.close()


@pytest.mark.parametrize(
    "files",
    [
        {"bearer_token_file": Path("t"), "username": "u", "password_file": Path("p")},
        {"username": "u"},
        {"password_file": Path("p")},
        {"key_file": Path("k")},
        {"username": "u:v", "password_file": Path("p")},
    ],
)
def test_contradicting_credentials_are_refused(files: dict[str, Path]) -> None:
    """Two kinds of credentials at once, or half of one, are an error at the start."""
    with pytest.raises(ValueError, match=r"token|password|certificate|colon"):
        AccessFiles(**files)  # type: ignore[arg-type]  # the wrong mixtures are the test
