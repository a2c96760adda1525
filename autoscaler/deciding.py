"""The core: from what is measured to a size for every role. Pure: the same arguments give the same answer.

VALIDATE (``validating``) -> DEMAND (``demand``) -> SIZE (``sizing``) -> COMBINE (``sizing.proposals``) -> SHAPE and
COUPLE (``shaping``), for each scope, and then one budget over all of them. What is not known never shrinks a role, and
nothing is done at the first tick after a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.decision import Decision, Reason, RoleDecision
from autoscaler.demand.streams import Streams, streams_of
from autoscaler.explaining import would_change
from autoscaler.memory import Memory, RoleMemory, ScopeMemory, SignalMemory
from autoscaler.observation import ScopeState, Snapshot
from autoscaler.policy import Policy
from autoscaler.remembering import after_decision, first_memory, with_seen_change
from autoscaler.shaping import coupling, moves
from autoscaler.shaping.budget import Claim, held_gpus, share_out
from autoscaler.shaping.draft import Draft
from autoscaler.shaping.zero import settle_zero
from autoscaler.validating import Judgements, judge
from autoscaler.weighing import RoleTick, blame_of, parameters_of, weigh
from grove_server.resources import scaling_policy as schema


@dataclass(slots=True, kw_only=True)
class _ScopeTick:
    """A scope while it is decided."""

    policy: Policy
    scope: ScopeState
    memory: ScopeMemory | None
    readings: Judgements
    signals: Mapping[str, SignalMemory]
    streams: Streams
    roles: list[RoleTick]
    busy_at: float

    @property
    def drafts(self) -> list[Draft]:
        return [tick.draft for tick in self.roles]


def decide(policies: Mapping[str, Policy], snapshot: Snapshot, memory: Memory) -> tuple[tuple[Decision, ...], Memory]:
    """Return a decision for each scope whose policy is known and not off, in the snapshot's order, and what to carry.

    *policies* are keyed as ``Policy.key``. Scopes that are gone from the snapshot are forgotten.
    """
    now = snapshot.at
    ticks = []
    for scope in snapshot.scopes:
        policy = policies.get(scope.key)
        if policy is None or policy.mode == schema.MODE_OFF:
            continue
        tick = _weighed(policy, scope, memory.scopes.get(scope.id), snapshot)
        _settle(tick, now)
        ticks.append(tick)
    held = _share_budgets(ticks)
    decisions = []
    kept: dict[str, ScopeMemory] = {}
    for tick in ticks:
        coupling.keep_in_step(tick.policy, tick.drafts, now)
        decisions.append(_decision(tick, held, now))
        kept[tick.scope.id] = _remembered(tick, now)
    return tuple(decisions), Memory(scopes=kept)


def _weighed(policy: Policy, scope: ScopeState, memory: ScopeMemory | None, snapshot: Snapshot) -> _ScopeTick:
    now = snapshot.at
    elapsed_s = now - memory.seen_at if memory else snapshot.tick_s
    readings, signals = judge(scope.readings, policy, memory.signals if memory else {}, now)
    before: Mapping[str, RoleMemory] = memory.roles if memory else {}
    known = [(role, state) for role in policy.roles for state in scope.roles if state.name == role.name]
    judged = {}
    for _, state in known:
        old = before.get(state.name)
        judged[state.name] = judge(state.readings, policy, old.signals if old else {}, now)
    streams = streams_of(readings, [found for found, _ in judged.values()], memory, policy.tuning, elapsed_s)
    blame = blame_of(policy, readings, {state.name: (state, judged[state.name][0]) for _, state in known})
    roles = []
    for role, state in known:
        old = before.get(state.name)
        roles.append(
            weigh(
                policy,
                role,
                state,
                first_memory(state, now) if old is None else with_seen_change(old, state, role, now),
                readings=judged[state.name][0],
                signals=judged[state.name][1],
                scope_readings=readings,
                streams=streams,
                blame=blame,
                snapshot=snapshot,
                elapsed_s=elapsed_s,
                is_new=old is None,
            )
        )
    busy_at = memory.busy_at if memory and streams.is_idle else now
    return _ScopeTick(
        policy=policy,
        scope=scope,
        memory=memory,
        readings=readings,
        signals=signals,
        streams=streams,
        roles=roles,
        busy_at=busy_at,
    )


def _settle(tick: _ScopeTick, now: float) -> None:
    """Lead the scope's drafts to what they may have, but for the budget."""
    policy, drafts = tick.policy, tick.drafts
    coupling.fix_ratio(policy, drafts)
    is_settled = settle_zero(
        policy,
        drafts,
        does_arrive=tick.streams.does_arrive,
        idle_s=now - tick.busy_at,
        is_idle=tick.streams.is_idle,
        now=now,
    )
    overrides = {asked.role: asked for asked in tick.scope.overrides if asked.until > now}
    for role in tick.roles:
        draft = role.draft
        asked = overrides.get(draft.role.name)
        if draft.state.conflict:
            moves.hold(draft, Reason.CONFLICT, draft.state.conflict)
        elif role.is_new and asked is None:
            moves.hold(draft, Reason.STARTING_UP, "first look: the size is kept for a window")
        elif asked is not None:
            moves.override(draft, asked, now)
        elif not is_settled and draft.current > 0:
            if not draft.is_known:
                _hold_unknown(draft, policy, now)
            moves.shape(draft, policy, now)
    if not is_settled:
        coupling.keep_in_step(policy, drafts, now)
    for direction, message in moves.paused_directions(policy, tick.scope.pauses, now):
        for draft in drafts:
            moves.pause(draft, direction, message)


def _hold_unknown(draft: Draft, policy: Policy, now: float) -> None:
    """Do what the policy says of an outage, once it has lasted; the role never shrinks for it."""
    for_s = now - draft.memory.known_at
    if for_s > policy.outage_grace_s and policy.outage == schema.OUTAGE_AT_LEAST and policy.outage_replicas:
        draft.clamp(
            max(draft.current, policy.outage_replicas),
            Reason.OUTAGE,
            f"no demand is known for {for_s:.0f}s: at least {policy.outage_replicas}",
        )
    elif for_s > policy.outage_grace_s:
        draft.reason, draft.message = Reason.OUTAGE, f"no demand is known for {for_s:.0f}s: {draft.message}"


def _share_budgets(ticks: list[_ScopeTick]) -> dict[str, tuple[float, int]]:
    """Keep every budget; return what is held of each, and how much there is."""
    claims: dict[str, list[Claim]] = {}
    limits: dict[str, int] = {}
    for tick in ticks:
        policy = tick.policy
        if policy.budget_gpus is None:
            continue
        limits[policy.budget_name] = min(policy.budget_gpus, limits.get(policy.budget_name, policy.budget_gpus))
        claims.setdefault(policy.budget_name, []).extend(
            Claim(draft=draft, priority=policy.budget_priority, name=f"{tick.scope.id}/{draft.role.name}")
            for draft in tick.drafts
        )
    return {name: (share_out(limits[name], claims[name]), limits[name]) for name in sorted(claims)}


def _decision(tick: _ScopeTick, held: Mapping[str, tuple[float, int]], now: float) -> Decision:
    policy, scope = tick.policy, tick.scope
    roles = tuple(_role_decision(role) for role in tick.roles)
    budget = held.get(policy.budget_name) if policy.budget_gpus is not None else None
    return Decision(
        id=f"{scope.id}@{now:.3f}",
        scope=scope.id,
        key=scope.key,
        copy=scope.copy,
        set_name=policy.set_name,
        at=now,
        generation=policy.generation,
        mode=policy.mode,
        do_apply=policy.mode == schema.MODE_APPLY and any(role.change for role in roles),
        roles=roles,
        readings=tuple(tick.readings.values()),
        gpus_held=budget[0] if budget else sum(held_gpus(draft) for draft in tick.drafts),
        gpus_max=budget[1] if budget else None,
        ratio=_ratio(tick),
    )


def _role_decision(tick: RoleTick) -> RoleDecision:
    draft = tick.draft
    state = draft.state
    return RoleDecision(
        name=draft.role.name,
        role=draft.role.role,
        target_kind=state.target_kind,
        target_name=state.target_name,
        current=state.current,
        ready=state.ready,
        pending=state.starting + state.pending,
        draining=state.draining,
        wanted=draft.wanted,
        replicas=draft.size,
        reason=draft.reason,
        message=draft.message,
        proposals=draft.proposals,
        clamps=tuple(draft.clamps),
        readings=tuple(tick.inputs.readings.values()),
        parameters=parameters_of(tick.inputs),
        would_change_if=would_change(tick.inputs, draft.size),
    )


def _ratio(tick: _ScopeTick) -> float | None:
    """Return prefill by decode replicas as the expected work has it."""
    busy: dict[str, float] = {}
    for role in tick.roles:
        inputs = role.inputs
        if inputs.prefill_demand is not None and inputs.prefill and inputs.prefill.prefill_tokens_per_s:
            needed = inputs.prefill_demand.ahead / inputs.prefill.prefill_tokens_per_s
            busy[schema.PREFILL] = needed / inputs.role.utilization
        elif inputs.decode_demand is not None and inputs.decode and inputs.decode.decode_tokens_per_s:
            needed = inputs.decode_demand.ahead / inputs.decode.decode_tokens_per_s
            busy[schema.DECODE] = needed / inputs.role.utilization
    decode = busy.get(schema.DECODE, 0.0)
    return busy[schema.PREFILL] / decode if decode > 0 and schema.PREFILL in busy else None


def _remembered(tick: _ScopeTick, now: float) -> ScopeMemory:
    policy, streams = tick.policy, tick.streams
    is_changed = tick.memory is not None and tick.memory.generation != policy.generation
    roles = {
        role.draft.role.name: after_decision(
            role.draft,
            policy,
            now=now,
            is_frozen=role.is_new or is_changed,
            breaches=role.breaches,
            demand=role.demand,
            signals=role.signals,
            panics=role.panics,
            factors=role.factors,
        )
        for role in tick.roles
    }
    return ScopeMemory(
        generation=policy.generation,
        seen_at=now,
        busy_at=tick.busy_at,
        output_short=streams.output_short,
        output_long=streams.output_long,
        uncached=streams.mix.uncached or 0.0,
        prompt=streams.mix.prompt or 0.0,
        signals=tick.signals,
        roles=roles,
    )
