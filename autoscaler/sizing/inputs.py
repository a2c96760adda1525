"""What a role is sized from: policy, inventory, judged readings, outlook of demand, capacity. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.demand.forecast import Outlook
from autoscaler.memory import RoleMemory
from autoscaler.observation import RoleState
from autoscaler.policy import Policy, RolePolicy
from autoscaler.sizing.capacity import Capacity, Mix
from autoscaler.validating import Judged, Judgements


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All of it for one role. ``prefill`` and ``decode`` are None for a role without that work; so are demands unknown.

    ``missing`` ready pods do not report: on the way down each counts as a replica at work. ``is_demand_fresh`` is
    whether what the outlooks rest on is FRESH and is the signal that should be used.
    """

    policy: Policy
    role: RolePolicy
    state: RoleState
    memory: RoleMemory
    readings: Judgements
    scope_readings: Judgements
    mix: Mix
    prefill: Capacity | None
    decode: Capacity | None
    prefill_demand: Outlook | None
    decode_demand: Outlook | None
    is_demand_fresh: bool
    missing: int
    breach: bool
    breaches: int
    now: float

    def reading(self, name: str) -> Judged | None:
        """Return a judgement of the role's, or else of the scope's, or None if there is no such reading."""
        return self.readings.get(name) or self.scope_readings.get(name)

    @property
    def widening(self) -> float:
        """How much more demand is assumed when shrinking, so that growing back is not the next thing."""
        return self.role.utilization / self.role.scale_in_utilization
