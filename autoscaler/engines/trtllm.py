"""TensorRT-LLM: text for Prometheus is at /prometheus/metrics; /metrics of the same port is JSON.

It is served only with ``return_perf_metrics`` (plus ``enable_iter_perf_stats`` for the gauges). Names from its
documentation.
"""

from __future__ import annotations

from typing import Final

from autoscaler.engines import dialect as d

TRTLLM: Final = d.Dialect(
    name="trtllm",
    heartbeat=("trtllm_num_requests_running", "trtllm_request_success_total"),
    page="/prometheus/metrics",
    port=8000,
    hint="TensorRT-LLM serves /prometheus/metrics only with return_perf_metrics: true",
    measures={
        d.WAITING: d.gauge("trtllm_num_requests_waiting"),
        d.WAITING_SLOPE: d.slope("trtllm_num_requests_waiting"),
        d.RUNNING: d.gauge("trtllm_num_requests_running"),
        d.KV_USAGE: d.gauge("trtllm_kv_cache_utilization", within=d.Within.MAX, high=1.0),
        d.FIRST_TOKENS: d.rate("trtllm_time_to_first_token_seconds_count"),
        d.PROMPT_TOKENS: d.rate("trtllm_prompt_tokens_total"),
        d.COMPUTED_TOKENS: d.rate("trtllm_prompt_tokens_total"),
        d.OUTPUT_TOKENS: d.rate("trtllm_generation_tokens_total"),
        d.PREFILL_SECONDS: d.mean("trtllm_request_prefill_time_seconds"),
        d.ITL_SECONDS: d.mean("trtllm_time_per_output_token_seconds"),
        d.QUEUE_SECONDS: d.mean("trtllm_request_queue_time_seconds"),
        d.TTFT_BUCKETS: d.buckets("trtllm_time_to_first_token_seconds"),
        d.ITL_BUCKETS: d.buckets("trtllm_time_per_output_token_seconds"),
    },
)
