"""Sizing by a signal and a target, for those who want that: HPA, KPA, queue depth, GPU activity, steps. Pure.

``target`` is HPA's rule to the replica. GPU activity is HPA's rule on the exporter's gauge; of a decode role it says
little (busy at any load), and admission warns of it. Queue depth grows a role in proportion and shrinks it by one
replica at a time while nothing waits. The outcome policy (``slo``) only ever adds.
"""

from __future__ import annotations

import math
from typing import Final

from autoscaler import observation as seen
from autoscaler.decision import Proposal, Reason
from autoscaler.policy import Sizer
from autoscaler.sizing import hpa
from autoscaler.sizing.inputs import Inputs
from autoscaler.validating import Judged
from grove_server.resources import scaling_policy as schema

_QUEUE_GROWTH_MAX: Final = 2.0
_EMPTY_SHARE: Final = 0.1
_GPU_TARGET: Final = 0.7


def propose_target(inputs: Inputs, sizer: Sizer) -> Proposal:
    """Propose what a HorizontalPodAutoscaler proposes for one metric."""
    found = inputs.reading(sizer.signal)
    if found is None or found.value is None or sizer.target <= 0:
        return _failed(schema.TARGET, sizer.signal)
    size = _hpa(inputs, found, sizer.target, sizer.target_type)
    formula = f"{sizer.signal} {found.value:g}, {sizer.target_type} {sizer.target:g}"
    return _plain(schema.TARGET, Reason.TARGET, size, formula, is_trusted=found.is_fresh)


def propose_gpu_activity(inputs: Inputs, sizer: Sizer) -> Proposal:
    """Propose what a HorizontalPodAutoscaler proposes for the activity of GPUs."""
    name = sizer.signal or seen.GPU_ACTIVITY
    found = inputs.reading(name)
    if found is None or found.value is None:
        return _failed(schema.GPU_UTIL, name)
    target = sizer.target or _GPU_TARGET
    size = _hpa(inputs, found, target, schema.TARGET_PODS)
    formula = f"{found.value:.0%} active, {target:.0%} wanted"
    return _plain(schema.GPU_UTIL, Reason.GPU_ACTIVITY, size, formula, is_trusted=found.is_fresh)


def propose_queue_depth(inputs: Inputs, sizer: Sizer) -> Proposal:
    """Grow while more requests wait per replica than the target."""
    found = inputs.reading(sizer.signal or seen.QUEUED_REQUESTS)
    if found is None or found.value is None or sizer.target <= 0:
        return _failed(schema.QUEUE_DEPTH, sizer.signal or seen.QUEUED_REQUESTS)
    current = inputs.state.current
    ratio = found.value / (sizer.target * max(1, current))
    if ratio > 1.0 + inputs.role.up.tolerance:
        size = math.ceil(current * min(ratio, _QUEUE_GROWTH_MAX))
    else:
        size = current - 1 if ratio <= _EMPTY_SHARE else current
    formula = f"{found.value:g} wait, {sizer.target:g} a replica wanted"
    return _plain(schema.QUEUE_DEPTH, Reason.QUEUE_DEPTH, max(size, 0), formula, is_trusted=found.is_fresh)


def propose_step(inputs: Inputs, sizer: Sizer) -> Proposal:
    """Change by the highest step that the signal reaches."""
    found = inputs.reading(sizer.signal)
    if found is None or found.value is None:
        return _failed(schema.STEP, sizer.signal)
    value = found.value
    change = next((step.change for step in reversed(sizer.steps) if value >= step.at_least), 0)
    formula = f"{sizer.signal} {value:g}: {change:+d}"
    size = max(0, inputs.state.current + change)
    return _plain(schema.STEP, Reason.STEP, size, formula, is_trusted=found.is_fresh)


def propose_outcome(inputs: Inputs) -> Proposal:
    """Add a fifth, at least one, while too few requests meet the targets and lose their time in this role."""
    if not inputs.breach:
        return Proposal(policy=schema.SLO, reason=Reason.NO_CHANGE)
    tuning, current = inputs.policy.tuning, inputs.state.current
    memory = inputs.memory
    due = inputs.breaches >= tuning.breach_ticks and (
        memory.breach_at is None
        or inputs.now - memory.breach_at >= (memory.cold_start_s or inputs.role.profile.cold_start_s)
    )
    size = current + max(1, math.ceil(tuning.breach_step * current)) if due else current
    formula = f"below {inputs.policy.slo.attainment:.0%} for {inputs.breaches} ticks"
    return Proposal(policy=schema.SLO, reason=Reason.SLO_BREACH, replicas=size, floor=size, formula=formula)


def _hpa(inputs: Inputs, found: Judged, target: float, target_type: str) -> int | None:
    state, role = inputs.state, inputs.role
    tolerance = hpa.Tolerance(up=role.up.tolerance, down=role.down.tolerance)
    value = found.value or 0.0
    if target_type == schema.TARGET_VALUE:
        return hpa.value_metric(
            value=value, target=target, current=state.current, ready=state.ready, tolerance=tolerance
        )
    if target_type == schema.TARGET_AVERAGE:
        return hpa.average_metric(value=value, target=target, replicas=state.current, tolerance=tolerance)
    reading = found.reading
    # A signal that is not of pods speaks for all that are ready.
    reporting = state.ready if reading.expected <= 1 < state.ready else reading.reporting
    # Here the rule for pods that do not report is HPA's own, so the value is that of those that do.
    raw = reading.value or 0.0
    return hpa.pods_metric(
        total_milli=hpa.milli(raw if reading.is_sum else raw * reporting),
        reporting=reporting,
        missing=found.missing,
        unready=state.starting + state.pending,
        target_milli=hpa.milli(target),
        current=state.current,
        tolerance=tolerance,
    )


def _failed(policy: str, signal: str) -> Proposal:
    return Proposal(policy=policy, reason=Reason.METRICS_STALE, formula=f"{signal} is not known", is_trusted=False)


def _plain(policy: str, reason: Reason, size: int | None, formula: str, *, is_trusted: bool) -> Proposal:
    return Proposal(policy=policy, reason=reason, replicas=size, floor=size, formula=formula, is_trusted=is_trusted)
