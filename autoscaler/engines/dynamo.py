"""NVIDIA Dynamo: what its frontend says of requests. Names from its metrics documentation.

Its workers pass the metrics of their engine through, so those are read in the engine's own dialect; only what the
frontend alone knows stands here. ``requests_started_total`` counts arrivals; older frontends have only what finished,
which falls short of arrivals under overload, so it comes second.
"""

from __future__ import annotations

from typing import Final

from autoscaler.engines import dialect as d

DYNAMO: Final = d.Dialect(
    name="dynamo",
    heartbeat=("dynamo_frontend_inflight_requests",),
    port=8000,
    hint="Dynamo's frontend serves /metrics on its HTTP port",
    measures={
        d.FRONT_ARRIVALS: d.rate("dynamo_frontend_requests_started_total", "dynamo_frontend_requests_total"),
        d.FRONT_QUEUE: d.gauge("dynamo_frontend_router_queue_pending_requests"),
        d.FRONT_PROMPT_LENGTH: d.mean("dynamo_frontend_input_sequence_tokens"),
        d.FRONT_CACHED_LENGTH: d.mean("dynamo_frontend_cached_tokens"),
        d.FRONT_OUTPUT_LENGTH: d.mean("dynamo_frontend_output_sequence_tokens"),
        d.FRONT_TTFT_BUCKETS: d.buckets("dynamo_frontend_time_to_first_token_seconds"),
        d.FRONT_ITL_BUCKETS: d.buckets("dynamo_frontend_inter_token_latency_seconds"),
    },
)
