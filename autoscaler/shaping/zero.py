"""To zero and back. Pure.

All roles of a scope go to zero together, after a while in which fresh counters proved that nothing came and nothing was
held; one request at a router, or one arrival, wakes them together. A role at zero whose policy says nothing of zero was
put there by somebody, and is left there, as HPA does.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.decision import Reason
from autoscaler.policy import Policy
from autoscaler.shaping.draft import Draft
from autoscaler.shaping.moves import hold
from autoscaler.shaping.schedules import bounds


def settle_zero(
    policy: Policy, drafts: Sequence[Draft], *, does_arrive: bool, idle_s: float, is_idle: bool, now: float
) -> bool:
    """Take the scope to zero, wake it, or leave it there; return whether the sizes are settled by that."""
    at_zero = [draft for draft in drafts if draft.current == 0]
    if policy.zero_after_s is None:
        for draft in at_zero:
            hold(draft, Reason.SCALE_TO_ZERO, "is at 0, and scaleToZero is not set: left alone")
        return len(at_zero) == len(drafts)
    if at_zero and (does_arrive or _is_scheduled(policy, drafts, now)):
        for draft in at_zero:
            size = min(draft.role.max_replicas, max(1, draft.role.min_replicas, draft.state.min_available))
            draft.clamp(size, Reason.WAKE, "requests came")
            draft.reason, draft.message = Reason.WAKE, "requests came"
        return len(at_zero) == len(drafts)
    if is_idle and idle_s >= policy.zero_after_s and not _is_scheduled(policy, drafts, now):
        for draft in drafts:
            draft.clamp(0, Reason.SCALE_TO_ZERO, f"no request for {idle_s:.0f}s")
            draft.reason = Reason.SCALE_TO_ZERO
        return True
    for draft in at_zero:
        hold(draft, Reason.SCALE_TO_ZERO, "is at 0 until requests come")
    return len(at_zero) == len(drafts)


def _is_scheduled(policy: Policy, drafts: Sequence[Draft], now: float) -> bool:
    """Tell whether a schedule wants any role to be there now."""
    return any(bounds(policy.schedules, draft.role.name, 0, draft.role.max_replicas, now)[0] > 0 for draft in drafts)
