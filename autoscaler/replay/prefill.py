"""The prefill half of the plant: one queue at the router, first come first served, one prompt at a time a replica.

Approximations: a prompt is computed whole by one replica (prefill is bound by computing, so batching prompts shifts
work and adds no speed); prompts do not leave the queue; KV waits at the prefill replica for its transfer without
holding up the next prompt. Cost: one heap operation a request.
"""

from __future__ import annotations

import math
from heapq import heappush, heapreplace
from typing import Final

import numpy as np

from autoscaler.replay.replicas import Replica
from autoscaler.replay.service_times import ServiceTimes
from autoscaler.replay.traces import Floats, Trace

# Requests are handed to the loop in parts of this size, as Python numbers: all at once would take hundreds of MiB.
_PART: Final = 65_536

# A prompt that is done: (at the decode side, request, prompt tokens, output tokens).
Join = tuple[float, int, int, int]


class PrefillPool:
    """Prefill replicas and the queue before them."""

    def __init__(self, trace: Trace, truth: ServiceTimes, noise: Floats) -> None:
        """Take a trace; `noise` has a factor a request for its time."""
        self._trace = trace
        self._per_prompt = (truth.transfer_base_s, truth.transfer_per_token_s)
        self._service_s = (truth.prefill_base_s + truth.prefill_per_token_s * trace.uncached_tokens) * noise
        self._work_tokens = trace.uncached_tokens
        self._token_sums = np.concatenate(([0], np.cumsum(trace.uncached_tokens)))
        # Squares in floats: their sum over a week is beyond what matters in the last digits.
        self._square_sums = np.concatenate(([0.0], np.cumsum(trace.uncached_tokens.astype(np.float64) ** 2)))
        self._free: list[tuple[float, int, Replica]] = []
        self._part: tuple[list[float], list[float], list[int], list[int], list[int]] = ([], [], [], [], [])
        self._part_start = 0
        self.started = 0

    def admit(self, replica: Replica, now_s: float) -> None:
        """Let a ready replica take prompts."""
        replica.free_s = now_s
        heappush(self._free, (now_s, replica.index, replica))

    def release(self, replica: Replica) -> float:
        """Give a replica no more prompts; return when it has done its last one."""
        self._free = sorted(entry for entry in self._free if entry[2] is not replica)
        return replica.free_s

    def advance(self, until_s: float) -> list[Join]:
        """Start all prompts that can start before `until_s`; return them with the time at which they join decode."""
        joins: list[Join] = []
        free = self._free
        if not free:
            return joins
        total = len(self._trace)
        base_s, per_token_s = self._per_prompt
        while self.started < total:
            offset = self.started - self._part_start
            if offset >= len(self._part[0]):
                self._load()
                offset = 0
            arrivals, services, work, prompts, outputs = self._part
            size = len(arrivals)
            while offset < size:
                start_s, index, replica = free[0]
                arrival_s = arrivals[offset]
                start_s = max(start_s, arrival_s)
                if start_s >= until_s:
                    break
                service_s = services[offset]
                end_s = start_s + service_s
                replica.free_s = end_s
                replica.busy_s += service_s
                replica.tokens += work[offset]
                heapreplace(free, (end_s, index, replica))
                prompt = prompts[offset]
                request = self._part_start + offset
                joins.append((end_s + base_s + per_token_s * prompt, request, prompt, outputs[offset]))
                offset += 1
            self.started = self._part_start + offset
            if offset < size:
                break
        return joins

    def _load(self) -> None:
        """Turn the next part of the trace into Python numbers."""
        first, trace = self.started, self._trace
        part = slice(first, first + _PART)
        self._part = (
            trace.arrival_s[part].tolist(),
            self._service_s[part].tolist(),
            self._work_tokens[part].tolist(),
            trace.prompt_tokens[part].tolist(),
            trace.output_tokens[part].tolist(),
        )
        self._part_start = first

    def arrived(self, now_s: float) -> tuple[int, int, float]:
        """Return how many requests came before now, the sum of their uncached prompt tokens, and of the squares."""
        count = int(np.searchsorted(self._trace.arrival_s, now_s))
        return count, int(self._token_sums[count]), float(self._square_sums[count])

    def waiting(self, now_s: float) -> tuple[int, int]:
        """Return the requests in the queue, and their uncached prompt tokens."""
        count, tokens, _ = self.arrived(now_s)
        return max(count - self.started, 0), max(tokens - int(self._token_sums[min(self.started, count)]), 0)

    @staticmethod
    def busy_s(replica: Replica, now_s: float) -> float:
        """Return how long a replica has computed until now."""
        return replica.busy_s - max(replica.free_s - now_s, 0.0) if math.isfinite(replica.ready_s) else 0.0
