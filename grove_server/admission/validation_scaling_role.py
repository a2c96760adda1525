"""Rules for one role of a ScalingPolicy: sizes, what it is sized by, how fast it moves, what a replica can do."""

from __future__ import annotations

import math
from typing import Final

from grove_server.admission.findings import Findings
from grove_server.resources import scaling_policy as schema
from grove_server.resources.duration import DurationError, parse_duration_ns
from grove_server.resources.scaling_policy import (
    ProfileSpec,
    RolePolicySpec,
    RoleSpec,
    ScalingPolicySpec,
    ScalingRulesSpec,
)
from grove_server.resources.scaling_signals import SIGNAL_UNITS
from grove_server.resources.violations import quoted

STEPS_MAX: Final = 32
RATES_MAX: Final = 8
GPUS_PER_REPLICA_MAX: Final = 100_000
# HPA's bounds.
WINDOW_MAX_S: Final = 3_600
PERIOD_MAX_S: Final = 1_800
_DAY_S: Final = 86_400.0
_BILLION: Final = 1_000_000_000
_NEED_SIGNAL: Final = frozenset({schema.TARGET, schema.STEP})
_NEED_TARGET: Final = frozenset({schema.TARGET, schema.KPA, schema.QUEUE_DEPTH})
# What their target is compared with if they name no signal.
_OWN_SIGNALS: Final = {schema.GPU_UTIL: "gpu_activity", schema.QUEUE_DEPTH: "queued_requests"}


def check_role(role: RoleSpec, path: str, spec: ScalingPolicySpec, findings: Findings) -> None:
    """Check all fields of a role but for its name and target."""
    check_choice(role.role, schema.ROLES, f"{path}.role", findings)
    sizes = f"{path}.maxReplicas"
    if check_between(role.max_replicas, sizes, findings, least=1, most=schema.REPLICAS_MAX) and check_between(
        role.min_replicas, f"{path}.minReplicas", findings, least=0, most=schema.REPLICAS_MAX
    ):
        if role.max_replicas < role.min_replicas:
            message = f"must be at least minReplicas ({role.min_replicas}), got {role.max_replicas}"
            findings.invalid(sizes, message)
        if role.min_replicas == 0 and spec.scale_to_zero is None:
            findings.invalid(f"{path}.minReplicas", "may be 0 only with spec.scaleToZero: roles go to zero together")
    gpus = role.gpus_per_replica
    if isinstance(gpus, str):
        check_choice(gpus, (schema.GPUS_AUTO,), f"{path}.gpusPerReplica", findings)
    elif isinstance(gpus, bool):
        findings.wrong_type(f"{path}.gpusPerReplica", "a number or auto", gpus)
    else:
        check_between(gpus, f"{path}.gpusPerReplica", findings, least=0, most=GPUS_PER_REPLICA_MAX)
    _check_utilization(role, path, findings)
    _check_policies(role, path, spec, findings)
    _check_behavior(role, path, findings)
    check_duration(role.drain_timeout, f"{path}.drainTimeout", findings, most_s=_DAY_S)
    _check_profile(role.profile, f"{path}.profile", findings)


def _check_utilization(role: RoleSpec, path: str, findings: Findings) -> None:
    target, scale_in = role.target_utilization, role.scale_in_utilization
    if target is not None:
        check_between(target, f"{path}.targetUtilization", findings, above=0.0, most=1.0)
    if scale_in is None or not check_between(scale_in, f"{path}.scaleInUtilization", findings, above=0.0, most=1.0):
        return
    if target is not None and scale_in > target:
        message = f"must be at most targetUtilization ({target:g}), got {scale_in:g}"
        findings.invalid(f"{path}.scaleInUtilization", message)


def _check_policies(role: RoleSpec, path: str, spec: ScalingPolicySpec, findings: Findings) -> None:
    if len(role.policies) > schema.POLICIES_PER_ROLE_MAX:
        findings.too_many(f"{path}.policies", len(role.policies), schema.POLICIES_PER_ROLE_MAX)
        return
    for index, policy in enumerate(role.policies):
        where = f"{path}.policies[{index}]"
        if check_choice(policy.kind, schema.POLICY_KINDS, f"{where}.kind", findings):
            _check_policy(policy, where, spec, findings)
    kinds = {policy.kind for policy in role.policies}
    if kinds and kinds <= {schema.SLO}:
        findings.invalid(f"{path}.policies", "must have one that measures demand: slo only ever asks for more")
    elif role.role == schema.DECODE and kinds and kinds <= {schema.SLO, schema.GPU_UTIL}:
        findings.warn(
            f"{path}.policies: a decode role is busy whenever it decodes anything: GPU utilisation alone says nothing "
            "of its load; add work, residents or kv"
        )


def _check_policy(policy: RolePolicySpec, path: str, spec: ScalingPolicySpec, findings: Findings) -> None:
    if policy.signal is None and policy.kind in _NEED_SIGNAL:
        findings.required(f"{path}.signal", f"is required for the kind {policy.kind}")
    if policy.signal is not None and policy.signal not in spec.signals and policy.signal not in SIGNAL_UNITS:
        message = f"there is no signal {quoted(policy.signal)} in spec.signals, and none that is built in"
        findings.not_found(f"{path}.signal", message)
    if policy.target is None and policy.kind in _NEED_TARGET:
        findings.required(f"{path}.target", f"is required for the kind {policy.kind}")
    if policy.target is not None and check_between(policy.target, f"{path}.target", findings, above=0.0):
        _check_unit(policy, policy.target, path, spec, findings)
    check_choice(policy.target_type, schema.TARGET_TYPES, f"{path}.targetType", findings)
    _check_steps(policy, path, findings)
    check_duration(policy.stable_window, f"{path}.stableWindow", findings, least_s=6.0, most_s=3_600.0)
    check_between(policy.panic_window_percentage, f"{path}.panicWindowPercentage", findings, least=1.0, most=100.0)
    check_between(policy.panic_threshold, f"{path}.panicThreshold", findings, above=1.0, most=10.0)


def _check_unit(policy: RolePolicySpec, target: float, path: str, spec: ScalingPolicySpec, findings: Findings) -> None:
    """Refuse 80 where a ratio is compared, and 0.8 where a percentage is."""
    name = policy.signal or _OWN_SIGNALS.get(policy.kind, "")
    unit = spec.signals[name].unit if name in spec.signals else SIGNAL_UNITS.get(name, "")
    if unit == "ratio" and target > 1:
        findings.invalid(
            f"{path}.target", f"must be at most 1, as {name} is a ratio, got {target:g}: is a share meant?"
        )
    if unit == "percent" and target <= 1:
        message = f"must be above 1, as {name} is in percent, got {target:g}: is {target * 100:g} meant?"
        findings.invalid(f"{path}.target", message)


def _check_steps(policy: RolePolicySpec, path: str, findings: Findings) -> None:
    if policy.kind != schema.STEP:
        return
    if not policy.steps:
        findings.required(f"{path}.steps", "at least one step is required for the kind step")
    if len(policy.steps) > STEPS_MAX:
        findings.too_many(f"{path}.steps", len(policy.steps), STEPS_MAX)
        return
    seen: set[float] = set()
    for index, step in enumerate(policy.steps):
        where = f"{path}.steps[{index}]"
        check_between(step.at_least, f"{where}.atLeast", findings)
        check_between(step.change, f"{where}.change", findings, least=-schema.REPLICAS_MAX, most=schema.REPLICAS_MAX)
        if step.at_least in seen:
            findings.duplicate(f"{where}.atLeast", step.at_least)
        seen.add(step.at_least)


def _check_behavior(role: RoleSpec, path: str, findings: Findings) -> None:
    behavior, where = role.behavior, f"{path}.behavior"
    _check_rules(behavior.scale_up, f"{where}.scaleUp", findings)
    _check_rules(behavior.scale_down, f"{where}.scaleDown", findings)
    up, down = behavior.scale_up.tolerance, behavior.scale_down.tolerance
    if up is not None and down is not None and down < up:
        message = f"must be at least that of scaleUp ({up:g}), got {down:g}: a role would shrink more readily than grow"
        findings.invalid(f"{where}.scaleDown.tolerance", message)
    for name, text in (("burstMemory", behavior.burst_memory), ("cooldownAfterUp", behavior.cooldown_after_up)):
        if text is not None:
            check_duration(text, f"{where}.{name}", findings, most_s=_DAY_S)


def _check_rules(rules: ScalingRulesSpec, path: str, findings: Findings) -> None:
    window = rules.stabilization_window_seconds
    if window is not None:
        check_between(window, f"{path}.stabilizationWindowSeconds", findings, least=0, most=WINDOW_MAX_S)
    check_choice(rules.select_policy, schema.SELECTS, f"{path}.selectPolicy", findings)
    if rules.tolerance is not None:
        check_between(rules.tolerance, f"{path}.tolerance", findings, least=0.0, most=1.0)
    if len(rules.policies) > RATES_MAX:
        findings.too_many(f"{path}.policies", len(rules.policies), RATES_MAX)
        return
    for index, rate in enumerate(rules.policies):
        where = f"{path}.policies[{index}]"
        check_choice(rate.type, schema.RATE_TYPES, f"{where}.type", findings)
        check_between(rate.value, f"{where}.value", findings, least=1, most=schema.REPLICAS_MAX)
        check_between(rate.period_seconds, f"{where}.periodSeconds", findings, least=1, most=PERIOD_MAX_S)


def _check_profile(profile: ProfileSpec, path: str, findings: Findings) -> None:
    speed = profile.prefill_tokens_per_second
    if speed is not None:
        check_between(speed, f"{path}.prefillTokensPerSecond", findings, above=0.0)
    if profile.kv_tokens is not None:
        check_between(profile.kv_tokens, f"{path}.kvTokens", findings, least=1, most=_BILLION)
    check_between(profile.max_sequences, f"{path}.maxSequences", findings, least=1, most=1_000_000)
    for name, text in (
        ("prefillBase", profile.prefill_base),
        ("transfer", profile.transfer),
        ("coldStart", profile.cold_start),
    ):
        check_duration(text, f"{path}.{name}", findings, most_s=_DAY_S)
    step = profile.decode_step
    if step is None:
        return
    where = f"{path}.decodeStep"
    check_duration(step.base, f"{where}.base", findings, least_s=0.000_001, most_s=60.0)
    check_duration(step.per_sequence, f"{where}.perSequence", findings, most_s=60.0)
    check_duration(step.per_kv_token, f"{where}.perKvToken", findings, most_s=60.0)


def check_choice(value: str, allowed: tuple[str, ...], path: str, findings: Findings) -> bool:
    """Check that *value* is one of those allowed; return whether it is."""
    if value in allowed:
        return True
    findings.not_supported(path, value, allowed)
    return False


def check_between(
    value: float,
    path: str,
    findings: Findings,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> bool:
    """Check that a number is finite and within bounds; return whether it is."""
    is_within = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if is_within:
        return True
    low = f"at least {least:g}" if least is not None else f"above {above:g}" if above is not None else ""
    high = f"at most {most:g}" if most is not None else f"below {below:g}" if below is not None else ""
    wanted = " and ".join(part for part in (low, high) if part) or "a finite number"
    findings.invalid(path, f"must be {wanted}, got {value:g}")
    return False


def check_duration(text: str, path: str, findings: Findings, *, least_s: float = 0.0, most_s: float) -> bool:
    """Check that *text* is a duration within bounds; return whether it is."""
    try:
        value_s = parse_duration_ns(text) / 10**9
    except DurationError as error:
        findings.invalid(path, f"{error}, got {quoted(text)}")
        return False
    if least_s <= value_s <= most_s:
        return True
    findings.invalid(path, f"must be between {least_s:g}s and {most_s:g}s, got {quoted(text)}")
    return False
