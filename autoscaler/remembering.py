"""What a role is remembered by: changes of its size as they are seen, and what a decision leaves behind. Pure.

A change counts from the decision that asked for it if there was one in that direction, else from when it was seen: so
rates hold for what users do by hand, too, and for what was decided before a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from autoscaler.memory import DemandMemory, PanicMemory, RoleMemory, SignalMemory
from autoscaler.observation import RoleState
from autoscaler.policy import Policy, RolePolicy
from autoscaler.shaping import rates
from autoscaler.shaping.draft import Draft
from autoscaler.shaping.moves import kept_window_s

_TURNS_MAX: Final = 16
_COLD_SHARE: Final = 0.9


def first_memory(state: RoleState, now: float) -> RoleMemory:
    """Return the memory of a role that was not known: its size counts as the wish until now, so it does not shrink."""
    return RoleMemory(current=state.current, known_at=now, highs=((now, state.current),))


def with_seen_change(memory: RoleMemory, state: RoleState, role: RolePolicy, now: float) -> RoleMemory:
    """Return the memory with the change of size since the last tick."""
    change = state.current - memory.current
    cold_start_s = cold_start_of(state, memory.cold_start_s)
    if change == 0:
        if cold_start_s == memory.cold_start_s:
            return memory
        return replace(memory, cold_start_s=cold_start_s)
    at = now
    if memory.decided is not None and (memory.decided[1] - memory.current) * change > 0:
        at = memory.decided[0]
    # A cooldown looks back further than the rates do.
    kept_s = max(rates.longest_period_s(role.up, role.down), role.cooldown_after_up_s or 0.0, 1800.0)
    ups, downs = memory.ups, memory.downs
    if change > 0:
        ups = rates.with_change(ups, at, change, now, kept_s)
    else:
        downs = rates.with_change(downs, at, -change, now, kept_s)
    return replace(memory, current=state.current, ups=ups, downs=downs, cold_start_s=cold_start_s)


def cold_start_of(state: RoleState, before_s: float | None) -> float | None:
    """Return the time that nine of ten starts take, as last measured."""
    if not state.cold_starts_s:
        return before_s
    ordered = sorted(state.cold_starts_s)
    return ordered[min(len(ordered) - 1, int(_COLD_SHARE * len(ordered)))]


def after_decision(  # noqa: PLR0913 -- everything that a tick found out about a role
    draft: Draft,
    policy: Policy,
    *,
    now: float,
    is_frozen: bool,
    breaches: int,
    demand: DemandMemory,
    signals: Mapping[str, SignalMemory],
    panics: Mapping[str, PanicMemory],
    factors: tuple[float, float, float],
) -> RoleMemory:
    """Return what to carry on of a role. *is_frozen* keeps the present size as a wish: no shrinking for a window."""
    memory, role = draft.memory, draft.role
    down_s = kept_window_s(role.down.window_s)
    lows, highs = memory.lows, memory.highs
    if draft.is_known:
        lows = rates.with_low(lows, draft.wanted, now, role.up.window_s)
        highs = rates.with_high(highs, draft.wanted, now, down_s)
    if is_frozen or not draft.is_known:
        highs = rates.with_high(highs, max(draft.current, draft.wanted), now, down_s)
    direction, turns = _turned(draft, policy, now)
    has_stepped = any(
        p.policy == "slo" and p.replicas is not None and p.replicas > draft.current for p in draft.proposals
    )
    return RoleMemory(
        current=draft.current,
        known_at=now if draft.is_known else memory.known_at,
        lows=lows,
        highs=highs,
        ups=memory.ups,
        downs=memory.downs,
        decided=(now, draft.size),
        turns=turns,
        direction=direction,
        breaches=breaches,
        breach_at=now if has_stepped else memory.breach_at,
        prefill_factor=factors[0],
        decode_factor=factors[1],
        prefill_rate=factors[2],
        cold_start_s=memory.cold_start_s,
        demand=demand,
        signals=signals,
        panics=panics,
    )


def _turned(draft: Draft, policy: Policy, now: float) -> tuple[int, tuple[float, ...]]:
    memory = draft.memory
    turns = tuple(at for at in memory.turns if at > now - policy.tuning.flap_window_s)
    step = draft.size - draft.current
    if step == 0:
        return memory.direction, turns
    direction = 1 if step > 0 else -1
    if direction == -memory.direction:
        turns = (*turns, now)[-_TURNS_MAX:]
    return direction, turns
