"""All proposals for a role, and what they come to. Pure.

Growing: the largest proposal. Shrinking: to the highest floor, and only if every policy with a say in it knows what it
needs, freshly: one that failed, or that looks at too few pods, keeps the role as it is. That is HPA's rule for metrics
that failed, carried on to stale and suspect ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from autoscaler import observation as seen
from autoscaler.decision import Proposal, Reason
from autoscaler.memory import PanicMemory
from autoscaler.observation import Freshness
from autoscaler.policy import Sizer
from autoscaler.sizing import kpa, plain, work
from autoscaler.sizing.inputs import Inputs
from autoscaler.validating import Judgements
from grove_server.resources import scaling_policy as schema

_BY_CAPACITY: Final = frozenset({schema.WORK, schema.BACKLOG, schema.RESIDENTS, schema.KV})
_GPU_BUSY: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What all proposals come to."""

    size: int
    reason: Reason
    message: str
    is_known: bool
    is_trusted: bool


def propose(inputs: Inputs) -> tuple[tuple[Proposal, ...], dict[str, PanicMemory]]:
    """Return a proposal of each policy of the role, in its order, and what KPA remembers."""
    panics: dict[str, PanicMemory] = {}
    found = []
    for sizer in inputs.role.sizers:
        proposal = _propose_one(inputs, sizer, panics)
        if inputs.state.sick and proposal.policy in _BY_CAPACITY and proposal.replicas is not None:
            proposal = _beside_the_sick(proposal, inputs.state.sick)
        if not sizer.allows_scale_in and proposal.floor is not None:
            proposal = replace(proposal, floor=None, is_trusted=True)
        found.append(proposal)
    return tuple(found), panics


def _propose_one(inputs: Inputs, sizer: Sizer, panics: dict[str, PanicMemory]) -> Proposal:
    match sizer.kind:
        case schema.WORK:
            return work.propose_work(inputs)
        case schema.BACKLOG:
            return work.propose_backlog(inputs)
        case schema.RESIDENTS:
            return work.propose_residents(inputs)
        case schema.KV:
            return work.propose_kv(inputs)
        case schema.SLO:
            return plain.propose_outcome(inputs)
        case schema.TARGET:
            return plain.propose_target(inputs, sizer)
        case schema.KPA:
            return _propose_concurrency(inputs, sizer, panics)
        case schema.QUEUE_DEPTH:
            return plain.propose_queue_depth(inputs, sizer)
        case schema.GPU_UTIL:
            return plain.propose_gpu_activity(inputs, sizer)
        case schema.STEP:
            return plain.propose_step(inputs, sizer)
        case _:
            return Proposal(policy=sizer.kind, reason=Reason.NO_CHANGE, formula="not known", is_trusted=False)


def _propose_concurrency(inputs: Inputs, sizer: Sizer, panics: dict[str, PanicMemory]) -> Proposal:
    name = sizer.signal or seen.RUNNING_REQUESTS
    found, before = inputs.reading(name), inputs.memory.panics.get(name)
    if found is None or found.value is None or sizer.target <= 0:
        if before is not None:
            panics[name] = before
        return Proposal(policy=schema.KPA, reason=Reason.METRICS_STALE, is_trusted=False)
    settings = kpa.Concurrency(
        target=sizer.target,
        stable_window_s=sizer.stable_window_s,
        panic_window_s=sizer.panic_window_s,
        threshold=sizer.panic_threshold,
    )
    size, panics[name] = kpa.propose(settings, before, found.value, inputs.state.ready, inputs.now)
    formula = f"{found.value:g} in flight, {sizer.target:g} a replica"
    return Proposal(
        policy=schema.KPA,
        reason=Reason.CONCURRENCY,
        replicas=size,
        floor=size,
        formula=formula,
        is_trusted=found.is_fresh,
    )


def combine(inputs: Inputs, proposals: tuple[Proposal, ...]) -> Wish:
    """Return what the proposals come to."""
    current = inputs.state.current
    known = [proposal for proposal in proposals if proposal.replicas is not None]
    demand = [proposal for proposal in known if proposal.policy != schema.SLO]
    if not known:
        reason, message = _doubt(inputs, proposals)
        return Wish(size=current, reason=reason, message=message, is_known=False, is_trusted=False)
    most = max(known, key=lambda proposal: proposal.replicas or 0)
    size = most.replicas or 0
    is_trusted = all(proposal.is_trusted for proposal in proposals)
    if size >= current:
        reason = most.reason if size > current else Reason.NO_CHANGE
        return Wish(size=size, reason=reason, message=most.formula, is_known=bool(demand), is_trusted=is_trusted)
    if not is_trusted:
        reason, message = _doubt(inputs, proposals)
        return Wish(size=current, reason=reason, message=message, is_known=bool(demand), is_trusted=False)
    floors = [proposal for proposal in known if proposal.floor is not None]
    if not floors:
        message = "no policy has a say in shrinking"
        return Wish(size=current, reason=Reason.NO_CHANGE, message=message, is_known=bool(demand), is_trusted=True)
    highest = max(floors, key=lambda proposal: proposal.floor or 0)
    floor = max(size, highest.floor or 0)
    if floor >= current:
        message = f"{current - 1} would not carry it: {highest.formula}"
        return Wish(size=current, reason=Reason.CONSOLIDATION_UNSAFE, message=message, is_known=True, is_trusted=True)
    veto = _busy_gpus(inputs, floor)
    if veto:
        return Wish(
            size=current, reason=Reason.CONSOLIDATION_UNSAFE, message=veto, is_known=bool(demand), is_trusted=True
        )
    return Wish(size=floor, reason=highest.reason, message=highest.formula, is_known=bool(demand), is_trusted=True)


def _beside_the_sick(proposal: Proposal, sick: int) -> Proposal:
    """Return the proposal with as many more replicas as are ready and do no work."""
    return replace(
        proposal,
        replicas=(proposal.replicas or 0) + sick,
        floor=None if proposal.floor is None else proposal.floor + sick,
        formula=f"{proposal.formula} + {sick} sick",
    )


def _busy_gpus(inputs: Inputs, floor: int) -> str:
    """Return why GPUs are too busy for the role to shrink; empty if they are not, or of a role where it says nothing.

    Of prefill the activity of GPUs follows the load; decode keeps them busy at any load.
    """
    found = inputs.readings.get(seen.GPU_ACTIVITY)
    if inputs.role.role != schema.PREFILL or found is None or found.value is None or floor <= 0:
        return ""
    expected = found.value * inputs.state.ready / floor
    return f"GPUs would be {expected:.0%} busy at {floor}" if expected > _GPU_BUSY else ""


def _doubt(inputs: Inputs, proposals: tuple[Proposal, ...]) -> tuple[Reason, str]:
    """Return why the role is left as it is: what is wrong with the first reading that is not fresh."""
    for readings in (inputs.readings, inputs.scope_readings):
        found = _first_doubt(readings)
        if found is not None:
            return found
    failed = next((proposal for proposal in proposals if not proposal.is_trusted), None)
    if failed is None:
        unknown = next((p for p in proposals if p.reason is Reason.PROFILE_UNKNOWN), None)
        return (unknown.reason, unknown.formula) if unknown else (Reason.NO_CHANGE, "nothing is measured")
    return failed.reason, failed.formula


def _first_doubt(readings: Judgements) -> tuple[Reason, str] | None:
    for name, judged in sorted(readings.items()):
        if judged.freshness is not Freshness.FRESH:
            reason = Reason.METRICS_STALE
            if judged.freshness is Freshness.SUSPECT:
                reason = Reason.COVERAGE_LOW if judged.missing else Reason.SUSPECT_SPIKE
            return reason, f"{name}: {judged.message}"
    return None
