"""What the core answers: for each scope and role a size, and everything that led to it. Pure; the core's output.

A decision says what every policy of a role proposed, what was made of it step by step (clamps, in order), and what came
of it. Nothing else is needed to explain it later.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaler.validating import Judged


class Reason(enum.StrEnum):
    """Why a size is what it is: of a proposal, of a clamp, of a role's decision."""

    NO_CHANGE = "NO_CHANGE"
    WORK = "WORK"
    BACKLOG = "BACKLOG"
    LATENCY = "LATENCY"
    RESIDENTS = "RESIDENTS"
    KV = "KV"
    SLO_BREACH = "SLO_BREACH"
    TARGET = "TARGET"
    CONCURRENCY = "CONCURRENCY"
    QUEUE_DEPTH = "QUEUE_DEPTH"
    GPU_ACTIVITY = "GPU_ACTIVITY"
    STEP = "STEP"
    SCHEDULE = "SCHEDULE"
    RATIO_GUARD = "RATIO_GUARD"
    BUDGET_CAP = "BUDGET_CAP"
    RATE_LIMIT = "RATE_LIMIT"
    STABILISING = "STABILISING"
    CONSOLIDATION_UNSAFE = "CONSOLIDATION_UNSAFE"
    BURST_MEMORY = "BURST_MEMORY"
    COOLDOWN = "COOLDOWN"
    BOUNDS = "BOUNDS"
    GANG_STEP = "GANG_STEP"
    METRICS_STALE = "METRICS_STALE"
    COVERAGE_LOW = "COVERAGE_LOW"
    OUTAGE = "OUTAGE"
    SUSPECT_SPIKE = "SUSPECT_SPIKE"
    PENDING_CAPACITY = "PENDING_CAPACITY"
    UNSCHEDULABLE = "UNSCHEDULABLE"
    DRAINING = "DRAINING"
    INFEASIBLE_SLO = "INFEASIBLE_SLO"
    PROFILE_UNKNOWN = "PROFILE_UNKNOWN"
    PAUSED = "PAUSED"
    OVERRIDE = "OVERRIDE"
    SCALE_TO_ZERO = "SCALE_TO_ZERO"
    WAKE = "WAKE"
    STARTING_UP = "STARTING_UP"
    RECOMMEND_ONLY = "RECOMMEND_ONLY"
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What one policy asks for.

    ``replicas`` is the least size that it is content with; ``floor`` is the size that it lets the role shrink to, None
    where it has no say in that. Without ``replicas`` it abstains. ``is_trusted`` is whether all that it needs is FRESH;
    what is not trusted keeps the role from shrinking.
    """

    policy: str
    reason: Reason
    replicas: int | None = None
    floor: int | None = None
    formula: str = ""
    is_trusted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """One step from the proposals to the size; only steps that changed something are kept."""

    reason: Reason
    before: int
    after: int
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A figure that the sizing went by; ``source`` is "profile", "measured" or "default"."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDecision:
    """The size of one role. ``wanted`` is what it came to before clamps, ``replicas`` what it should have now."""

    name: str
    role: str
    target_kind: str
    target_name: str
    current: int
    ready: int
    pending: int
    draining: int
    wanted: int
    replicas: int
    reason: Reason
    message: str
    proposals: tuple[Proposal, ...] = ()
    clamps: tuple[Clamp, ...] = ()
    readings: tuple[Judged, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    would_change_if: tuple[str, ...] = ()

    @property
    def change(self) -> int:
        """Replicas to add; negative to remove."""
        return self.replicas - self.current


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One look at one scope.

    ``id`` is the same for the same inputs. ``do_apply`` is False in the mode "recommend" and for nothing to do. Roles
    that shrink come before roles that grow when it is carried out. ``gpus_held`` counts what drains too; ``gpus_max``
    is None without a budget. ``ratio`` is prefill by decode replicas as the present mix of work has it, if known.
    """

    id: str
    scope: str
    key: str
    copy: int
    set_name: str
    at: float
    generation: int
    mode: str
    do_apply: bool
    roles: tuple[RoleDecision, ...]
    readings: tuple[Judged, ...] = ()
    gpus_held: float = 0.0
    gpus_max: int | None = None
    ratio: float | None = None
    demand: Mapping[str, float] = field(default_factory=dict)
