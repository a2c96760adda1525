"""The schema of ScalingPolicy: how the roles of a set follow their load, as users write it and as it is stored.

A policy speaks of one set and of each of its copies alone; a role is a clique or a scaling group of that set. Defaults
stand here, as values of fields; what is None depends on the role and is filled in by the autoscaler. ``behavior`` has
the shape of a Kubernetes HorizontalPodAutoscaler v2. Durations are texts such as "1m30s".

Not here: which values go together (admission), and what follows from them (the autoscaler).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from grove_server.resources.manifest import ManifestMetadata
from grove_server.resources.meta import SCHEMA, Condition, Kind, Metadata

MODE_OFF: Final = "off"
MODE_RECOMMEND: Final = "recommend"
MODE_APPLY: Final = "apply"
MODES: Final = (MODE_OFF, MODE_RECOMMEND, MODE_APPLY)
PAUSED_IN: Final = "in"
PAUSED_OUT: Final = "out"
ENGINES: Final = ("vllm", "sglang", "trtllm", "dynamo", "llm-d", "custom")
PREFILL: Final = "prefill"
DECODE: Final = "decode"
AGGREGATED: Final = "aggregated"
ENCODE: Final = "encode"
ROLES: Final = (PREFILL, DECODE, AGGREGATED, ENCODE)
# What a role can be sized by. The first five follow from a profile; the others compare a signal with a target.
WORK: Final = "work"
BACKLOG: Final = "backlog"
RESIDENTS: Final = "residents"
KV: Final = "kv"
SLO: Final = "slo"
TARGET: Final = "target"
KPA: Final = "kpa"
QUEUE_DEPTH: Final = "queueDepth"
GPU_UTIL: Final = "gpuUtil"
STEP: Final = "step"
POLICY_KINDS: Final = (WORK, BACKLOG, RESIDENTS, KV, SLO, TARGET, KPA, QUEUE_DEPTH, GPU_UTIL, STEP)
TARGET_VALUE: Final = "Value"
TARGET_AVERAGE: Final = "AverageValue"
TARGET_PODS: Final = "Pods"
TARGET_TYPES: Final = (TARGET_PODS, TARGET_VALUE, TARGET_AVERAGE)
UNITS: Final = ("tokens", "tokens/s", "requests", "req/s", "ratio", "percent", "seconds", "count")
PERS: Final = ("pod", "clique", "set")
AGGREGATIONS: Final = ("sum", "mean", "max", "p90")
EMPTY_UNKNOWN: Final = "unknown"
EMPTY_ZERO: Final = "zero"
SELECT_MAX: Final = "Max"
SELECT_MIN: Final = "Min"
SELECT_DISABLED: Final = "Disabled"
SELECTS: Final = (SELECT_MAX, SELECT_MIN, SELECT_DISABLED)
RATE_PODS: Final = "Pods"
RATE_PERCENT: Final = "Percent"
RATE_TYPES: Final = (RATE_PODS, RATE_PERCENT)
FORECAST_NONE: Final = "none"
FORECAST_HOLT: Final = "holt"
FORECAST_SEASONAL: Final = "seasonal"
FORECASTS: Final = (FORECAST_NONE, FORECAST_HOLT, FORECAST_SEASONAL)
OUTAGE_HOLD: Final = "hold"
OUTAGE_AT_LEAST: Final = "atLeast"
OUTAGE_SCHEDULE: Final = "schedule"
OUTAGES: Final = (OUTAGE_HOLD, OUTAGE_AT_LEAST, OUTAGE_SCHEDULE)
GPUS_AUTO: Final = "auto"

ROLES_MAX: Final = 16
POLICIES_PER_ROLE_MAX: Final = 16
SIGNALS_MAX: Final = 64
SCHEDULES_MAX: Final = 64
REPLICAS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SloSpec:
    """What requests may take: time to the first token, and between tokens, met by ``attainment`` of the requests.

    ``ttft_per_1k_tokens`` is allowed on top of ``ttft`` for each 1,000 tokens of the prompt.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    ttft: str | None = None
    itl: str | None = None
    percentile: float = 0.95
    attainment: float = 0.95
    ttft_per_1k_tokens: Annotated[str, Field(alias="ttftPer1kTokens")] = "0s"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One step of a ``step`` policy: a signal at or above ``at_least`` asks for ``change`` replicas more (or fewer)."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    at_least: float
    change: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePolicySpec:
    """One thing a role is sized by.

    ``signal`` and ``target`` are for the kinds that compare; ``target_type`` says of ``target`` what HPA's says.
    The windows and the threshold are KPA's. A policy that does not allow scale-in may only ask for more.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    kind: str
    signal: str | None = None
    target: float | None = None
    target_type: str = TARGET_AVERAGE
    allow_scale_in: bool = True
    steps: tuple[StepSpec, ...] = ()
    stable_window: str = "1m0s"
    panic_window_percentage: float = 10.0
    panic_threshold: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRateSpec:
    """HPA's policy: at most ``value`` pods or percent within ``period_seconds``."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    type: str
    value: int
    period_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRulesSpec:
    """HPA's rules for one direction; ``tolerance`` is a ratio, 0.1 for ten percent."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    stabilization_window_seconds: int | None = None
    select_policy: str = SELECT_MAX
    policies: tuple[ScalingRateSpec, ...] = ()
    tolerance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviorSpec:
    """How fast a role may move. Load remembered for ``burst_memory`` keeps a role from shrinking below it."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    scale_up: ScalingRulesSpec = field(default_factory=ScalingRulesSpec)
    scale_down: ScalingRulesSpec = field(default_factory=ScalingRulesSpec)
    burst_memory: str | None = None
    cooldown_after_up: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStepSpec:
    """How long a decode step takes: ``base``, ``per_sequence`` of the batch, ``per_kv_token`` held for it."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    base: str
    per_sequence: str = "0s"
    per_kv_token: str = "0s"  # noqa: S105 -- a duration


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSpec:
    """What one replica can do, as measured; what is left out is learned or not used.

    ``prefill_base`` is what a prefill costs besides its tokens, ``transfer`` what handing a request to decode costs.
    ``cold_start`` is a first guess until starts were seen.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    prefill_tokens_per_second: float | None = None
    prefill_base: str = "0s"
    decode_step: DecodeStepSpec | None = None
    kv_tokens: int | None = None
    max_sequences: int = 256
    transfer: str = "0s"
    cold_start: str = "2m0s"
    online_update: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """One role of the set: a standalone clique or a scaling group, by its name in the set's template.

    Without ``policies`` a role is sized by all that its kind of role has. ``target_utilization`` is how busy a replica
    should be at the forecast load, ``scale_in_utilization`` how busy at most after a scale-in.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    role: str
    pod_clique: str | None = None
    pod_clique_scaling_group: str | None = None
    min_replicas: int = 1
    max_replicas: int
    gpus_per_replica: int | str = GPUS_AUTO
    target_utilization: float | None = None
    scale_in_utilization: float | None = None
    policies: tuple[RolePolicySpec, ...] = ()
    behavior: BehaviorSpec = field(default_factory=BehaviorSpec)
    drain_timeout: str = "10m0s"
    profile: ProfileSpec = field(default_factory=ProfileSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioSpec:
    """How far prefill and decode may be apart while they move; ``fixed`` prescribes prefill by decode replicas."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    band: float = 0.25
    fixed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    """The GPUs that all roles together may hold, those of draining pods included.

    Policies of a namespace with the same ``name`` share one budget, the smallest that one of them gives; without a
    name it is the policy's own. Higher ``priority`` is served first where it does not reach.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    gpus: int
    name: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """Bounds from one cron time to another, for one role or (without ``role``) all; ``lead`` before the start."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    start: str
    end: str
    time_zone: str = "UTC"
    role: str | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    lead: str = "10m0s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSpec:
    """How demand is seen ahead; ``quantile`` of past errors is added, ``period`` is the season's."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    kind: str = FORECAST_HOLT
    quantile: float = 0.9
    period: str = "24h0m0s"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageSpec:
    """What is done when all signals of demand are missing for longer than ``grace``; a role never shrinks for it."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    action: str = OUTAGE_HOLD
    replicas: int | None = None
    grace: str = "1m0s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleToZeroSpec:
    """All roles go to zero together after ``after`` without any request, proven by fresh counters."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    after: str = "10m0s"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSpec:
    """A named query. Of ``per`` "pod" it answers one series for each pod; ``role`` says whose pods, None the set's."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    query: str
    unit: str
    per: str = "pod"
    role: str | None = None
    max_age: str = "45s"
    min_coverage: float = 0.8
    agg: str = "sum"
    empty: str = EMPTY_UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicySpec:
    """How a set is scaled. ``paused`` is false, true, "in" (no scale-in) or "out" (no scale-out)."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    pod_clique_set: str
    mode: str = MODE_RECOMMEND
    paused: bool | str = False
    slo: SloSpec | None = None
    engine: str = "vllm"
    roles: tuple[RoleSpec, ...]
    ratio: RatioSpec | None = None
    budget: BudgetSpec | None = None
    schedules: tuple[ScheduleSpec, ...] = ()
    forecast: ForecastSpec = field(default_factory=ForecastSpec)
    outage: OutageSpec = field(default_factory=OutageSpec)
    scale_to_zero: ScaleToZeroSpec | None = None
    signals: Mapping[str, SignalSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicyManifest:
    """A ScalingPolicy document; ``status`` is accepted and ignored."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    api_version: str
    kind: str
    metadata: ManifestMetadata
    spec: ScalingPolicySpec
    status: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleScalingStatus:
    """What was last decided for one role of one copy, and from what; ``desired`` is what it came to."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    copy: int
    role: str
    current: int = 0
    ready: int = 0
    pending: int = 0
    draining: int = 0
    desired: int = 0
    reason: str = ""
    message: str = ""
    last_scaled_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalStatus:
    """Where a signal comes from and how good it is: "Fresh", "Stale", "Missing" or "Suspect"."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    role: str = ""
    status: str
    metric: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseStatus:
    """A direction ("both", "in" or "out") in which nothing is changed until an epoch time, and who asked for it."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    direction: str
    until: float
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideStatus:
    """A size given to a role by hand until an epoch time, of one ``copy`` or (None) of all, and who asked for it."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    role: str
    copy: int | None = None
    replicas: int
    until: float
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicyStatus:
    """What the autoscaler says of a policy; ``decision_id`` and ``decided_at`` are of the last decision."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    autoscaler: str = ""
    decision_id: str = ""
    decided_at: float | None = None
    roles: tuple[RoleScalingStatus, ...] = ()
    signals: tuple[SignalStatus, ...] = ()
    pauses: tuple[PauseStatus, ...] = ()
    overrides: tuple[OverrideStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """How a set follows its load; the autoscaler writes ``status``."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.SCALING_POLICY

    metadata: Metadata
    resource_version: int = 0
    spec: ScalingPolicySpec
    status: ScalingPolicyStatus = field(default_factory=ScalingPolicyStatus)
