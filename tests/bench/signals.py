"""The signals of one tick: 1,000 roles with 10,000 pods of vLLM, from a Prometheus that answers at once.

The processor's time of this process: asking, reading, joining, and the peer's sending, which costs it little. The
baseline reads the same answers as JSON and does nothing with them.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs

import orjson

from autoscaler.engines.vllm import VLLM
from autoscaler.signals.census import Census, PodSeen, ScopeSeen
from autoscaler.signals.collector import Collector
from autoscaler.signals.prometheus import Prometheus
from autoscaler.signals.prometheus_source import PrometheusSettings, PrometheusSource
from autoscaler.signals.transport import Transport
from tests.bench.figures import Figure, Target, figure
from tests.scripted_peer import ScriptedPeer, answer

SCOPES: Final = 500
PODS: Final = {"prefill": 8, "decode": 12}
TICKS: Final = 9
AT: Final = 1_700_000_000.0
TARGET_MS: Final = 250.0


def census() -> Census:
    """Return 500 scopes of two roles, 20 pods each."""
    return Census(
        [
            ScopeSeen(
                key=f"ns/chat-{number}",
                copy=0,
                namespace="ns",
                engine="vllm",
                roles={role: role for role in PODS},
                pods=[
                    PodSeen(name=f"chat-{number}-0-{role}-{index:05x}", role=role, counts=True)
                    for role, count in PODS.items()
                    for index in range(count)
                ],
                ttft_s=0.5,
                itl_s=0.05,
            )
            for number in range(SCOPES)
        ]
    )


class _Answers:
    """What a Prometheus would say, written once; ``sent`` are the bodies of the current tick."""

    def __init__(self, pods: Census) -> None:
        self.sent: list[bytes] = []
        names = [{"namespace": "ns", "pod": name} for name in pods.names]
        self._names = _success([*VLLM.metric_names()])
        self._edges = _vector([{"le": edge} for edge in ("0.05", "0.5", "1.0", "+Inf")], "1")
        self._values = _vector(names, "0.5")
        self._stamps = _vector(names, f"{AT - 5}")
        self._buckets = _vector([{"le": edge, **name} for name in names for edge in ("0.5", "+Inf")], "3.25")

    async def talk(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer one question."""
        query = parse_qs(request.partition(b"\r\n\r\n")[2].decode()).get("query", [""])[0]
        if not query:
            body = self._names if b"vllm" in request else _success([])
        elif query.startswith("(group"):
            body = self._edges
        elif "timestamp(" in query:
            body = self._stamps
        else:
            body = self._buckets if "_bucket" in query else self._values
        self.sent.append(body)
        writer.write(answer(body))
        await writer.drain()


def _vector(labels: list[dict[str, str]], value: str) -> bytes:
    return _success({"resultType": "vector", "result": [{"metric": each, "value": [AT, value]} for each in labels]})


def _success(data: object) -> bytes:
    return json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()


def run() -> Iterator[Figure]:
    """Measure the median tick that asks for what moves fast, and that which asks for the rest too: every other one."""
    for name, settings in (
        ("scale.tick1000.signals", PrometheusSettings()),
        ("scale.tick1000.signals.slow", PrometheusSettings(slow_every_s=0.0)),
    ):
        ticks_ms, read_ms = asyncio.run(_measure(settings))
        yield figure(
            name,
            sorted(ticks_ms)[TICKS // 2],
            "ms",
            better="lower",
            baseline=sorted(read_ms)[TICKS // 2],
            target=Target(bound=TARGET_MS),
        )


async def _measure(settings: PrometheusSettings) -> tuple[list[float], list[float]]:
    pods = census()
    answers = _Answers(pods)
    transport = Transport()
    ticks_ms: list[float] = []
    read_ms: list[float] = []
    async with ScriptedPeer(answers.talk) as peer:
        collector = Collector(PrometheusSource(Prometheus(peer.url, transport, chance=lambda: 0.5), settings))
        # The first tick probes and learns labels.
        await collector.observe(pods, at=AT, timeout_s=60)
        for _ in range(TICKS):
            answers.sent.clear()
            started = time.process_time()
            await collector.observe(pods, at=AT, timeout_s=60)
            ticks_ms.append((time.process_time() - started) * 1000)
            started = time.process_time()
            for body in answers.sent:
                orjson.loads(body)
            read_ms.append((time.process_time() - started) * 1000)
    await transport.close()
    return ticks_ms, read_ms
