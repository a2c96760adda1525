"""Continuous batching in steps, as vLLM does it: who is in the batch, what a step computes, how long it takes. Pure.

A step gives one token to each sequence that decodes, and spends what is left of its tokens on prompts, first come
first served. It takes base + per_sequence x B + per_kv_token x KV for B decoding sequences that hold KV tokens, and on
top of that prompt tokens / rate, with prefill_base for each prompt that begins: the model of the autoscaler's sizing. A
sequence is admitted when a place and the KV of prompt and answer are free, strictly in turn; nothing is preempted.

Not here: time itself, and who asked.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

QUEUE_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the engine can do. The defaults are those of no machine; they make a laptop's minute worth looking at."""

    prefill_tokens_per_second: float = 20_000.0
    prefill_base_s: float = 0.005
    step_base_s: float = 0.010
    step_per_sequence_s: float = 0.000_1
    step_per_kv_token_s: float = 0.000_000_02
    transfer_base_s: float = 0.002
    transfer_per_token_s: float = 0.000_001
    kv_tokens: int = 400_000
    max_sequences: int = 256
    step_tokens_max: int = 8_192

    def transfer_s(self, tokens: int) -> float:
        """Return how long the KV of a prompt travels."""
        return self.transfer_base_s + self.transfer_per_token_s * tokens

    def decode_step_s(self, sequences: int, kv_tokens: int) -> float:
        """Return how long a step takes that computes no prompt."""
        return self.step_base_s + self.step_per_sequence_s * sequences + self.step_per_kv_token_s * kv_tokens


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One request. ``computed`` are the tokens of its prompt whose KV is here; ``is_fetching`` while they travel."""

    prompt_tokens: int
    output_tokens: int
    arrived_s: float
    comes_from_elsewhere: bool = False
    computed: int = 0
    generated: int = 0
    is_fetching: bool = False
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    last_token_s: float = math.nan

    @property
    def kv_whole(self) -> int:
        """KV tokens that it needs at its end."""
        return self.prompt_tokens + self.output_tokens

    @property
    def kv_held(self) -> int:
        """KV tokens that it has now."""
        return self.computed + self.generated

    @property
    def is_done(self) -> bool:
        """Whether it has all its tokens."""
        return self.generated >= self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step computes: who gets a token by decoding, and how many tokens of whose prompt; and how long."""

    decoding: tuple[Sequence, ...]
    prompts: tuple[tuple[Sequence, int], ...]
    seconds: float


@dataclass(slots=True, kw_only=True)
class Batch:
    """All sequences of an engine. ``kept`` are KV tokens of prompts that another engine has yet to fetch."""

    figures: Figures
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    kept: int = 0

    @property
    def kv_reserved(self) -> int:
        """KV tokens that nobody else can have."""
        return self.kept + sum(sequence.kv_whole for sequence in self.running)

    @property
    def fetching(self) -> int:
        """How many sequences have a place and wait for their KV."""
        return sum(sequence.is_fetching for sequence in self.running)

    def fits(self, sequence: Sequence) -> bool:
        """Return whether an empty engine could hold the sequence."""
        return sequence.kv_whole <= self.figures.kv_tokens

    def offer(self, sequence: Sequence) -> bool:
        """Queue a sequence; False if the queue is full."""
        if len(self.waiting) >= QUEUE_MAX:
            return False
        self.waiting.append(sequence)
        return True

    def admit(self, now_s: float) -> list[Sequence]:
        """Give places to those that wait, in turn, and return who got one."""
        admitted = []
        free = self.figures.kv_tokens - self.kv_reserved
        while self.waiting and len(self.running) < self.figures.max_sequences and self.waiting[0].kv_whole <= free:
            sequence = self.waiting.popleft()
            free -= sequence.kv_whole
            sequence.admitted_s = max(now_s, sequence.arrived_s)
            sequence.is_fetching = sequence.comes_from_elsewhere
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def next_step(self) -> Step | None:
        """Return what is to be computed now, None if there is nothing."""
        ready = [sequence for sequence in self.running if not sequence.is_fetching]
        decoding = tuple(sequence for sequence in ready if sequence.computed >= sequence.prompt_tokens)
        left = self.figures.step_tokens_max - len(decoding)
        prompts = []
        for sequence in ready:
            tokens = min(left, sequence.prompt_tokens - sequence.computed)
            if tokens > 0:
                prompts.append((sequence, tokens))
                left -= tokens
        if not decoding and not prompts:
            return None
        seconds = 0.0
        if decoding:
            seconds += self.figures.decode_step_s(len(decoding), sum(sequence.kv_held for sequence in decoding))
        seconds += sum(tokens for _, tokens in prompts) / self.figures.prefill_tokens_per_second
        seconds += self.figures.prefill_base_s * sum(sequence.computed == 0 for sequence, _ in prompts)
        return Step(decoding=decoding, prompts=tuple(prompts), seconds=seconds)

    def finish(self, step: Step) -> list[Sequence]:
        """Account for a step that was computed, and return who got a token. Who is done leaves the batch."""
        told = list(step.decoding)
        for sequence, tokens in step.prompts:
            sequence.computed += tokens
            if sequence.computed >= sequence.prompt_tokens:
                told.append(sequence)
        for sequence in told:
            sequence.generated += 1
        self.running = [sequence for sequence in self.running if not sequence.is_done]
        return told

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence whose client is gone, wherever it is."""
        self.running = [other for other in self.running if other is not sequence]
        if sequence in self.waiting:
            self.waiting.remove(sequence)
