"""From what a role wants to what it may have by itself: windows, cooldown, rates, legal sizes, bounds, holds. Pure.

The order is HPA's (stabilise, limit the rate, bounds). Around it: a role does not shrink within a cold start of having
grown; one that turned too often in the last while shrinks after a longer window; what has no place after two cold
starts keeps the role from asking for more. Every step that changes something is kept.
"""

from __future__ import annotations

from typing import Final

from autoscaler.decision import Reason
from autoscaler.observation import Override, Pause
from autoscaler.policy import Policy
from autoscaler.shaping import rates
from autoscaler.shaping.draft import Draft
from autoscaler.shaping.schedules import bounds

UNSCHEDULABLE_COLD_STARTS: Final = 2.0
_WIDEST: Final = 4


def shape(draft: Draft, policy: Policy, now: float) -> None:
    """Lead a draft from its wish to what its own rules allow."""
    _stabilise(draft, policy, now)
    _cool_down(draft, now)
    _limit_rate(draft, now)
    _hold_for_places(draft, now)
    least, most = bounds(policy.schedules, draft.role.name, draft.role.min_replicas, draft.role.max_replicas, now)
    if draft.size < least:
        is_schedule = least > draft.role.min_replicas
        draft.clamp(least, Reason.SCHEDULE if is_schedule else Reason.BOUNDS, f"at least {least}")
    if draft.size > most:
        draft.clamp(most, Reason.SCHEDULE if most < draft.role.max_replicas else Reason.BOUNDS, f"at most {most}")
    if 0 < draft.size < draft.state.min_available:
        draft.clamp(draft.state.min_available, Reason.GANG_STEP, f"its gang needs {draft.state.min_available}")


def hold(draft: Draft, reason: Reason, message: str) -> None:
    """Leave the size as it is, and say why."""
    draft.clamp(draft.current, reason, message)
    draft.reason, draft.message = reason, message


def override(draft: Draft, asked: Override, now: float) -> None:
    """Set the size that somebody asked for; of a role's rules only the maximum and the gang's minimum hold for it."""
    size = min(max(asked.replicas, 0), draft.role.max_replicas)
    message = f"{asked.by or 'somebody'} asked for {asked.replicas} for {asked.until - now:.0f}s more"
    if 0 < size < draft.state.min_available:
        size = draft.state.min_available
        message = f"{message}; {size} is the least that its gang needs"
    elif size < asked.replicas:
        message = f"{message}; {size} is the most that the role may have"
    draft.clamp(size, Reason.OVERRIDE, message)
    # Also where nothing changes by it: the size is theirs.
    draft.reason, draft.message, draft.is_by_hand = Reason.OVERRIDE, message, True


def pause(draft: Draft, direction: str, message: str) -> None:
    """Keep a role from moving in a direction: "in", "out", or "both"."""
    if (draft.size < draft.current and direction != "out") or (draft.size > draft.current and direction != "in"):
        draft.clamp(draft.current, Reason.PAUSED, message)


def paused_directions(policy: Policy, pauses: tuple[Pause, ...], now: float) -> list[tuple[str, str]]:
    """Return each pause that holds: its direction and a sentence."""
    found = [(policy.paused, "the policy is paused")] if policy.paused else []
    found += [
        (each.direction, f"paused by {each.by or 'somebody'} for {each.until - now:.0f}s more")
        for each in pauses
        if each.until > now
    ]
    return found


def down_window_s(draft: Draft, policy: Policy, now: float) -> float:
    """Return the window for shrinking; one that is ours is longer for a role that turned more often than allowed."""
    if draft.role.down.is_exact or not draft.memory.turns:
        return draft.role.down.window_s
    turns = sum(1 for at in draft.memory.turns if at > now - policy.tuning.flap_window_s)
    return draft.role.down.window_s * min(_WIDEST, 1 + max(0, turns - policy.tuning.flaps_allowed))


def kept_window_s(window_s: float) -> float:
    """Return how long wishes are kept for a window that may widen."""
    return window_s * _WIDEST


def lost_replicas(draft: Draft, now: float) -> int:
    """Return how many replicas have waited so long for a place that they do not count as coming."""
    since = draft.state.pending_since
    if since is None or now - since < UNSCHEDULABLE_COLD_STARTS * draft.lead_s:
        return 0
    return draft.state.pending


def _stabilise(draft: Draft, policy: Policy, now: float) -> None:
    down_s = down_window_s(draft, policy, now)
    size = rates.stabilised(
        desired=draft.size,
        current=draft.current,
        lows=draft.memory.lows,
        highs=draft.memory.highs,
        up_window_s=draft.role.up.window_s,
        down_window_s=down_s,
        now=now,
    )
    if size != draft.size:
        window_s = draft.role.up.window_s if draft.size > draft.current else down_s
        draft.clamp(size, Reason.STABILISING, f"{size} within the last {window_s:g}s")


def _cool_down(draft: Draft, now: float) -> None:
    if draft.size >= draft.current or not draft.memory.ups:
        return
    role = draft.role
    cooldown_s = draft.lead_s if role.cooldown_after_up_s is None else role.cooldown_after_up_s
    since_s = now - draft.memory.ups[-1][0]
    if since_s < cooldown_s:
        draft.clamp(draft.current, Reason.COOLDOWN, f"grew {since_s:.0f}s ago, waits {cooldown_s:g}s")


def _limit_rate(draft: Draft, now: float) -> None:
    memory, role = draft.memory, draft.role
    if draft.size > draft.current:
        limit = rates.up_limit(draft.current, memory.ups, memory.downs, role.up, now)
        if draft.size > limit:
            draft.clamp(limit, Reason.RATE_LIMIT, f"grows to at most {limit} now")
    elif draft.size < draft.current:
        limit = rates.down_limit(draft.current, memory.ups, memory.downs, role.down, now)
        if draft.size < limit:
            draft.clamp(limit, Reason.RATE_LIMIT, f"shrinks to at least {limit} now")


def _hold_for_places(draft: Draft, now: float) -> None:
    lost = lost_replicas(draft, now)
    if lost and draft.size > draft.current:
        message = f"{lost} replicas have had no place for {now - (draft.state.pending_since or now):.0f}s"
        draft.clamp(draft.current, Reason.UNSCHEDULABLE, message)
