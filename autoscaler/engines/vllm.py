"""vLLM V1: one series per engine of a pod (data parallel), summed by pod. Names from its metrics documentation.

``num_requests_waiting_by_reason`` splits what waits for capacity from what is deferred (KV transfer, adapters); older
versions have the plain gauge alone. ``prompt_tokens_by_source_total`` tells what prefill computed from what it found in
a cache; without it all prompt tokens count as computed, which errs to the safe side.
"""

from __future__ import annotations

from typing import Final

from autoscaler.engines import dialect as d

_CAPACITY: Final = d.Source(names=("vllm:num_requests_waiting_by_reason",), where=(d.equals("reason", "capacity"),))
_DEFERRED: Final = d.Source(names=("vllm:num_requests_waiting_by_reason",), where=(d.equals("reason", "deferred"),))
_COMPUTED: Final = d.Source(names=("vllm:prompt_tokens_by_source_total",), where=(d.equals("source", "local_compute"),))

VLLM: Final = d.Dialect(
    name="vllm",
    heartbeat=("vllm:num_requests_running",),
    port=8000,
    hint="vLLM has its metrics on its serving port; check that Prometheus scrapes it and keeps the pod's name",
    measures={
        d.WAITING: d.gauge(_CAPACITY, "vllm:num_requests_waiting"),
        d.WAITING_SLOPE: d.slope(_CAPACITY, "vllm:num_requests_waiting"),
        d.TRANSFER_WAITING: d.gauge(_DEFERRED),
        d.RUNNING: d.gauge("vllm:num_requests_running"),
        d.KV_USAGE: d.gauge("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", within=d.Within.MAX, high=1.0),
        d.FIRST_TOKENS: d.rate("vllm:time_to_first_token_seconds_count"),
        d.PROMPT_TOKENS: d.rate("vllm:prompt_tokens_total"),
        d.COMPUTED_TOKENS: d.rate(_COMPUTED, "vllm:prompt_tokens_total"),
        d.OUTPUT_TOKENS: d.rate("vllm:generation_tokens_total"),
        d.OUTPUT_LENGTH: d.mean("vllm:request_generation_tokens"),
        d.PREFILL_SECONDS: d.mean("vllm:request_prefill_time_seconds"),
        d.ITL_SECONDS: d.mean("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        d.QUEUE_SECONDS: d.mean("vllm:request_queue_time_seconds"),
        d.TTFT_BUCKETS: d.buckets("vllm:time_to_first_token_seconds"),
        d.ITL_BUCKETS: d.buckets("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        d.PROMPT_BUCKETS: d.buckets("vllm:request_prompt_tokens"),
    },
)
