"""What the engine says of itself: vLLM's metrics by their exact names, and DCGM's for the GPU it pretends to have.

The names and edges are those of vLLM V1 and of the DCGM exporter; both stand on one page here, because a process
without a GPU has no exporter beside it. The GPU is active while a step is computed, as a share
of the last ``WINDOW_S``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from examples.engine.batch import Batch, Sequence
from examples.engine.exposition import Histogram, family, labelled

WINDOW_S: Final = 5.0
_MIB_PER_KV_TOKEN: Final = 0.125
_TTFT_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_ITL_S: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_S: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_TOKENS: Final = tuple(float(digit * 10**power) for power in range(5) for digit in (1, 2, 5))


class Activity:
    """How much of the last seconds was spent computing."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, float]] = deque()

    def add(self, start_s: float, end_s: float) -> None:
        """Account for a step; steps come in order."""
        if self._spans and self._spans[-1][1] >= start_s:
            start_s = self._spans.pop()[0]
        self._spans.append((start_s, end_s))
        while self._spans[0][1] < end_s - WINDOW_S:
            self._spans.popleft()

    def share(self, now_s: float) -> float:
        """Return the active share, 0 to 1, of the window that ends now."""
        begin_s = now_s - WINDOW_S
        active = sum(max(0.0, min(end, now_s) - max(start, begin_s)) for start, end in self._spans)
        return min(1.0, active / WINDOW_S)


class Meters:
    """All metrics of one engine."""

    def __init__(self, model: str, pod: Mapping[str, str]) -> None:
        """*pod* are the labels by which DCGM would name the pod, namespace and pod, where they are known."""
        self._labels = {"engine": "0", "model_name": model}
        self._pod = dict(pod)
        self.activity = Activity()
        self._prompt_tokens = dict.fromkeys(("local_compute", "local_cache_hit", "external_kv_transfer"), 0)
        self._generated = 0
        self._ended = dict.fromkeys(("length", "abort"), 0)
        self._ttft = Histogram("vllm:time_to_first_token_seconds", "Time to first token.", _TTFT_S)
        self._itl = Histogram("vllm:inter_token_latency_seconds", "Time between tokens.", _ITL_S)
        self._queue = Histogram("vllm:request_queue_time_seconds", "Time in the queue.", _REQUEST_S)
        self._prefill = Histogram("vllm:request_prefill_time_seconds", "Time from place to first token.", _REQUEST_S)
        self._whole = Histogram("vllm:e2e_request_latency_seconds", "Time of whole requests.", _REQUEST_S)
        self._prompts = Histogram("vllm:request_prompt_tokens", "Tokens of prompts.", _TOKENS)
        self._answers = Histogram("vllm:request_generation_tokens", "Tokens of answers.", _TOKENS)

    def token(self, sequence: Sequence, now_s: float) -> None:
        """Count a token that a sequence got; its times are set here."""
        self._generated += 1
        if sequence.generated == 1:
            source = "external_kv_transfer" if sequence.comes_from_elsewhere else "local_compute"
            self._prompt_tokens[source] += sequence.prompt_tokens
            sequence.first_token_s = now_s
            self._ttft.observe(max(0.0, now_s - sequence.arrived_s))
            self._queue.observe(max(0.0, sequence.admitted_s - sequence.arrived_s))
            self._prefill.observe(max(0.0, now_s - sequence.admitted_s))
        else:
            self._itl.observe(max(0.0, now_s - sequence.last_token_s))
        sequence.last_token_s = now_s
        if sequence.is_done:
            self._end(sequence, "length")

    def aborted(self, sequence: Sequence) -> None:
        """Count a request whose client hung up."""
        self._end(sequence, "abort")

    def page(self, batch: Batch, now_s: float) -> bytes:
        """Return the page of metrics."""
        return "".join(f"{line}\n" for line in self._lines(batch, now_s)).encode()

    def _end(self, sequence: Sequence, how: str) -> None:
        self._ended[how] += 1
        self._prompts.observe(sequence.prompt_tokens)
        self._answers.observe(sequence.generated)
        if sequence.generated:
            self._whole.observe(max(0.0, sequence.last_token_s - sequence.arrived_s))

    def _lines(self, batch: Batch, now_s: float) -> Iterator[str]:
        labels = self._labels
        waiting, fetching = len(batch.waiting), batch.fetching
        gauges = {
            "vllm:num_requests_running": ("Requests in the batch.", len(batch.running) - fetching),
            "vllm:num_requests_waiting": ("Requests that wait.", waiting + fetching),
            "vllm:kv_cache_usage_perc": ("Used share of the KV cache.", batch.kv_reserved / batch.figures.kv_tokens),
        }
        for name, (words, value) in gauges.items():
            yield from family(name, "gauge", words, {labelled(name, labels): value})
        yield from self._split(
            "vllm:num_requests_waiting_by_reason", "gauge", "reason", {"capacity": waiting, "deferred": fetching}
        )
        total = {"vllm:prompt_tokens_total": sum(self._prompt_tokens.values())}
        total["vllm:generation_tokens_total"] = self._generated
        for name, value in total.items():
            yield from family(name, "counter", "Tokens.", {labelled(name, labels): value})
        yield from self._split("vllm:prompt_tokens_by_source_total", "counter", "source", self._prompt_tokens)
        yield from self._split("vllm:request_success_total", "counter", "finished_reason", self._ended)
        histograms = (self._ttft, self._itl, self._queue, self._prefill, self._whole, self._prompts, self._answers)
        for histogram in histograms:
            yield from histogram.lines(labels)
        yield from self._gpu(batch, now_s)

    def _split(self, name: str, kind: str, by: str, values: Mapping[str, float]) -> list[str]:
        series = {labelled(name, {**self._labels, by: key}): value for key, value in values.items()}
        return family(name, kind, f"By {by}.", series)

    def _gpu(self, batch: Batch, now_s: float) -> Iterator[str]:
        labels = {**self._pod, "gpu": "0", "UUID": "GPU-simulated", "device": "nvidia0", "modelName": "simulated"}
        share = self.activity.share(now_s)
        values = {
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("Ratio of time the graphics engine is active.", share),
            "DCGM_FI_DEV_GPU_UTIL": ("GPU utilization (in %).", round(share * 100)),
            "DCGM_FI_DEV_FB_USED": ("Framebuffer memory used (in MiB).", batch.kv_reserved * _MIB_PER_KV_TOKEN),
        }
        for name, (words, value) in values.items():
            yield from family(name, "gauge", words, {labelled(name, labels): value})
