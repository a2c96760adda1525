"""SGLang: needs ``--enable-metrics``. Names from its production metrics documentation.

With tensor parallelism every rank may say the same: rank 0 speaks. With priorities the series without one is the total.
Data-parallel ranks are summed. A decode engine's queues before the batch (KV space set aside, KV on its way) are its
transfer queue.
"""

from __future__ import annotations

from typing import Final

from autoscaler.engines import dialect as d

# Rank 0, or no rank said at all.
_FIRST_RANK: Final = (d.Match(label="tp_rank", operator="=~", value="0|"), d.equals("priority", ""))


def _of(*names: str, scale: float = 1.0) -> d.Source:
    return d.Source(names=names, where=_FIRST_RANK, scale=scale)


def _mode(mode: str) -> d.Source:
    return d.Source(names=("sglang:realtime_tokens_total",), where=(*_FIRST_RANK, d.equals("mode", mode)))


def _stage(stage: str) -> d.Source:
    return d.Source(names=("sglang:per_stage_req_latency_seconds",), where=(*_FIRST_RANK, d.equals("stage", stage)))


SGLANG: Final = d.Dialect(
    name="sglang",
    heartbeat=("sglang:num_running_reqs",),
    port=30000,
    hint="SGLang serves metrics only with --enable-metrics",
    measures={
        d.WAITING: d.gauge(_of("sglang:num_queue_reqs")),
        d.WAITING_SLOPE: d.slope(_of("sglang:num_queue_reqs")),
        d.TRANSFER_WAITING: d.gauge(
            _of("sglang:num_decode_prealloc_queue_reqs", "sglang:num_decode_transfer_queue_reqs")
        ),
        d.RUNNING: d.gauge(_of("sglang:num_running_reqs")),
        d.KV_USAGE: d.gauge(_of("sglang:token_usage"), within=d.Within.MAX, high=1.0),
        d.FIRST_TOKENS: d.rate(_of("sglang:time_to_first_token_seconds_count")),
        d.PROMPT_TOKENS: d.rate(_of("sglang:prompt_tokens_total")),
        d.COMPUTED_TOKENS: d.rate(_mode("prefill_compute"), _of("sglang:prompt_tokens_total")),
        d.OUTPUT_TOKENS: d.rate(_mode("decode"), _of("sglang:generation_tokens_total")),
        d.OUTPUT_LENGTH: d.mean(_of("sglang:generation_tokens_histogram")),
        d.PREFILL_SECONDS: d.mean(_stage("prefill_forward")),
        d.ITL_SECONDS: d.mean(_of("sglang:inter_token_latency_seconds")),
        d.QUEUE_SECONDS: d.mean(_of("sglang:queue_time_seconds")),
        d.TTFT_BUCKETS: d.buckets(_of("sglang:time_to_first_token_seconds")),
        d.ITL_BUCKETS: d.buckets(_of("sglang:inter_token_latency_seconds")),
        d.PROMPT_BUCKETS: d.buckets(
            _of("sglang:uncached_prompt_tokens_histogram"), _of("sglang:prompt_tokens_histogram")
        ),
    },
)
