"""RPCs against the bare echo of the same process: reads, durable applies, fan-out of a watch event.

Rounds of ours and of the baseline alternate, and the median of each counts: a noisy neighbour then hits both. Client
and server are different processes, as in life.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import uvloop
from google.protobuf import json_format

from grove.v1 import pod_clique_set_pb2 as pb
from tests.bench.figures import Figure, Target, figure
from tests.bench.rpc_host import DURABLE, ECHO, FIRE, FSYNCS, SET_PAYLOAD, STREAM, Host, host
from tests.waiting import until_seen

GET: Final = "/grove.v1.PodCliqueSetService/Get"
APPLY: Final = "/grove.v1.PodCliqueSetService/Apply"
WATCH: Final = "/grove.v1.PodCliqueSetService/Watch"
SCALE: Final = "/grove.v1.PodCliqueSetService/Scale"

ROUNDS: Final = 5
GETS_PER_ROUND: Final = 4_000
GETS_IN_FLIGHT: Final = 32
APPLIES: Final = 1_000
APPLIES_IN_FLIGHT: Final = 64
WATCHERS: Final = 1_000
EVENTS: Final = 15
_STREAMS_PER_CONNECTION: Final = 100
_STREAMS_PER_BURST: Final = 100

Call = Callable[[bytes], Awaitable[bytes]]
Send = Callable[[int], Awaitable[bytes]]


def thirteen_pods(name: str) -> pb.PodCliqueSet:
    """Return a set of 13 pods: a router, a prefill group of 2 x 3, a decode group of 2 x 3."""
    found = pb.PodCliqueSet(api_version="grove.io/v1alpha1", kind="PodCliqueSet")
    found.metadata.name = name
    found.metadata.labels["app"] = "bench"
    found.spec.replicas = 1
    template = found.spec.template
    for clique, pods in (("router", 1), ("pleader", 1), ("pworker", 2), ("dleader", 1), ("dworker", 2)):
        entry = template.cliques.add(name=clique)
        entry.spec.role_name = clique
        entry.spec.replicas = pods
        entry.spec.min_available = pods
        container = {
            "name": "main",
            "image": "registry.example.com/serving/engine:1.4.2",
            "args": ["--model", "meta/llama-3-70b", "--port", "8000"],
            "env": [{"name": "LOG_LEVEL", "value": "info"}],
            "resources": {"requests": {"cpu": "100m", "memory": "80Mi"}},
        }
        json_format.ParseDict({"containers": [container]}, entry.spec.pod_spec)
    for group, members in (("prefill", ("pleader", "pworker")), ("decode", ("dleader", "dworker"))):
        template.pod_clique_scaling_groups.add(name=group, clique_names=members, replicas=2, min_available=1)
    return found


def rpc_get() -> list[Figure]:
    """Measure Get of a 13-pod set with the default access log, and with a line for each call."""
    with host() as servers:
        figures = [uvloop.run(_get(servers, "rpc.get", 0.75))]
    with host(access_log="all") as servers:
        return [*figures, uvloop.run(_get(servers, "rpc.get.logged", 0.6))]


def rpc_apply() -> list[Figure]:
    """Measure durable Apply calls of different 13-pod sets, with the loops running."""
    with host() as servers:
        return uvloop.run(_apply(servers))


def watch_fanout() -> list[Figure]:
    """Measure one event to 1,000 watchers."""
    with host() as servers:
        return [uvloop.run(_fanout(servers))]


async def _get(servers: Host, name: str, bound: float) -> Figure:
    async with grpc.aio.insecure_channel(servers.grove) as grove, grpc.aio.insecure_channel(servers.bare) as bare:
        apply = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=thirteen_pods("bench"))
        await _unary(grove, APPLY)(apply.SerializeToString())
        get, echo = _unary(grove, GET), _unary(bare, ECHO)
        request = pb.PodCliqueSetServiceGetRequest(name="bench").SerializeToString()
        await _settled(get, request)
        await _unary(bare, SET_PAYLOAD)(await get(request))
        ours, baseline = [], []
        for _ in range(ROUNDS):
            baseline.append(await _rate(lambda _i: echo(request), GETS_PER_ROUND, GETS_IN_FLIGHT))
            ours.append(await _rate(lambda _i: get(request), GETS_PER_ROUND, GETS_IN_FLIGHT))
    return figure(
        name,
        statistics.median(ours),
        "calls/s",
        better="higher",
        baseline=statistics.median(baseline),
        target=Target(bound=bound, of="ratio"),
    )


async def _apply(servers: Host) -> list[Figure]:
    async with grpc.aio.insecure_channel(servers.grove) as grove, grpc.aio.insecure_channel(servers.bare) as bare:
        apply, get, echo = _unary(grove, APPLY), _unary(grove, GET), _unary(bare, ECHO)
        first = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=thirteen_pods("first"))
        await apply(first.SerializeToString())
        request = pb.PodCliqueSetServiceGetRequest(name="first").SerializeToString()
        await _settled(get, request)
        await _unary(bare, SET_PAYLOAD)(await get(request))
        requests = [
            pb.PodCliqueSetServiceApplyRequest(pod_clique_set=thirteen_pods(f"set-{i}")).SerializeToString()
            for i in range(APPLIES)
        ]
        baseline = [await _rate(lambda _i: echo(request), GETS_PER_ROUND, GETS_IN_FLIGHT) for _ in range(ROUNDS)]
        fsyncs = _unary(bare, FSYNCS)
        before = int(await fsyncs(b""))
        rate = await _rate(lambda i: apply(requests[i]), APPLIES, APPLIES_IN_FLIGHT)
        after = int(await fsyncs(b""))
    return [
        figure(
            "rpc.apply",
            rate,
            "calls/s",
            better="higher",
            baseline=statistics.median(baseline),
            target=Target(bound=0.08, of="ratio"),
        ),
        figure(
            "rpc.apply.fsyncs", (after - before) / APPLIES, "fsyncs/call", better="lower", target=Target(bound=0.25)
        ),
    ]


async def _fanout(servers: Host) -> Figure:
    async with grpc.aio.insecure_channel(servers.grove) as grove, grpc.aio.insecure_channel(servers.bare) as bare:
        apply = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=thirteen_pods("bench"))
        apply.pod_clique_set.spec.replicas = 0
        await _unary(grove, APPLY)(apply.SerializeToString())
        sink = await _Sink.open(
            servers.grove, WATCH, pb.PodCliqueSetServiceWatchRequest().SerializeToString(), b"SYNCED"
        )
        durable = _unary(bare, DURABLE)
        annotate = _unary(grove, APPLY)

        async def ours(turn: int) -> bytes:
            # An annotation changes nothing that the loops look at, so each firing is one event.
            apply.pod_clique_set.metadata.annotations["turn"] = str(turn)
            await annotate(apply.SerializeToString())
            return await durable(b"")

        await sink.fire(ours, 0)
        bare_sink = await _Sink.open(servers.bare, STREAM, b"", b"ready")
        await _unary(bare, SET_PAYLOAD)(sink.last)
        fire = _unary(bare, FIRE)

        async def baseline(_turn: int) -> bytes:
            return await fire(b"")

        ours_s, baseline_s = [], []
        for turn in range(1, EVENTS + 1):
            baseline_s.append(await bare_sink.fire(baseline, turn))
            ours_s.append(await sink.fire(ours, turn))
        await sink.close()
        await bare_sink.close()
    return figure(
        "watch.fanout",
        WATCHERS / statistics.median(ours_s),
        "events/s",
        better="higher",
        baseline=WATCHERS / statistics.median(baseline_s),
        target=Target(bound=0.8, of="ratio"),
    )


class _Sink:
    """A thousand streams that count what they get."""

    def __init__(self) -> None:
        self.last = b""
        self._left = 0
        self._last_got_s = 0.0
        self._all_got = asyncio.Event()
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, target: str, method: str, request: bytes, marker: bytes) -> "_Sink":
        """Open the streams in bursts and read each until *marker* has come."""
        sink = cls()
        ready: list[asyncio.Event] = []
        for position in range(WATCHERS):
            if position % _STREAMS_PER_CONNECTION == 0:
                # A pool of its own, or all channels of the process would share one connection.
                options = [("grpc.use_local_subchannel_pool", 1)]
                sink._channels.append(grpc.aio.insecure_channel(target, options=options))
            is_ready = asyncio.Event()
            ready.append(is_ready)
            open_stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = sink._channels[-1].unary_stream(method)
            sink._tasks.append(asyncio.create_task(sink._read(open_stream(request), marker, is_ready)))
            if position % _STREAMS_PER_BURST == _STREAMS_PER_BURST - 1:
                await asyncio.gather(*(each.wait() for each in ready))
        return sink

    async def fire(self, trigger: Send, turn: int) -> float:
        """Set off one event and return the seconds until the last stream had it.

        *trigger* answers with the moment the event could first be written: durable for ours, set off for the bare one.
        The server's and our performance counter are the same clock of the machine.
        """
        self._left = WATCHERS
        self._all_got.clear()
        started_s = float(await trigger(turn))
        await self._all_got.wait()
        return self._last_got_s - started_s

    async def close(self) -> None:
        """End all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def _read(self, call: "grpc.aio.UnaryStreamCall[bytes, bytes]", marker: bytes, ready: asyncio.Event) -> None:
        async for message in call:
            if not ready.is_set():
                if marker in message:
                    ready.set()
                continue
            self.last = message
            self._left -= 1
            if self._left == 0:
                self._last_got_s = time.perf_counter()
                self._all_got.set()


def _unary(channel: grpc.aio.Channel, method: str) -> Call:
    """Return *method* from bytes to bytes."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)

    async def send(request: bytes) -> bytes:
        return await call(request)

    return send


async def _settled(get: Call, request: bytes) -> None:
    """Wait until the loops have finished with the set, so that Get returns the same bytes again and again."""

    async def look() -> pb.PodCliqueSet:
        return pb.PodCliqueSet.FromString(await get(request))

    await until_seen(
        look,
        lambda found: found.status.available_replicas == found.spec.replicas,
        lambda found: f"all copies available, {found.status.available_replicas} are",
    )


async def _rate(send: Send, count: int, in_flight: int) -> float:
    """Return calls per second with *in_flight* calls at a time."""
    positions = iter(range(count))

    async def work() -> None:
        for position in positions:
            await send(position)

    started_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return count / (time.perf_counter() - started_s)
