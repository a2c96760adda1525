"""What one replica of a role can do at the present mix of requests, from its profile and from what was seen. Pure.

Decode: the largest batch whose step keeps the time between tokens, fits the KV cache and the engine's limit; of that,
as much as leaves room for a replica's bad moments, because load varies more from replica to replica with few
sequences, or with contexts of very different lengths. What it generates is batch by step. Times of the profile are
corrected by what was measured, within bounds, slowly: a profile may be off by a third, and a bad minute must not
rewrite it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoscaler import observation as seen
from autoscaler.memory import RoleMemory
from autoscaler.observation import RoleState
from autoscaler.policy import Profile, Slo, Tuning
from autoscaler.validating import Judgements


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What requests look like: mean tokens of prompts that are not cached, of whole prompts, of answers; None unknown.

    ``variation`` is the squared coefficient of variation of uncached prompts.
    """

    uncached: float | None = None
    prompt: float | None = None
    output: float | None = None
    variation: float = 1.0

    @property
    def context(self) -> float:
        """Mean tokens that a request holds in the KV cache while it is decoded."""
        return (self.prompt or self.uncached or 0.0) + (self.output or 0.0) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Of one replica: prefill tokens per second, the best batch, its step and tokens per second; None is unknown.

    ``is_infeasible`` says that no number of replicas keeps the latency target of the role.
    """

    prefill_tokens_per_s: float | None = None
    prefill_base_s: float = 0.0
    batch: float | None = None
    step_s: float | None = None
    decode_tokens_per_s: float | None = None
    is_infeasible: bool = False
    source: str = "profile"


def prefill_capacity(profile: Profile, memory: RoleMemory, slo: Slo, mix: Mix) -> Capacity:
    """Return what a replica prefills."""
    rate, source = profile.prefill_tokens_per_s, "profile"
    if rate is None:
        if memory.prefill_rate <= 0:
            return Capacity(source="default")
        rate, source = memory.prefill_rate, "measured"
    elif memory.prefill_factor != 1.0:
        rate, source = rate / memory.prefill_factor, "measured"
    base_s = profile.prefill_base_s * memory.prefill_factor
    is_infeasible = False
    if slo.ttft_s is not None and mix.uncached is not None:
        allowed_s = slo.ttft_s + slo.ttft_per_token_s * (mix.prompt or mix.uncached)
        is_infeasible = base_s + mix.uncached / rate + profile.transfer_s > allowed_s
    return Capacity(prefill_tokens_per_s=rate, prefill_base_s=base_s, is_infeasible=is_infeasible, source=source)


def decode_capacity(profile: Profile, memory: RoleMemory, slo: Slo, mix: Mix, tuning: Tuning) -> Capacity:
    """Return what a replica decodes."""
    context = mix.context
    batch = float(profile.max_sequences)
    if profile.kv_tokens is not None and context > 0:
        batch = min(batch, max(1.0, tuning.kv_utilization * profile.kv_tokens / context))
    if profile.decode_base_s is None:
        return Capacity(batch=batch, source="default")
    factor = memory.decode_factor
    base_s = profile.decode_base_s * factor
    slope_s = (profile.decode_per_sequence_s + profile.decode_per_kv_token_s * context) * factor
    is_infeasible = False
    if slo.itl_s is not None:
        room_s = slo.itl_s * (1.0 - tuning.itl_margin) - base_s
        is_infeasible = room_s < slope_s
        if not is_infeasible and slope_s > 0:
            share = profile.decode_per_kv_token_s * context * factor / slope_s
            batch = _steady(min(batch, room_s / slope_s), share, mix, tuning)
    batch = max(1.0, float(math.floor(batch)))
    step_s = base_s + slope_s * batch
    return Capacity(
        batch=batch,
        step_s=step_s,
        decode_tokens_per_s=batch / step_s,
        is_infeasible=is_infeasible,
        source="profile" if factor == 1.0 else "measured",
    )


def _steady(most: float, share: float, mix: Mix, tuning: Tuning) -> float:
    """Return the mean batch m with which m and ``batch_tail`` of its deviations are ``most``: a square-root rule.

    A batch is near Poisson in number, and sequences differ in what they cost by ``share`` of it, as their contexts do.
    Square-root staffing: Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers" (1981).
    """
    tail = tuning.batch_tail * math.sqrt(1.0 + share * share * mix.variation)
    root = (math.sqrt(tail * tail + 4.0 * most) - tail) / 2.0
    return root * root


def learned(
    profile: Profile,
    memory: RoleMemory,
    state: RoleState,
    readings: Judgements,
    mix: Mix,
    tuning: Tuning,
    elapsed_s: float,
) -> tuple[float, float, float]:
    """Return the factors on times of prefill and decode, and the prefill rate seen under load, after one more tick."""
    prefill, decode, rate = memory.prefill_factor, memory.decode_factor, memory.prefill_rate
    if not profile.does_learn or elapsed_s <= 0 or state.ready <= 0:
        return prefill, decode, rate
    weight = 1.0 - math.exp(-elapsed_s / tuning.profile_s)
    took_s = _fresh(readings, seen.PREFILL_SECONDS)
    if took_s and profile.prefill_tokens_per_s and mix.uncached:
        expected_s = profile.prefill_base_s + mix.uncached / profile.prefill_tokens_per_s
        prefill = _corrected(prefill, took_s / expected_s, weight, tuning.profile_bound)
    itl_s, running = _fresh(readings, seen.ITL_SECONDS), _fresh(readings, seen.RUNNING_REQUESTS)
    if itl_s and running and profile.decode_base_s is not None and running >= state.ready:
        batch = running / state.ready
        per_s = profile.decode_per_sequence_s + profile.decode_per_kv_token_s * mix.context
        decode = _corrected(decode, itl_s / (profile.decode_base_s + per_s * batch), weight, tuning.profile_bound)
    queued, tokens = _fresh(readings, seen.QUEUED_REQUESTS), _fresh(readings, seen.PREFILL_TOKENS)
    if profile.prefill_tokens_per_s is None and tokens and queued and queued >= state.ready:
        # Only a replica that always has work shows what it can do.
        found = tokens / state.ready
        rate = found if rate <= 0 or found > rate else rate + weight * (found - rate)
    return prefill, decode, rate


def _fresh(readings: Judgements, name: str) -> float | None:
    found = readings.get(name)
    return found.value if found is not None and found.is_fresh else None


def _corrected(factor: float, found: float, weight: float, bound: float) -> float:
    wanted = min(1.0 + bound, max(1.0 - bound, found))
    return factor + weight * (wanted - factor)
