"""The pods' own pages: the text format, counters over time, and pages that lie or are gone."""

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler import observation as o
from autoscaler.engines import dialect as d
from autoscaler.engines.dialect import Form
from autoscaler.engines.sglang import SGLANG
from autoscaler.engines.vllm import VLLM
from autoscaler.signals.census import Census
from autoscaler.signals.counters import PodHistory
from autoscaler.signals.exposition import ExpositionError, picker, samples
from autoscaler.signals.failures import Failure
from autoscaler.signals.readings import read
from autoscaler.signals.scrape_source import ScrapeSettings, ScrapeSource
from autoscaler.signals.transport import Transport
from tests.engine_pages import page, vllm_page
from tests.scripted_peer import ScriptedPeer, answer
from tests.signal_cases import scope

TEXT = "text/plain; version=0.0.4"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A client."""
    made = Transport()
    yield made
    await made.close()


def test_lines_are_read_with_labels_escapes_times_and_exemplars() -> None:
    """What Prometheus could read is read; other metrics and comments are passed over."""
    body = page(
        "# TYPE a gauge",
        r'a{x="1",y="say \"hi\"\\\n",} 1.5',
        "a 2 1700000000500",
        "a_total 7",
        'ab{x="1"} 3',
        'b{le="+Inf"} 4 # {trace_id="x"} 0.2 1700000000.1',
        "b NaN",
        "b 1e3\r",
        'b{x="a,b=c}d"} 5',
    )
    found = [*samples(body, picker(["a", "b"]))]
    assert [(s.name, dict(s.labels), s.value, s.time) for s in found] == [
        ("a", {"x": "1", "y": 'say "hi"\\\n'}, 1.5, None),
        ("a", {}, 2.0, 1_700_000_000.5),
        ("b", {"le": "+Inf"}, 4.0, None),
        ("b", {}, 1000.0, None),
        ("b", {"x": "a,b=c}d"}, 5.0, None),
    ]


@pytest.mark.parametrize("line", ["a{x=1} 2", 'a{x="1" 2', "a x", "a ", 'a{x="1"}', "a 1 2 3"])
def test_half_a_page_is_no_page(line: str) -> None:
    """A line that matters and cannot be read fails the page."""
    with pytest.raises(ExpositionError):
        list(samples(page("a 1", line), picker(["a"])))


def history(*pages: tuple[float, bytes], window_s: float = 60.0) -> PodHistory:
    """Return what is remembered after some pages of a vLLM engine."""
    made = PodHistory(window_s=window_s)
    names = picker(VLLM.metric_names())
    for at, body in pages:
        made.take(samples(body, names), (VLLM,), at)
    return made


def test_one_page_has_no_rates() -> None:
    """A rate needs two pages; one page's total is not a rate since nobody knows when."""
    made = history((0, vllm_page(generated=500, running=2)))
    assert made.value(d.RUNNING, Form.GAUGE) == 2
    assert math.isnan(made.value(d.OUTPUT_TOKENS, Form.RATE))


def test_rates_span_the_window_and_survive_a_reset() -> None:
    """Old pages leave the window; a restarted engine's counter counts from zero."""
    pages = [(at, vllm_page(generated=at * 100)) for at in (0.0, 100.0, 115.0, 130.0)]
    assert history(*pages).value(d.OUTPUT_TOKENS, Form.RATE) == pytest.approx(100)
    made = history(*pages, (145.0, vllm_page(generated=300)), window_s=30)
    # 1,500 tokens from 115 to 130, then 300 since the restart.
    assert made.value(d.OUTPUT_TOKENS, Form.RATE) == pytest.approx(1800 / 30)


def test_a_counter_that_vanishes_is_unknown() -> None:
    """A page without the counter says nothing of its rate; it does not say zero."""
    made = history(
        (0, vllm_page(generated=0)), (15, vllm_page(generated=900)), (30, page("vllm:num_requests_running 1"))
    )
    assert math.isnan(made.value(d.OUTPUT_TOKENS, Form.RATE))


def test_a_source_that_tells_computed_tokens_goes_before_all_prompt_tokens() -> None:
    """Tokens found in a cache are no work for prefill where the engine tells them apart."""
    with_cache = history((0, vllm_page(prompt=0, computed=0)), (10, vllm_page(prompt=1000, computed=200)))
    without = history((0, vllm_page(prompt=0)), (10, vllm_page(prompt=1000)))
    assert with_cache.value(d.COMPUTED_TOKENS, Form.RATE) == pytest.approx(20)
    assert without.value(d.COMPUTED_TOKENS, Form.RATE) == pytest.approx(100)


def test_of_tensor_parallel_ranks_one_speaks() -> None:
    """SGLang's ranks all say the same queue; it is counted once, and data-parallel ranks are added up."""
    body = page(
        *(f'sglang:num_queue_reqs{{tp_rank="{tp}",dp_rank="{dp}"}} 5' for tp in (0, 1) for dp in (0, 1)),
        'sglang:num_queue_reqs{tp_rank="0",dp_rank="0",priority="1"} 3',
    )
    made = PodHistory(window_s=60)
    made.take(samples(body, picker(SGLANG.metric_names())), (SGLANG,), 0)
    assert made.value(d.WAITING, Form.GAUGE) == 10


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 10_000)), min_size=2, max_size=40))
def test_a_rate_is_never_negative(steps: list[tuple[float, int]]) -> None:
    """Whatever a counter does, its rate is not below zero, and it is zero for a counter that stands."""
    made = PodHistory(window_s=60)
    names = picker(VLLM.metric_names())
    at = 0.0
    for elapsed_s, total in steps:
        at += elapsed_s
        made.take(samples(vllm_page(generated=total), names), (VLLM,), at)
    assert made.value(d.OUTPUT_TOKENS, Form.RATE) >= 0


async def test_pods_are_read_side_by_side_and_failures_are_problems(transport: Transport) -> None:
    """Readable pods count; a silent one, one of another engine and one that is gone are problems and missing."""
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(ScriptedPeer(answer(vllm_page(running=4), kind=TEXT)))
        silent = await stack.enter_async_context(ScriptedPeer(b""))
        other = await stack.enter_async_context(ScriptedPeer(answer(b'[{"cpu": 1}]')))
        secret = await stack.enter_async_context(ScriptedPeer(answer(b"", status="403 Forbidden")))
        seen = scope("decode-0", "decode-1", "decode-2", "decode-3")
        peers = (good, silent, other, secret)
        pods = [replace(pod, page=peer.url + "/metrics") for pod, peer in zip(seen.pods, peers, strict=True)]
        census = Census([replace(seen, pods=pods)])
        source = ScrapeSource(transport, ScrapeSettings(page_timeout_s=0.2))
        found = await source.measure(census, at=1000.0, timeout_s=5)
        reading = read(found)[0].roles["decode"][o.RUNNING_REQUESTS]
        assert (reading.value, reading.reporting, reading.expected) == (4, 1, 4)
        assert {problem.failure for problem in found.problems} == {
            Failure.TIMEOUT,
            Failure.MALFORMED,
            Failure.UNAUTHORIZED,
        }
        assert any("vLLM has its metrics on its serving port" in problem.message for problem in found.problems)
        # What was said stays while the page is gone, and ages; later it is forgotten.
        good.say = answer(b"", status="500 Oops")
        later = read(await source.measure(census, at=1100.0, timeout_s=5))[0].roles["decode"][o.RUNNING_REQUESTS]
        assert (later.value, later.age_s) == (4, 100)
        last = await source.measure(census, at=1400.0, timeout_s=5)
        assert read(last)[0].roles["decode"] == {}


async def test_more_pods_than_the_bound_are_not_read_in_part(transport: Transport) -> None:
    """Over the bound nothing is read, and the problem says what to do."""
    async with ScriptedPeer(answer(vllm_page(running=4), kind=TEXT)) as peer:
        seen = scope("decode-0", "decode-1")
        census = Census([replace(seen, pods=[replace(pod, page=peer.url) for pod in seen.pods])])
        found = await ScrapeSource(transport, ScrapeSettings(pages_max=1)).measure(census, at=0.0, timeout_s=5)
        assert (found.vectors, found.problems[0].failure, peer.requests) == ({}, Failure.TOO_LARGE, [])
