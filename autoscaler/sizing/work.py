"""Sizing by work: tokens that come in and wait, sequences and KV that are held, against what a replica can do. Pure.

Each answer has a size to grow to, and a floor to shrink to that is reckoned with more demand (``Inputs.widening``) and
the low outlook, so that a role shrinks only where the rest can carry the load. Prefill: tokens per second at a target
utilisation, a wait within the time to first token (Erlang C), and a backlog that is gone within a while. Decode: the
tightest of tokens per second at the inter-token target, resident sequences, and KV tokens.
"""

from __future__ import annotations

import math

from autoscaler import observation as seen
from autoscaler.decision import Proposal, Reason
from autoscaler.demand.forecast import Outlook
from autoscaler.sizing.capacity import Capacity
from autoscaler.sizing.inputs import Inputs
from autoscaler.sizing.queueing import servers_for
from grove_server.resources import scaling_policy as schema

# A size is not raised for the last bit of a division.
_EPSILON = 1e-9
# Of the time to first token a part is always left for waiting, however long prompts are.
_WAIT_SHARE_MIN = 0.1
_NORMAL_95 = 1.645


def propose_work(inputs: Inputs) -> Proposal:
    """Size by the tokens per second that are expected, of prefill, decode, or both."""
    parts: list[tuple[Outlook | None, float | None]] = []
    if inputs.prefill is not None:
        parts.append((inputs.prefill_demand, inputs.prefill.prefill_tokens_per_s))
    if inputs.decode is not None:
        parts.append((inputs.decode_demand, inputs.decode.decode_tokens_per_s))
    if any(rate is None for _, rate in parts):
        if len(parts) > 1 or inputs.prefill is not None:
            return Proposal(policy=schema.WORK, reason=Reason.PROFILE_UNKNOWN, formula="no profile, nothing learned")
        return Proposal(policy=schema.WORK, reason=Reason.PROFILE_UNKNOWN, formula="no decodeStep")
    if any(outlook is None for outlook, _ in parts):
        return _unknown(schema.WORK, "demand is not known")
    role = inputs.role
    units = sum(outlook.ahead / rate for outlook, rate in parts if outlook and rate)
    low_units = sum(outlook.low / rate for outlook, rate in parts if outlook and rate)
    size, floor = _ceil(units / role.utilization), _ceil(low_units / role.scale_in_utilization)
    reason = Reason.WORK
    formula = " + ".join(f"{outlook.ahead:.0f} / {rate:.0f} tokens/s" for outlook, rate in parts if outlook and rate)
    formula = f"({formula}) / {role.utilization:g}"
    if inputs.prefill is not None and inputs.decode is None:
        waiting = _size_for_wait(inputs, inputs.prefill, 1.0)
        if waiting is not None:
            floor = max(floor, _size_for_wait(inputs, inputs.prefill, inputs.widening) or 0)
            if waiting > size:
                size, reason = waiting, Reason.LATENCY
                formula = f"wait within {_wait_s(inputs, inputs.prefill):.2g}s at {units:.2f} busy replicas"
    return Proposal(
        policy=schema.WORK,
        reason=reason,
        replicas=size,
        floor=max(size, floor + inputs.missing),
        formula=formula,
        is_trusted=inputs.is_demand_fresh,
    )


def propose_backlog(inputs: Inputs) -> Proposal:
    """Size so that the prompts that wait are done within a while, beside those that come."""
    tokens, queued = inputs.reading(seen.QUEUED_TOKENS), inputs.reading(seen.QUEUED_REQUESTS)
    capacity = inputs.prefill
    if capacity is None or capacity.prefill_tokens_per_s is None:
        return Proposal(policy=schema.BACKLOG, reason=Reason.PROFILE_UNKNOWN)
    if tokens is None and queued is None:
        return Proposal(policy=schema.BACKLOG, reason=Reason.NO_CHANGE, formula="not measured")
    backlog: float | None = None
    is_fresh = False
    if tokens is not None and tokens.value is not None:
        backlog, is_fresh = tokens.value, tokens.is_fresh
    elif queued is not None and queued.value is not None and (inputs.mix.uncached is not None or queued.value == 0):
        backlog, is_fresh = queued.value * (inputs.mix.uncached or 0.0), queued.is_fresh
    if backlog is None or inputs.prefill_demand is None:
        return _unknown(schema.BACKLOG, "what waits is not known")
    drain_s = inputs.policy.tuning.backlog_drain_s
    rate = capacity.prefill_tokens_per_s
    size = _ceil((inputs.prefill_demand.now + backlog / drain_s) / rate) if backlog > 0 else 0
    return Proposal(
        policy=schema.BACKLOG,
        reason=Reason.BACKLOG,
        replicas=size,
        floor=size,
        formula=f"({inputs.prefill_demand.now:.0f} + {backlog:.0f} tokens / {drain_s:g}s) / {rate:.0f} tokens/s",
        is_trusted=is_fresh and inputs.is_demand_fresh,
    )


def propose_residents(inputs: Inputs) -> Proposal:
    """Size by the sequences that are in batches or wait for one."""
    capacity, running = inputs.decode, inputs.reading(seen.RUNNING_REQUESTS)
    if capacity is None or capacity.batch is None or running is None:
        return Proposal(policy=schema.RESIDENTS, reason=Reason.NO_CHANGE, formula="not measured")
    if running.value is None:
        return _unknown(schema.RESIDENTS, "running requests are not known")
    waiting = _optional(inputs, seen.TRANSFER_QUEUE)
    residents = running.value + waiting
    role = inputs.role
    return Proposal(
        policy=schema.RESIDENTS,
        reason=Reason.RESIDENTS,
        replicas=_ceil(residents / (capacity.batch * role.utilization)),
        floor=_ceil(residents / (capacity.batch * role.scale_in_utilization)) + inputs.missing,
        formula=f"{residents:.0f} sequences / ({capacity.batch:.0f} x {role.utilization:g})",
        is_trusted=running.is_fresh,
    )


def propose_kv(inputs: Inputs) -> Proposal:
    """Size by the KV cache: what is used in all replicas and what waits for room, in caches."""
    usage = inputs.reading(seen.KV_USAGE)
    if usage is None:
        return Proposal(policy=schema.KV, reason=Reason.NO_CHANGE, formula="not measured")
    if usage.value is None:
        return _unknown(schema.KV, "use of the KV cache is not known")
    caches = usage.value * inputs.state.ready
    kv_tokens = inputs.role.profile.kv_tokens
    if kv_tokens:
        caches += _optional(inputs, seen.TRANSFER_QUEUE) * inputs.mix.context / kv_tokens
    full = inputs.policy.tuning.kv_utilization
    return Proposal(
        policy=schema.KV,
        reason=Reason.KV,
        replicas=_ceil(caches / full),
        floor=_ceil(caches * inputs.widening / full) + inputs.missing,
        formula=f"{caches:.2f} caches / {full:g}",
        is_trusted=usage.is_fresh,
    )


def _unknown(policy: str, why: str) -> Proposal:
    return Proposal(policy=policy, reason=Reason.METRICS_STALE, formula=why, is_trusted=False)


def _optional(inputs: Inputs, name: str) -> float:
    """Return a reading that only ever adds; what is not known adds nothing here, and is no proof of anything."""
    found = inputs.reading(name)
    return found.value if found is not None and found.value is not None else 0.0


def _ceil(value: float) -> int:
    return math.ceil(value - _EPSILON)


def _wait_s(inputs: Inputs, capacity: Capacity) -> float:
    """Return how long a request may wait for prefill: what a long prompt leaves of the time to first token."""
    slo, mix, rate = inputs.policy.slo, inputs.mix, capacity.prefill_tokens_per_s or 1.0
    uncached = mix.uncached or 0.0
    spread = math.sqrt(math.log1p(mix.variation))
    # Prompt lengths are near a log-normal distribution.
    long = uncached * math.exp(_NORMAL_95 * spread - spread * spread / 2)
    allowed_s = (slo.ttft_s or 0.0) + slo.ttft_per_token_s * long - inputs.role.profile.transfer_s
    left_s = allowed_s - capacity.prefill_base_s - long / rate
    return max(left_s, _WAIT_SHARE_MIN * allowed_s)


def _size_for_wait(inputs: Inputs, capacity: Capacity, widening: float) -> int | None:
    """Return the size at which requests wait no longer than they may; None where that is no question."""
    slo, mix, rate, demand = inputs.policy.slo, inputs.mix, capacity.prefill_tokens_per_s, inputs.prefill_demand
    if slo.ttft_s is None or not mix.uncached or not rate or demand is None or capacity.is_infeasible:
        return None
    tokens_per_s = demand.ahead if widening == 1.0 else demand.low * widening
    service_s = capacity.prefill_base_s + mix.uncached / rate
    variation = mix.variation * (mix.uncached / rate / service_s) ** 2
    return servers_for(
        arrivals_per_s=tokens_per_s / mix.uncached,
        service_s=service_s,
        wait_s=_wait_s(inputs, capacity),
        tail=inputs.policy.tuning.wait_tail,
        variation=(1.0 + variation) / 2,
        most=inputs.role.max_replicas,
    )
