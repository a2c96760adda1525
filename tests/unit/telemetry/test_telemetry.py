"""Telemetry: lag, series per replica, the probe server, logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import generate_latest

from grove_server.telemetry import lag, metrics, replicas
from grove_server.telemetry.http import CONNECTIONS_MAX, REQUEST_BYTES_MAX, ProbeServer
from grove_server.telemetry.logs import bind_context, clear_context, get_logger, set_up_logs
from grove_server.telemetry.replicas import ReplicaSeries
from tests.waiting import until


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give what is logged, as JSON lines."""
    stream = io.StringIO()
    set_up_logs(log_format="json", level="info", stream=stream)
    yield stream
    clear_context()
    set_up_logs(log_format="json", stream=io.StringIO())


@pytest.fixture
async def probes() -> AsyncIterator[tuple[str, int, dict[str, str]]]:
    """Give host, port and the mutable problems of a running probe server."""
    problems: dict[str, str] = {}
    server = ProbeServer(lambda: problems)
    host, _, port = (await server.start("127.0.0.1", 0)).rpartition(":")
    yield host, int(port), problems
    await server.stop()


async def ask(host: str, port: int, request: bytes) -> bytes:
    """Return the whole answer to *request*."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), timeout=20)
    writer.close()
    await writer.wait_closed()
    return answer


def samples() -> float:
    """Return how many lags were recorded."""
    for family in metrics.LOOP_LAG_SECONDS.collect():
        for sample in family.samples:
            if sample.name.endswith("_count"):
                return sample.value
    return 0.0


@pytest.mark.parametrize(
    ("lag_s", "recorded"),
    [
        pytest.param(0.0, 1, id="none"),
        pytest.param(0.004, 1, id="shorter than the interval"),
        pytest.param(0.0525, 10, id="a long step hides samples"),
        pytest.param(3600.0, lag.FILLED_MAX + 1, id="a suspended machine"),
    ],
)
def test_a_long_step_counts_for_as_long_as_it_held_others_up(lag_s: float, recorded: int) -> None:
    """Samples that a long step hid are filled in, up to a bound."""
    before = samples()
    assert lag.observe(lag_s, 0.005) == recorded
    assert samples() == before + recorded


async def test_the_watch_samples_the_loop(log: io.StringIO) -> None:
    """The lag of a running loop is sampled, and a step that is far too long is reported once."""
    watch = lag.LagWatch(interval_s=0.001)
    before = samples()
    watch.start()
    loop = asyncio.get_running_loop()
    until_s = loop.time() + lag.REPORTED_LAG_S + 0.05
    while loop.time() < until_s:
        pass
    await until(lambda: samples() > before, "a sample after the long step")
    watch.stop()
    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert events.count("event_loop_was_held_up") == 1


def test_replica_series_come_and_go_with_their_set() -> None:
    """Sizes are shown by template and vanish with the set or the template."""
    series = ReplicaSeries()
    series.show("clique", "default", "demo", "router", desired=3, ready=1)
    series.show("group", "default", "demo", "model", desired=2, ready=2)
    series.show("clique", "default", "other", "router", desired=1, ready=1)
    series.forget_set("default", "other")
    series.forget("group", "default", "demo", "model")
    shown = [(sample.name, sample.labels, sample.value) for family in series.collect() for sample in family.samples]
    labels = {"namespace": "default", "set": "demo", "clique": "router"}
    assert shown == [
        ("grove_clique_desired_replicas", labels, 3),
        ("grove_clique_ready_replicas", labels, 1),
        ("grove_replica_series_dropped", {}, 0),
    ]


def test_replica_series_are_bounded_and_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound sizes are dropped and counted; switched off, nothing is kept."""
    monkeypatch.setattr(replicas, "ENTRIES_MAX", 2)
    series = ReplicaSeries()
    for number in range(5):
        series.show("clique", "default", f"set-{number}", "c", desired=1, ready=1)
    assert series.dropped_count == 3
    series.enabled = False
    series.show("clique", "default", "set-9", "c", desired=1, ready=1)
    assert series.dropped_count == 3


def test_reasons_that_nobody_waits_for_vanish() -> None:
    """The gauge of waiting gangs shows this moment's reasons and no others."""
    metrics.show_pending_gangs({"Fragmented": 2})
    metrics.show_pending_gangs({"InsufficientCapacity": 1})
    page = generate_latest(metrics.REGISTRY).decode()
    assert 'grove_pending_gangs{reason="InsufficientCapacity"} 1.0' in page
    assert "Fragmented" not in page
    metrics.show_pending_gangs({})


async def test_probes_answer(probes: tuple[str, int, dict[str, str]]) -> None:
    """Alive, ready, not ready with the parts at fault, and metrics."""
    host, port, problems = probes
    assert (await ask(host, port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert b'"ready": true' in await ask(host, port, b"GET /readyz HTTP/1.1\r\n\r\n")
    problems["store"] = "disk full at /secret/path"
    answer = await ask(host, port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'["store"]' in answer
    assert b"secret" not in answer
    assert b"grpc_server_started_total" in await ask(host, port, b"GET /metrics?x=1 HTTP/1.1\r\n\r\n")
    head = await ask(host, port, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"GET /other HTTP/1.1\r\n\r\n", b"404", id="unknown page"),
        pytest.param(b"POST /metrics HTTP/1.1\r\n\r\n", b"405", id="method"),
        pytest.param(b"nonsense\r\n\r\n", b"400", id="no request"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"y" * (2 * REQUEST_BYTES_MAX), b"431", id="too long"),
    ],
)
async def test_strange_requests_get_their_status(
    probes: tuple[str, int, dict[str, str]], request_: bytes, status: bytes
) -> None:
    """Whatever is sent, the answer is one of HTTP's and the server goes on."""
    host, port, _ = probes
    assert (await ask(host, port, request_)).startswith(b"HTTP/1.1 " + status)
    assert (await ask(host, port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_connections_are_bounded(probes: tuple[str, int, dict[str, str]]) -> None:
    """One connection too many is turned away at once."""
    host, port, _ = probes
    idle = [await asyncio.open_connection(host, port) for _ in range(CONNECTIONS_MAX)]
    assert (await ask(host, port, b"")).startswith(b"HTTP/1.1 503")
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


def test_lines_are_json_with_their_context(log: io.StringIO) -> None:
    """A line has its event, its values, the task's context and a time; long values are cut."""
    bind_context({"request_id": "abc"})
    get_logger("test").info("thing_happened", text="x" * 5000)
    get_logger("test").debug("not_shown")
    (line,) = (json.loads(each) for each in log.getvalue().splitlines())
    assert (line["event"], line["room"], line["request_id"], line["level"]) == ("thing_happened", "test", "abc", "info")
    assert line["text"].endswith("(5000 characters)")
    assert line["timestamp"].endswith("Z")


def test_foreign_lines_look_the_same(log: io.StringIO) -> None:
    """What libraries log through the standard library comes out as JSON, too."""
    logging.getLogger("library").warning("odd: %s", "thing")
    (line,) = (json.loads(each) for each in log.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("odd: thing", "warning")
