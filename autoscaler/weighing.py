"""One role of one scope at one tick: from judged readings to a draft with all its proposals. Pure.

A role's lead is how long a replica that is started now takes to serve, as measured, and a tick. Where too few requests
meet their targets, the role in which they lose their time is to blame: decode if prompts that are done wait for a place
there, or tokens come too slowly; prefill otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from autoscaler import observation as seen
from autoscaler.decision import Parameter, Proposal
from autoscaler.demand.forecast import Outlook, look_ahead
from autoscaler.demand.streams import Stream, Streams
from autoscaler.memory import DemandMemory, PanicMemory, RoleMemory, SignalMemory
from autoscaler.observation import RoleState, Snapshot
from autoscaler.policy import Policy, RolePolicy
from autoscaler.shaping.draft import Draft
from autoscaler.sizing.capacity import Capacity, decode_capacity, learned, prefill_capacity
from autoscaler.sizing.inputs import Inputs
from autoscaler.sizing.proposals import combine, propose
from autoscaler.validating import Judgements
from grove_server.resources import scaling_policy as schema

_PREFILLS: Final = frozenset({schema.PREFILL, schema.AGGREGATED, schema.ENCODE})
_DECODES: Final = frozenset({schema.DECODE, schema.AGGREGATED})


@dataclass(slots=True, kw_only=True)
class RoleTick:
    """A role's draft with what was found out on the way; lives for one tick."""

    draft: Draft
    inputs: Inputs
    breaches: int
    demand: DemandMemory
    signals: Mapping[str, SignalMemory]
    factors: tuple[float, float, float]
    panics: Mapping[str, PanicMemory] = field(default_factory=dict)
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Which targets are missed, and whether prompts that are done wait for a place in decode."""

    ttft: bool = False
    itl: bool = False
    is_decode_starved: bool = False

    def of(self, role: str, prefill: Capacity | None, decode: Capacity | None) -> bool:
        """Tell whether a role is to blame; a target that no size can keep blames nobody."""
        late = self.ttft and not (prefill is not None and prefill.is_infeasible)
        slow = self.itl and not (decode is not None and decode.is_infeasible)
        if role == schema.AGGREGATED:
            return late or slow
        if role == schema.DECODE:
            return slow or (late and self.is_decode_starved)
        return late and not self.is_decode_starved


def blame_of(policy: Policy, scope: Judgements, roles: Mapping[str, tuple[RoleState, Judgements]]) -> Blame:
    """Return what the outcome says: only fresh attainments count."""
    if policy.slo.ttft_s is None and policy.slo.itl_s is None:
        return Blame()
    starved = False
    for role in policy.roles:
        if role.role == schema.DECODE and role.name in roles:
            state, readings = roles[role.name]
            waiting = sum(
                readings[name].value or 0.0 for name in (seen.TRANSFER_QUEUE, seen.QUEUED_REQUESTS) if name in readings
            )
            starved = starved or waiting >= max(1, state.ready)
    return Blame(
        ttft=policy.slo.ttft_s is not None and _is_below(scope, seen.TTFT_ATTAINMENT, policy.slo.attainment),
        itl=policy.slo.itl_s is not None and _is_below(scope, seen.ITL_ATTAINMENT, policy.slo.attainment),
        is_decode_starved=starved,
    )


def weigh(  # noqa: PLR0913 -- what one role is decided from
    policy: Policy,
    role: RolePolicy,
    state: RoleState,
    memory: RoleMemory,
    *,
    readings: Judgements,
    signals: Mapping[str, SignalMemory],
    scope_readings: Judgements,
    streams: Streams,
    blame: Blame,
    snapshot: Snapshot,
    elapsed_s: float,
    is_new: bool,
) -> RoleTick:
    """Return the role's draft: what it wants, by all its policies, before anything limits it."""
    now = snapshot.at
    factors = learned(role.profile, memory, state, readings, streams.mix, policy.tuning, elapsed_s)
    prefill = decode = None
    if role.role in _PREFILLS:
        prefill = prefill_capacity(role.profile, memory, policy.slo, streams.mix)
    if role.role in _DECODES:
        decode = decode_capacity(role.profile, memory, policy.slo, streams.mix, policy.tuning)
    cold_start_s = memory.cold_start_s if memory.cold_start_s is not None else role.profile.cold_start_s
    lead_s = min(policy.tuning.lead_max_s, cold_start_s + snapshot.tick_s)
    stream = streams.prefill if prefill is not None else streams.decode
    outlook, demand = _outlook(policy, role, memory.demand, stream, now=now, lead_s=lead_s)
    both = prefill is not None and decode is not None
    is_blamed = blame.of(role.role, prefill, decode)
    breaches = memory.breaches + 1 if is_blamed else 0
    inputs = Inputs(
        policy=policy,
        role=role,
        state=state,
        memory=memory,
        readings=readings,
        scope_readings=scope_readings,
        mix=streams.mix,
        prefill=prefill,
        decode=decode,
        prefill_demand=outlook if prefill is not None else None,
        decode_demand=_scaled(outlook, streams) if both else (outlook if decode is not None else None),
        is_demand_fresh=stream.is_fresh and (not both or streams.decode.is_fresh),
        missing=max((judged.missing for judged in readings.values()), default=0),
        breach=is_blamed,
        breaches=breaches,
        now=now,
    )
    proposals, panics = propose(inputs)
    return RoleTick(
        draft=_draft(inputs, proposals, lead_s),
        inputs=inputs,
        breaches=breaches,
        demand=demand,
        signals=signals,
        factors=factors,
        panics=panics,
        is_new=is_new,
    )


def _draft(inputs: Inputs, proposals: tuple[Proposal, ...], lead_s: float) -> Draft:
    wish = combine(inputs, proposals)
    role, state = inputs.role, inputs.state
    return Draft(
        role=role,
        state=state,
        memory=inputs.memory,
        wanted=wish.size,
        size=wish.size,
        reason=wish.reason,
        message=wish.message,
        is_known=wish.is_known,
        is_trusted=wish.is_trusted,
        gpus=state.gpus_per_replica if role.gpus_per_replica is None else role.gpus_per_replica,
        lead_s=lead_s,
        proposals=proposals,
    )


def parameters_of(inputs: Inputs) -> tuple[Parameter, ...]:
    """Return the figures that a role's sizing went by."""
    found: list[Parameter] = []
    prefill, decode = inputs.prefill, inputs.decode
    figures: list[tuple[str, float | None, str, str]] = []
    if prefill is not None:
        figures.append(("prefillTokensPerSecond", prefill.prefill_tokens_per_s, "tokens/s", prefill.source))
    if decode is not None:
        figures.append(("decodeBatch", decode.batch, "count", decode.source))
        figures.append(("decodeStep", decode.step_s, "seconds", decode.source))
        figures.append(("decodeTokensPerSecond", decode.decode_tokens_per_s, "tokens/s", decode.source))
    for name, value, unit, source in figures:
        if value is not None:
            found.append(Parameter(name=name, value=value, unit=unit, source=source))
    for demand, name in ((inputs.prefill_demand, "prefill"), (inputs.decode_demand, "decode")):
        if demand is not None:
            found.append(Parameter(name=f"{name}Demand", value=demand.now, unit="tokens/s", source="measured"))
            found.append(Parameter(name=f"{name}DemandAhead", value=demand.ahead, unit="tokens/s", source="measured"))
    return tuple(found)


def _outlook(
    policy: Policy, role: RolePolicy, memory: DemandMemory, stream: Stream, *, now: float, lead_s: float
) -> tuple[Outlook | None, DemandMemory]:
    if stream.value is None:
        return None, memory
    return look_ahead(policy, memory, stream.value, now=now, lead_s=lead_s, burst_memory_s=role.burst_memory_s)


def _scaled(outlook: Outlook | None, streams: Streams) -> Outlook | None:
    """Return the outlook of answer tokens of a role that does both: they grow as its prompts do."""
    prefill, decode = streams.prefill.value, streams.decode.value
    if outlook is None or decode is None:
        return None
    ratio = decode / prefill if prefill else 0.0
    return Outlook(
        now=decode,
        ahead=max(decode, outlook.ahead * ratio),
        low=max(decode, outlook.low * ratio),
        margin=outlook.margin,
    )


def _is_below(readings: Judgements, name: str, target: float) -> bool:
    found = readings.get(name)
    return found is not None and found.is_fresh and found.value is not None and found.value < target
