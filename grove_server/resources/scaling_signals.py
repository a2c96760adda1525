"""Signals that autoscalers know without a query, and where the histograms of engines have their edges.

The names are those of the autoscaler's core (a test compares). A share of requests within a time can only be read off a
histogram where the time is an edge of it; between edges it is a guess.

Sources of the edges: vLLM's and SGLang's metrics modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Name and unit of each signal of a whole copy, then of a role.
SIGNAL_UNITS: Final[Mapping[str, str]] = {
    "arrival_requests": "req/s",
    "arrival_tokens": "tokens/s",
    "prompt_tokens": "tokens",
    "prompt_cv2": "count",
    "output_tokens": "tokens",
    "ttft_attainment": "ratio",
    "itl_attainment": "ratio",
    "router_queue": "requests",
    "queued_requests": "requests",
    "queued_tokens": "tokens",
    "running_requests": "requests",
    "prefill_tokens": "tokens/s",
    "decode_tokens": "tokens/s",
    "kv_usage": "ratio",
    "transfer_queue": "requests",
    "prefill_seconds": "seconds",
    "itl_seconds": "seconds",
    "queue_seconds": "seconds",
    "gpu_activity": "ratio",
}

# Seconds, by engine.
TTFT_EDGES_S: Final[Mapping[str, tuple[float, ...]]] = {
    "vllm": (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
    "sglang": (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400),
}
ITL_EDGES_S: Final[Mapping[str, tuple[float, ...]]] = {
    "vllm": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
    "sglang": (
        *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08),
        *(0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8),
    ),
}


def nearest_edges(edges: tuple[float, ...], wanted_s: float) -> tuple[float, ...]:
    """Return the edges around a time; empty if the time is one of them."""
    if wanted_s in edges:
        return ()
    below = [edge for edge in edges if edge < wanted_s][-1:]
    above = [edge for edge in edges if edge > wanted_s][:1]
    return (*below, *above)
