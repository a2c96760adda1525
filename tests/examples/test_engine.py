"""The example's engine, as a process: its figures follow from its model, and its page is what vLLM's is."""

from __future__ import annotations

import asyncio
import signal

import pytest

from autoscaler.engines.dcgm import DCGM
from autoscaler.engines.vllm import VLLM
from examples import wire
from examples.engine.batch import Figures
from tests.examples.programs import Program, ask, engine, events
from tests.waiting import until_seen

# Alternatives that older versions of vLLM had, and names that another metric here stands for.
OLD_NAMES = {
    "vllm:gpu_cache_usage_perc",
    "vllm:time_per_output_token_seconds_bucket",
    "vllm:time_per_output_token_seconds_count",
    "vllm:time_per_output_token_seconds_sum",
}


async def mean(program: Program, name: str) -> float:
    """Return the mean of a histogram."""
    return await program.measure(f"{name}_sum") / await program.measure(f"{name}_count")


async def test_the_page_has_every_metric_that_the_autoscaler_reads() -> None:
    """All names of the vLLM and the DCGM dialect are on the page, as Prometheus's own parser reads it."""
    async with engine() as program:
        await program.complete(5, 2)
        names = {name for name, _ in await program.measures()}
    assert set(VLLM.metric_names()) - OLD_NAMES - names == set()
    assert set(DCGM.metric_names()) - names == set()


async def test_times_between_tokens_follow_from_the_model() -> None:
    """Eight requests side by side: a token takes one step of eight, whatever the machine does meanwhile."""
    figures = Figures(step_base_s=0.02, step_per_sequence_s=0.002, step_per_kv_token_s=0.0, prefill_base_s=0.0)
    async with engine(
        step_base_s=0.02, step_per_sequence_s=0.002, step_per_kv_token_s=0.0, prefill_base_s=0.0
    ) as program:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(program.complete(1, 40))
        # At both ends of the batch some decode alone.
        between = await mean(program, "vllm:inter_token_latency_seconds")
        assert figures.decode_step_s(1, 0) < between <= figures.decode_step_s(8, 0) * 1.05
        assert between == pytest.approx(figures.decode_step_s(8, 0), rel=0.15)
        assert await program.measure("vllm:generation_tokens_total") == 8 * 40
        assert await program.measure("vllm:request_generation_tokens_sum") == 8 * 40


async def test_a_prompt_takes_its_tokens_over_the_rate() -> None:
    """Prefill time is the base and the tokens at their rate; what waits for a place waits in the queue's time."""
    async with engine(prefill_tokens_per_second=1_000, prefill_base_s=0.05, max_sequences=1) as program:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(program.complete(100, 1))
        assert await mean(program, "vllm:request_prefill_time_seconds") == pytest.approx(0.15, rel=0.1)
        # The second waits for one, the third for two.
        assert await program.measure("vllm:request_queue_time_seconds_sum") == pytest.approx(0.45, rel=0.2)
        assert await program.measure("vllm:prompt_tokens_by_source_total", source="local_compute") == 300
        assert await program.measure("DCGM_FI_PROF_GR_ENGINE_ACTIVE") == pytest.approx(0.45 / 5.0, rel=0.2)


async def test_kv_admits_no_more_than_fits() -> None:
    """Of three requests that need half of the KV each two run and one waits for capacity; one too large is refused."""
    async with engine(kv_tokens=200, step_base_s=0.05) as program:
        sent = [asyncio.create_task(program.complete(50, 50)) for _ in range(3)]
        await until_seen(
            lambda: program.measure("vllm:num_requests_running"), lambda n: n == 2, lambda n: f"2 run, not {n}"
        )
        assert await program.measure("vllm:num_requests_waiting_by_reason", reason="capacity") == 1
        assert await program.measure("vllm:kv_cache_usage_perc") == 1.0
        status, answer = await ask(program.host, program.port, 190, 11)
        assert (status, "201 tokens" in answer["error"]["message"]) == (400, True)
        await asyncio.gather(*sent)


async def test_decode_fetches_what_prefill_computed() -> None:
    """The KV of a prompt is kept, is fetched once, is not computed again, and is free afterwards."""
    async with engine() as prefill, engine() as decode:
        first = await prefill.complete(64, 1, kv_transfer_params={"do_remote_decode": True})
        assert await prefill.measure("vllm:kv_cache_usage_perc") == 64 / Figures().kv_tokens
        await decode.complete(64, 8, kv_transfer_params=first["kv_transfer_params"])
        assert await decode.measure("vllm:prompt_tokens_by_source_total", source="external_kv_transfer") == 64
        assert await decode.measure("vllm:prompt_tokens_by_source_total", source="local_compute") == 0
        assert await prefill.measure("vllm:kv_cache_usage_perc") == 0.0
        # It is not there a second time, so now it is computed.
        await decode.complete(64, 8, kv_transfer_params=first["kv_transfer_params"])
        assert await decode.measure("vllm:prompt_tokens_by_source_total", source="local_compute") == 64


async def test_tokens_are_streamed() -> None:
    """A stream has all tokens, says which is the last, and ends with its mark."""
    async with engine() as program:
        found = await events(program.host, program.port, {"prompt": "one two three", "max_tokens": 6})
    assert found[-1] == "[DONE]"
    assert sum(event.count("word ") for event in found) == 6
    assert [event for event in found[:-1] if '"length"' in event] == found[-2:-1]


async def test_a_stop_finishes_what_is_under_way() -> None:
    """After SIGTERM health fails, new requests are refused, the old one gets all of its answer, the exit is clean."""
    async with engine(step_base_s=0.05) as program:
        under_way = asyncio.create_task(program.complete(5, 30))
        await until_seen(
            lambda: program.measure("vllm:num_requests_running"), lambda n: n == 1, lambda n: f"one runs, not {n}"
        )
        program.tell(signal.SIGTERM)
        await until_seen(lambda: health(program), lambda s: s == 503, lambda s: f"health fails, not {s}")
        assert (await ask(program.host, program.port, 5, 1))[0] == 503
        assert (await under_way)["usage"]["completion_tokens"] == 30
        assert await program.ended() == 0


async def test_a_stop_does_not_wait_for_kv_that_nobody_fetches() -> None:
    """KV of a request that was given up holds a stop up for a moment only."""
    async with engine() as program:
        await program.complete(5, 1, kv_transfer_params={"do_remote_decode": True})
        program.tell(signal.SIGTERM)
        async with asyncio.timeout(15.0):
            assert await program.ended() == 0


async def test_who_hangs_up_is_aborted() -> None:
    """A client that leaves frees its place at once, also while it waits, and is counted as aborted."""
    async with engine(max_sequences=1, step_base_s=0.05) as program:
        sent = [asyncio.create_task(program.complete(5, 1000)) for _ in range(2)]
        await until_seen(
            lambda: program.measure("vllm:num_requests_waiting"), lambda n: n == 1, lambda n: f"one waits, not {n}"
        )
        for task in sent:
            task.cancel()
        await until_seen(
            lambda: program.measure("vllm:request_success_total", finished_reason="abort"),
            lambda n: n == 2,
            lambda n: f"both are aborted, not {n}",
        )
        assert await program.measure("vllm:kv_cache_usage_perc") == 0.0


async def health(program: Program) -> int:
    """Return the status of the health page."""
    async with wire.asked(program.host, program.port, "GET", "/health") as answer:
        return answer.status


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"prompt": ""}', b'{"prompt": "a", "max_tokens": 0}', b'{"prompt": "a", "kv_transfer_params": 3}'],
)
async def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    """A body that makes no sense is a client's error and leaves nothing behind."""
    async with engine() as program:
        async with wire.asked(program.host, program.port, "POST", "/v1/completions", body) as answer:
            assert answer.status == 400
        assert await program.measure("vllm:num_requests_running") == 0
        assert await health(program) == 200
