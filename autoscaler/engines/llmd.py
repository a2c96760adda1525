"""llm-d's endpoint picker (EPP): what it says of requests, and of the endpoints it picks from.

Its metrics were renamed from ``inference_extension_`` and others to ``llm_d_epp_``; both are known. Accounting is per
process, so several pickers are summed. Its series of endpoints that are gone stayed for ever up to v0.10: the join with
the pods that exist drops them. The pool's saturation is not used: an empty or stale pool reads 1.0, like a full one.
"""

from __future__ import annotations

from typing import Final

from autoscaler.engines import dialect as d

LLMD_PICKER: Final = d.Dialect(
    name="llm-d",
    heartbeat=("llm_d_epp_ready_endpoints", "inference_pool_ready_pods"),
    port=9090,
    hint="the endpoint picker serves /metrics on port 9090 and may want a bearer token",
    measures={
        d.FRONT_QUEUE: d.gauge("llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size"),
        d.FRONT_ARRIVALS: d.rate("llm_d_epp_request_total", "inference_objective_request_total"),
        d.FRONT_PROMPT_LENGTH: d.mean("llm_d_epp_request_input_tokens", "inference_objective_input_tokens"),
        d.FRONT_CACHED_LENGTH: d.mean("llm_d_epp_request_cached_tokens"),
        d.FRONT_OUTPUT_LENGTH: d.mean("llm_d_epp_request_output_tokens", "inference_objective_output_tokens"),
        d.FRONT_TTFT_BUCKETS: d.buckets("llm_d_epp_request_ttft_seconds"),
        d.FRONT_ITL_BUCKETS: d.buckets("llm_d_epp_request_streaming_itl_seconds"),
    },
)

# What the picker says of each endpoint: the series name the pod as ``endpoint_name``, with its namespace beside it.
LLMD_ENDPOINTS: Final = d.Dialect(
    name="llm-d-endpoints",
    heartbeat=("llm_d_epp_inflight_requests",),
    pod_labels=(
        ("exported_namespace", "endpoint_name"),
        ("namespace", "endpoint_name"),
    ),
    page="",
    hint="older endpoint pickers do not say what is under way at each endpoint",
    measures={d.QUEUED_TOKENS: d.gauge("llm_d_epp_inflight_tokens")},
)
