"""A ScalingPolicy as the core computes with it: seconds instead of texts, every default filled in. Pure.

``compile_policy`` is called once for each version of a policy, not at every tick. A spec that admission let through
compiles; what does not raises PolicyError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from grove_server.resources import scaling_policy as schema
from grove_server.resources.cron import Cron, CronError, parse_cron
from grove_server.resources.duration import DurationError, parse_duration

_FINE_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FINE_PART: Final = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|\u00b5s|ms|s|m|h)")

# What each kind of role is sized by if its policy does not say.
_POLICIES_BY_ROLE: Final[Mapping[str, tuple[str, ...]]] = {
    schema.PREFILL: (schema.WORK, schema.BACKLOG, schema.SLO),
    schema.DECODE: (schema.WORK, schema.RESIDENTS, schema.KV, schema.SLO),
    schema.AGGREGATED: (schema.WORK, schema.BACKLOG, schema.RESIDENTS, schema.KV, schema.SLO),
    schema.ENCODE: (schema.WORK, schema.BACKLOG, schema.SLO),
}

_BY_PROFILE: Final = frozenset({schema.WORK, schema.BACKLOG, schema.RESIDENTS, schema.KV})
_DECODE_WINDOW_S: Final = 600.0


class PolicyError(ValueError):
    """A spec cannot be computed with; the message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What nobody has to set: the constants of the method. Utilisations are ratios of a replica's capacity.

    The defaults are those that replay was frozen with (``make replay-table``).
    """

    prefill_utilization: float = 0.75
    prefill_scale_in_utilization: float = 0.65
    decode_utilization: float = 0.95
    decode_scale_in_utilization: float = 0.84
    kv_utilization: float = 0.85
    itl_margin: float = 0.05
    batch_tail: float = 1.5
    backlog_drain_s: float = 60.0
    wait_tail: float = 0.05
    tolerance_up: float = 0.1
    tolerance_down: float = 0.1
    level_s: float = 30.0
    trend_s: float = 180.0
    damping_s: float = 300.0
    lead_max_s: float = 600.0
    errors_kept: int = 32
    margin_max: float = 0.5
    output_short_s: float = 120.0
    output_long_s: float = 1800.0
    breach_ticks: int = 3
    breach_step: float = 0.2
    spike_ratio: float = 2.0
    burst_decay: float = 0.5
    scale_in_step: float = 0.2
    flap_window_s: float = 1800.0
    flaps_allowed: int = 2
    profile_bound: float = 0.3
    profile_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Targets in seconds, None where none is set."""

    ttft_s: float | None = None
    itl_s: float | None = None
    percentile: float = 0.95
    attainment: float = 0.95
    ttft_per_token_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """HPA's rate policy: at most ``value`` pods, or percent, in ``period_s``."""

    is_percent: bool
    value: int
    period_s: float


# HPA's defaults. A role that is sized by work shrinks by one step in each minute, at most a fifth of it.
_UP_RATES: Final = (
    Rate(is_percent=True, value=100, period_s=15.0),
    Rate(is_percent=False, value=4, period_s=15.0),
)
_PLAIN_DOWN_RATES: Final = (Rate(is_percent=True, value=100, period_s=15.0),)
_PLAIN_WINDOW_S: Final = 300.0
_PLAIN_TOLERANCE: Final = 0.1
_DOWN_RATES: Final = (
    Rate(is_percent=True, value=20, period_s=60.0),
    Rate(is_percent=False, value=1, period_s=60.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """HPA's rules for one direction; ``is_exact`` if the window is the user's or HPA's, and none of our choice."""

    window_s: float
    select: str
    rates: tuple[Rate, ...]
    tolerance: float
    is_exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one replica can do; None where it is not known."""

    prefill_tokens_per_s: float | None = None
    prefill_base_s: float = 0.0
    decode_base_s: float | None = None
    decode_per_sequence_s: float = 0.0
    decode_per_kv_token_s: float = 0.0
    kv_tokens: int | None = None
    max_sequences: int = 256
    transfer_s: float = 0.0
    cold_start_s: float = 120.0
    does_learn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From ``at_least`` of the signal on, ``change`` replicas more."""

    at_least: float
    change: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizer:
    """One policy of a role."""

    kind: str
    signal: str = ""
    target: float = 0.0
    target_type: str = schema.TARGET_AVERAGE
    allows_scale_in: bool = True
    steps: tuple[Step, ...] = ()
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    panic_threshold: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePolicy:
    """How one role is scaled."""

    name: str
    role: str
    min_replicas: int
    max_replicas: int
    gpus_per_replica: float | None
    sizers: tuple[Sizer, ...]
    up: Rules
    down: Rules
    burst_memory_s: float
    cooldown_after_up_s: float | None
    utilization: float
    scale_in_utilization: float
    profile: Profile
    drain_timeout_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Bounds between two cron times; an empty ``role`` means all roles."""

    start: Cron
    end: Cron
    time_zone: str
    role: str
    min_replicas: int | None
    max_replicas: int | None
    lead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalLimits:
    """When a reading is good enough."""

    max_age_s: float = 45.0
    min_coverage: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy.

    ``key`` is "namespace/name". ``budget_name`` names a budget that policies share; without a name it is the key.
    ``paused`` is "", "in", "out" or "both".
    """

    key: str
    generation: int
    set_name: str
    mode: str
    paused: str
    slo: Slo
    roles: tuple[RolePolicy, ...]
    ratio_band: float
    ratio_fixed: float | None
    budget_gpus: int | None
    budget_name: str
    budget_priority: int
    schedules: tuple[Schedule, ...]
    forecast: str
    forecast_quantile: float
    season_s: float
    outage: str
    outage_replicas: int | None
    outage_grace_s: float
    zero_after_s: float | None
    limits: Mapping[str, SignalLimits] = field(default_factory=dict)
    tuning: Tuning = field(default_factory=Tuning)


def compile_policy(
    namespace: str, name: str, generation: int, spec: schema.ScalingPolicySpec, tuning: Tuning | None = None
) -> Policy:
    """Return the policy that *spec* describes; raise PolicyError."""
    tuning = tuning or Tuning()
    key = f"{namespace}/{name}"
    slo = spec.slo or schema.SloSpec()
    paused = "both" if spec.paused is True else "" if spec.paused is False else spec.paused
    return Policy(
        key=key,
        generation=generation,
        set_name=spec.pod_clique_set,
        mode=spec.mode,
        paused=paused,
        slo=Slo(
            ttft_s=_optional_s("spec.slo.ttft", slo.ttft),
            itl_s=_optional_s("spec.slo.itl", slo.itl),
            percentile=slo.percentile,
            attainment=slo.attainment,
            ttft_per_token_s=_seconds("spec.slo.ttftPer1kTokens", slo.ttft_per_1k_tokens) / 1000,
        ),
        roles=tuple(_role(f"spec.roles[{index}]", role, tuning) for index, role in enumerate(spec.roles)),
        ratio_band=(spec.ratio or schema.RatioSpec()).band,
        ratio_fixed=spec.ratio.fixed if spec.ratio else None,
        budget_gpus=spec.budget.gpus if spec.budget else None,
        budget_name=f"{namespace}/{spec.budget.name}" if spec.budget and spec.budget.name else f"{key}/",
        budget_priority=spec.budget.priority if spec.budget else 0,
        schedules=tuple(_schedule(f"spec.schedules[{index}]", entry) for index, entry in enumerate(spec.schedules)),
        forecast=spec.forecast.kind,
        forecast_quantile=spec.forecast.quantile,
        season_s=_seconds("spec.forecast.period", spec.forecast.period),
        outage=spec.outage.action,
        outage_replicas=spec.outage.replicas,
        outage_grace_s=_seconds("spec.outage.grace", spec.outage.grace),
        zero_after_s=_seconds("spec.scaleToZero.after", spec.scale_to_zero.after) if spec.scale_to_zero else None,
        limits={
            name: SignalLimits(
                max_age_s=_seconds(f"spec.signals[{name}].maxAge", signal.max_age), min_coverage=signal.min_coverage
            )
            for name, signal in sorted(spec.signals.items())
        },
        tuning=tuning,
    )


def _role(path: str, spec: schema.RoleSpec, tuning: Tuning) -> RolePolicy:
    is_prefill = spec.role in (schema.PREFILL, schema.ENCODE)
    up = tuning.prefill_utilization if is_prefill else tuning.decode_utilization
    down = tuning.prefill_scale_in_utilization if is_prefill else tuning.decode_scale_in_utilization
    if spec.target_utilization is not None:
        # The band between the two keeps its width where only one of them is given.
        up, down = spec.target_utilization, spec.target_utilization * down / up
    behavior = spec.behavior
    sizers = tuple(_sizer(f"{path}.policies[{index}]", entry) for index, entry in enumerate(spec.policies))
    sizers = sizers or tuple(Sizer(kind=kind) for kind in _POLICIES_BY_ROLE[spec.role])
    # A role that only compares signals with targets is scaled as HPA scales it, by default, too.
    is_plain = not any(sizer.kind in _BY_PROFILE for sizer in sizers)
    window_s = _PLAIN_WINDOW_S if is_plain or is_prefill else _DECODE_WINDOW_S
    tolerances = (_PLAIN_TOLERANCE, _PLAIN_TOLERANCE) if is_plain else (tuning.tolerance_up, tuning.tolerance_down)
    down_rates = _PLAIN_DOWN_RATES if is_plain else _DOWN_RATES
    cooldown_s = _optional_s(f"{path}.behavior.cooldownAfterUp", behavior.cooldown_after_up)
    return RolePolicy(
        name=spec.name,
        role=spec.role,
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        gpus_per_replica=float(spec.gpus_per_replica) if isinstance(spec.gpus_per_replica, int) else None,
        sizers=sizers,
        up=_rules(behavior.scale_up, 0.0, _UP_RATES, tolerances[0], is_exact=is_plain),
        down=_rules(behavior.scale_down, window_s, down_rates, tolerances[1], is_exact=is_plain),
        burst_memory_s=_seconds(f"{path}.behavior.burstMemory", behavior.burst_memory or "30m0s"),
        cooldown_after_up_s=0.0 if cooldown_s is None and is_plain else cooldown_s,
        utilization=up,
        scale_in_utilization=min(up, spec.scale_in_utilization or down),
        profile=_profile(f"{path}.profile", spec.profile),
        drain_timeout_s=_seconds(f"{path}.drainTimeout", spec.drain_timeout),
    )


def _rules(
    spec: schema.ScalingRulesSpec, window_s: float, rates: tuple[Rate, ...], tolerance: float, *, is_exact: bool
) -> Rules:
    window = spec.stabilization_window_seconds
    return Rules(
        window_s=window_s if window is None else float(window),
        select=spec.select_policy,
        rates=tuple(
            Rate(is_percent=rate.type == schema.RATE_PERCENT, value=rate.value, period_s=float(rate.period_seconds))
            for rate in spec.policies
        )
        or rates,
        tolerance=tolerance if spec.tolerance is None else spec.tolerance,
        is_exact=is_exact or window is not None,
    )


def _sizer(path: str, spec: schema.RolePolicySpec) -> Sizer:
    stable_s = _seconds(f"{path}.stableWindow", spec.stable_window)
    return Sizer(
        kind=spec.kind,
        signal=spec.signal or "",
        target=spec.target or 0.0,
        target_type=spec.target_type,
        allows_scale_in=spec.allow_scale_in,
        steps=tuple(
            sorted((Step(at_least=step.at_least, change=step.change) for step in spec.steps), key=lambda s: s.at_least)
        ),
        stable_window_s=stable_s,
        panic_window_s=stable_s * spec.panic_window_percentage / 100,
        panic_threshold=spec.panic_threshold,
    )


def _profile(path: str, spec: schema.ProfileSpec) -> Profile:
    step = spec.decode_step
    return Profile(
        prefill_tokens_per_s=spec.prefill_tokens_per_second,
        prefill_base_s=_seconds(f"{path}.prefillBase", spec.prefill_base),
        decode_base_s=_fine_s(f"{path}.decodeStep.base", step.base) if step else None,
        decode_per_sequence_s=_fine_s(f"{path}.decodeStep.perSequence", step.per_sequence) if step else 0.0,
        decode_per_kv_token_s=_fine_s(f"{path}.decodeStep.perKvToken", step.per_kv_token) if step else 0.0,
        kv_tokens=spec.kv_tokens,
        max_sequences=spec.max_sequences,
        transfer_s=_seconds(f"{path}.transfer", spec.transfer),
        cold_start_s=_seconds(f"{path}.coldStart", spec.cold_start),
        does_learn=spec.online_update,
    )


def _schedule(path: str, spec: schema.ScheduleSpec) -> Schedule:
    try:
        start, end = parse_cron(spec.start), parse_cron(spec.end)
    except CronError as error:
        raise PolicyError(f"{path}: {error}") from None
    return Schedule(
        start=start,
        end=end,
        time_zone=spec.time_zone,
        role=spec.role or "",
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        lead_s=_seconds(f"{path}.lead", spec.lead),
    )


def _optional_s(path: str, text: str | None) -> float | None:
    return None if text is None else _seconds(path, text)


def _seconds(path: str, text: str) -> float:
    try:
        return parse_duration(text)
    except DurationError as error:
        raise PolicyError(f"{path} {error}") from None


def _fine_s(path: str, text: str) -> float:
    """Return seconds; unlike ``_seconds`` parts of a nanosecond count: a KV token may cost 2.6ns."""
    _seconds(path, text)
    return sum(float(number) * _FINE_UNITS_S[unit] for number, unit in _FINE_PART.findall(text))
