"""Signals through a real Prometheus that scrapes pages with the engines' real metric names."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from autoscaler import observation as o
from autoscaler.observation import Reading
from autoscaler.signals.census import Census, PodSeen, ScopeSeen
from autoscaler.signals.failures import Failure
from autoscaler.signals.prometheus import Prometheus
from autoscaler.signals.prometheus_source import PrometheusSettings, PrometheusSource
from autoscaler.signals.readings import ScopeReadings, read
from autoscaler.signals.transport import Transport
from autoscaler.signals.vectors import Measured
from tests.engine_pages import page, vllm_page
from tests.prometheus_process import PrometheusProcess
from tests.scripted_peer import ScriptedPeer, answer
from tests.waiting import until_seen

pytestmark = pytest.mark.prometheus

QUICK = PrometheusSettings(window_s=8.0, slow_every_s=0.0, probe_every_s=1.0, probe_again_s=0.0)


class Fleet:
    """Pods with pages that count up by themselves, a Prometheus that scrapes them, and a source that asks it."""

    def __init__(self, prometheus: PrometheusProcess, stack: AsyncExitStack) -> None:
        self.prometheus = prometheus
        self.transport = Transport()
        self.source = PrometheusSource(
            Prometheus(prometheus.url, self.transport, chance=random.Random(1).random), QUICK
        )
        self._stack = stack
        self._targets: dict[str, Mapping[str, str]] = {}

    async def add(self, peer: ScriptedPeer, **labels: str) -> None:
        """Let a page be scraped, with these labels."""
        await self._stack.enter_async_context(peer)
        self._targets[peer.url.removeprefix("http://")] = labels
        self.prometheus.scrape(self._targets)

    async def measure(self, census: Census, *, timeout_s: float = 5.0) -> Measured:
        """Ask once, for now."""
        return await self.source.measure(census, at=time.time(), timeout_s=timeout_s)

    async def readings(self, census: Census) -> ScopeReadings:
        """Ask once, for now, and return the readings of the first scope."""
        return read(await self.measure(census))[0]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet without pods yet."""
    async with AsyncExitStack() as stack:
        prometheus = stack.enter_context(PrometheusProcess(tmp_path / "prometheus"))
        made = Fleet(prometheus, stack)
        yield made
        await made.transport.close()


def counting(
    started_s: float,
    *,
    generated_per_s: float = 0,
    prompt_per_s: float = 0,
    running: float = 0,
    waiting: float = 0,
    kv: float = 0,
) -> ScriptedPeer:
    """Return a vLLM engine whose counters grow steadily, one request for each 100 tokens of prompt."""

    async def talk(_request: bytes, writer: asyncio.StreamWriter) -> None:
        elapsed_s = time.monotonic() - started_s
        requests = int(elapsed_s * prompt_per_s / 100)
        body = vllm_page(
            prompt=elapsed_s * prompt_per_s,
            computed=elapsed_s * prompt_per_s / 2,
            generated=elapsed_s * generated_per_s,
            first_tokens=requests,
            ttft={"0.5": requests // 2, "1.0": requests},
            running=running,
            waiting=waiting,
            kv=kv,
        )
        writer.write(answer(body, kind="text/plain; version=0.0.4"))
        await writer.drain()

    return ScriptedPeer(talk)


def census(*names: str) -> Census:
    """Return one scope with ready pods; the first word of a pod's name is its role."""
    roles = {name.split("-")[0]: name.split("-")[0] for name in names}
    pods = [PodSeen(name=name, role=name.split("-")[0], counts=True) for name in names]
    return Census(
        [ScopeSeen(key="ns/p", copy=0, namespace="ns", engine="vllm", roles=roles, pods=pods, ttft_s=0.5, itl_s=0.05)]
    )


def near(reading: Reading | None, value: float, *, part: float = 0.15) -> bool:
    """Return whether a reading has about a value."""
    return reading is not None and reading.value is not None and abs(reading.value - value) <= part * value


async def test_rates_gauges_and_attainment_are_joined_by_pod(fleet: Fleet) -> None:
    """Tokens per second, queues, KV use and attainment come to the right roles; pods of others fall away."""
    now_s = time.monotonic()
    await fleet.add(counting(now_s, prompt_per_s=1000, waiting=3), namespace="ns", pod="prefill-0")
    await fleet.add(counting(now_s, generated_per_s=400, running=7, kv=0.5), namespace="ns", pod="decode-0")
    await fleet.add(counting(now_s, generated_per_s=200, running=5, kv=0.3), namespace="ns", pod="decode-1")
    await fleet.add(counting(now_s, generated_per_s=9000, running=99), namespace="ns", pod="somebody-else")
    await fleet.add(counting(now_s, generated_per_s=9000, running=99), namespace="other", pod="decode-0")
    pods = census("prefill-0", "decode-0", "decode-1")
    seen = await until_seen(
        lambda: fleet.readings(pods),
        lambda r: (
            near(r.roles["decode"].get(o.DECODE_TOKENS), 600)
            and r.roles["decode"][o.DECODE_TOKENS].reporting == 2
            and near(r.scope.get(o.ARRIVAL_TOKENS), 500)
            and near(r.scope.get(o.TTFT_ATTAINMENT), 0.5)
        ),
        str,
    )
    decode, prefill = seen.roles["decode"], seen.roles["prefill"]
    assert decode[o.RUNNING_REQUESTS].value == 12
    assert decode[o.KV_USAGE].value == pytest.approx(0.4)
    assert prefill[o.QUEUED_REQUESTS].value == 3
    assert near(prefill[o.PREFILL_TOKENS], 500)
    assert near(seen.scope[o.ARRIVAL_REQUESTS], 10, part=0.25)
    assert near(seen.scope[o.PROMPT_TOKENS], 100, part=0.25)
    assert near(seen.scope[o.ITL_ATTAINMENT], 1.0)
    assert near(decode[o.ITL_SECONDS], 0.03)
    assert decode[o.RUNNING_REQUESTS].age_s < 3
    measured = await fleet.measure(pods)
    assert measured.problems == ()
    assert measured.strangers > 0


async def test_a_pod_that_is_not_scraped_any_more_is_missing(fleet: Fleet) -> None:
    """A pod whose page is gone is missing from the reading, by name, and the rest goes on."""
    now_s = time.monotonic()
    await fleet.add(counting(now_s, running=7), namespace="ns", pod="decode-0")
    pods = census("decode-0", "decode-1")
    seen = await until_seen(lambda: fleet.readings(pods), lambda r: o.RUNNING_REQUESTS in r.roles["decode"], str)
    running = seen.roles["decode"][o.RUNNING_REQUESTS]
    assert (running.value, running.reporting, running.expected, running.missing) == (7, 1, 2, ("decode-1",))


async def test_old_and_new_names_are_read_side_by_side(fleet: Fleet) -> None:
    """While an update renames a metric, pods of both versions count."""
    kind = "text/plain; version=0.0.4"
    await fleet.add(ScriptedPeer(answer(vllm_page(kv=0.2, old_names=True), kind=kind)), namespace="ns", pod="decode-0")
    await fleet.add(ScriptedPeer(answer(vllm_page(kv=0.6), kind=kind)), namespace="ns", pod="decode-1")
    pods = census("decode-0", "decode-1")
    seen = await until_seen(
        lambda: fleet.readings(pods),
        lambda r: o.KV_USAGE in r.roles["decode"] and r.roles["decode"][o.KV_USAGE].reporting == 2,
        str,
    )
    reading = seen.roles["decode"][o.KV_USAGE]
    assert reading.value == pytest.approx(0.4)
    assert reading.source == "vllm:kv_cache_usage_perc+vllm:gpu_cache_usage_perc"


async def test_a_percentage_where_a_ratio_should_be_is_a_fault(fleet: Fleet) -> None:
    """50 as a ratio is no load of 5000 percent: it is not known, and the reading says why."""
    await fleet.add(
        ScriptedPeer(answer(vllm_page(kv=50), kind="text/plain; version=0.0.4")), namespace="ns", pod="decode-0"
    )
    pods = census("decode-0")
    seen = await until_seen(lambda: fleet.readings(pods), lambda r: o.KV_USAGE in r.roles["decode"], str)
    reading = seen.roles["decode"][o.KV_USAGE]
    assert (reading.value, reading.fault, reading.reporting) == (None, o.Fault.OUT_OF_RANGE, 0)


@pytest.mark.parametrize("honor_labels", [False, True])
async def test_gpus_are_read_under_both_settings_of_labels(tmp_path: Path, *, honor_labels: bool) -> None:
    """DCGM's pods are found whether the scraper honours the exporter's labels or calls them exported."""
    gpus = page(
        'DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="a",hostname="h",namespace="ns",pod="decode-0"} 0.9',
        'DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="1",UUID="b",hostname="h",namespace="ns",pod="decode-0"} 0.5',
        'DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="2",UUID="c",hostname="h"} 0.1',
    )
    async with AsyncExitStack() as stack:
        prometheus = stack.enter_context(PrometheusProcess(tmp_path / "prometheus", honor_labels=honor_labels))
        fleet = Fleet(prometheus, stack)
        exporter = ScriptedPeer(answer(gpus, kind="text/plain; version=0.0.4"))
        await fleet.add(exporter, namespace="monitoring", pod="dcgm-exporter-x")
        seen = await until_seen(
            lambda: fleet.readings(census("decode-0")), lambda r: o.GPU_ACTIVITY in r.roles["decode"], str
        )
        assert seen.roles["decode"][o.GPU_ACTIVITY].value == pytest.approx(0.7)
        await fleet.transport.close()


async def test_a_prometheus_that_hangs_ends_at_the_deadline_and_comes_back(fleet: Fleet) -> None:
    """While Prometheus hangs everything is unknown within the tick's time; afterwards it is read again."""
    await fleet.add(counting(time.monotonic(), running=7), namespace="ns", pod="decode-0")
    pods = census("decode-0")
    await until_seen(lambda: fleet.readings(pods), lambda r: o.RUNNING_REQUESTS in r.roles["decode"], str)
    fleet.prometheus.pause()
    try:
        measured = await fleet.measure(pods, timeout_s=0.3)
    finally:
        fleet.prometheus.go_on()
    assert o.RUNNING_REQUESTS not in read(measured)[0].roles["decode"]
    assert {problem.failure for problem in measured.problems} <= {Failure.TIMEOUT, Failure.UNREACHABLE}
    assert measured.problems
    await until_seen(lambda: fleet.readings(pods), lambda r: o.RUNNING_REQUESTS in r.roles["decode"], str)


async def test_a_prometheus_that_restarts_is_survived(fleet: Fleet) -> None:
    """A Prometheus that is down is a problem and not zero; after its restart its old samples are of their old age."""
    await fleet.add(counting(time.monotonic(), running=7), namespace="ns", pod="decode-0")
    pods = census("decode-0")
    await until_seen(lambda: fleet.readings(pods), lambda r: o.RUNNING_REQUESTS in r.roles["decode"], str)
    fleet.prometheus.stop()
    measured = await fleet.measure(pods, timeout_s=0.5)
    assert read(measured)[0].roles["decode"] == {}
    assert {problem.failure for problem in measured.problems} == {Failure.UNREACHABLE}
    fleet.prometheus.start()
    await until_seen(lambda: fleet.readings(pods), lambda r: o.RUNNING_REQUESTS in r.roles["decode"], str)
