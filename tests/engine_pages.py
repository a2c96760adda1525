"""Pages of engines for tests: the real metric names, with numbers that a test chooses."""

from collections.abc import Mapping, Sequence


def page(*lines: str) -> bytes:
    """Return a page of some lines."""
    return "".join(f"{line}\n" for line in lines).encode()


def vllm_page(
    *,
    running: float = 0,
    waiting: float = 0,
    kv: float = 0.0,
    prompt: float = 0,
    computed: float | None = None,
    generated: float = 0,
    first_tokens: int = 0,
    ttft: Mapping[str, int] | None = None,
    old_names: bool = False,
) -> bytes:
    """Return what a vLLM engine says; counters are totals, *ttft* are cumulative buckets."""
    label = '{engine="0",model_name="m"}'
    lines = [
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{label} {running}",
        f"vllm:num_requests_waiting{label} {waiting}",
        f"vllm:{'gpu' if old_names else 'kv'}_cache_usage_perc{label} {kv}",
        f"vllm:prompt_tokens_total{label} {prompt}",
        f"vllm:generation_tokens_total{label} {generated}",
        *_histogram(
            "vllm:time_to_first_token_seconds", ttft or {"0.5": first_tokens, "1.0": first_tokens}, first_tokens
        ),
        *_histogram("vllm:inter_token_latency_seconds", {"0.025": 0, "0.05": int(generated)}, int(generated), 0.03),
    ]
    if computed is not None:
        source = 'engine="0",model_name="m",source='
        lines.append(f'vllm:prompt_tokens_by_source_total{{{source}"local_compute"}} {computed}')
        lines.append(f'vllm:prompt_tokens_by_source_total{{{source}"local_cache_hit"}} {prompt - computed}')
    return page(*lines)


def _histogram(name: str, cumulative: Mapping[str, int], count: int, mean: float = 0.2) -> Sequence[str]:
    edges = {**cumulative, "+Inf": count}
    return [
        *(f'{name}_bucket{{engine="0",le="{edge}",model_name="m"}} {value}' for edge, value in edges.items()),
        f'{name}_sum{{engine="0",model_name="m"}} {count * mean}',
        f'{name}_count{{engine="0",model_name="m"}} {count}',
    ]
