"""Why a gang waits or is where it is: placement's own words as messages.

A decision comes from placement and is shown as it is; nothing is concluded here. Levels are shown by their domain names
(rack) where the topology is known, else by the last part of their label key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from grove.v1 import explanation_pb2 as pb
from grove.v1 import topology_pb2
from grove_server.api.conversions.timestamps import optional_rfc3339
from grove_server.api.ports import Decision
from grove_server.placement.requests import (
    GPU_RESOURCE,
    GPU_SHARE,
    CliqueRequest,
    DomainPath,
    GangRequest,
    GroupRequest,
    PodShape,
)
from grove_server.placement.results import (
    DomainChoice,
    Exclusion,
    ExclusionKind,
    LevelReport,
    Placement,
    Reason,
    ScopeKind,
    Verdict,
    short_level,
)

PENDING: Final = "Pending"
PLACED: Final = "Placed"
GATED: Final = "Gated"

# The contract says these two in Kubernetes' words.
_EXCLUSIONS: Final[Mapping[ExclusionKind, str]] = {
    ExclusionKind.AFFINITY: "NodeAffinity",
    ExclusionKind.MISSING_LABEL: "TopologyLabelMissing",
}
_BYTES: Final = ("memory", "ephemeral-storage")
_BINARY: Final = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))
_MILLI: Final = 1000

# One pod of a clique on a node: clique, node, GPU ids.
PodPlace = tuple[str, str, tuple[int, ...]]


# Whether what was decided of a scope still holds for all its pods.
StillHolds = Callable[[Reason], bool]


def _always(_reason: Reason) -> bool:
    return True


def explanation(
    decision: Decision, places: Iterable[PodPlace] | None = None, still_holds: StillHolds = _always
) -> pb.PlacementExplanation:
    """Return the message of a decision; *places* are the gang's pods as they are, if it is placed already."""
    names = decision.level_names
    outcome = decision.outcome
    message = pb.PlacementExplanation(
        since=optional_rfc3339(decision.since),
        evaluated_at=optional_rfc3339(decision.evaluated_at),
        needs=_needs(decision, names),
    )
    match outcome:
        case Placement():
            _show_placement(message, outcome, names, places, still_holds)
        case Verdict():
            _show_verdict(message, outcome, names)
        case None:
            message.state = GATED if decision.request is None else PENDING
            message.reason = decision.waiting_reason
            message.sentence = decision.waiting_message
    _show_standing(message, decision)
    for part in decision.later:
        if isinstance(part.outcome, Placement):
            known = set(message.why_here)
            message.why_here.extend(each for each in _reasons(part.outcome, still_holds) if each not in known)
    if decision.surplus is not None:
        message.surplus.extend(explanation(each) for each in (decision.surplus, *decision.surplus.others))
    return message


def amount_text(resource: str, amount: int) -> str:
    """Return an amount in placement's units (milli for cpu and shares of GPUs, bytes) as a Kubernetes quantity."""
    if resource in {"cpu", GPU_SHARE}:
        return str(amount // _MILLI) if amount % _MILLI == 0 else f"{amount}m"
    if resource in _BYTES or resource.startswith("hugepages-"):
        for suffix, unit in _BINARY:
            if amount >= unit and amount % unit == 0:
                return f"{amount // unit}{suffix}"
    return str(amount)


def node_assignments(places: Iterable[PodPlace]) -> list[pb.NodeAssignment]:
    """Return pods per clique and node, with the GPUs they have there."""
    counts: Counter[tuple[str, str]] = Counter()
    gpus: dict[tuple[str, str], list[int]] = {}
    for clique, node, gpu_ids in places:
        counts[clique, node] += 1
        gpus.setdefault((clique, node), []).extend(gpu_ids)
    return [
        pb.NodeAssignment(clique=clique, node=node, pod_count=count, gpu_ids=sorted(set(gpus[clique, node])))
        for (clique, node), count in sorted(counts.items())
    ]


def _show_standing(message: pb.PlacementExplanation, decision: Decision) -> None:
    """Show whose turn it is before the gang's, and what is kept for it."""
    message.queue = decision.queue
    if decision.queue:
        message.priority = decision.priority
    if decision.queue_position is not None:
        message.queue_position = decision.queue_position
    if decision.nominated is not None and not isinstance(decision.outcome, Placement):
        cliques = decision.nominated.cliques
        places = ((clique.name, each.node, each.gpu_ids) for clique in cliques for each in clique.bindings)
        message.nominated.extend(node_assignments(places))


def _show_placement(
    message: pb.PlacementExplanation,
    placement: Placement,
    names: Mapping[str, str],
    places: Iterable[PodPlace] | None,
    still_holds: StillHolds,
) -> None:
    message.state = PLACED
    message.why_here.extend(_reasons(placement, still_holds))
    message.sentence = message.why_here[0] if message.why_here else f"gang {placement.gang} is placed"
    message.placement_score = placement.score
    message.topology.extend(_chosen(choice, names) for choice in placement.domains if choice.level)
    if places is None:
        places = (
            (clique.name, binding.node, binding.gpu_ids) for clique in placement.cliques for binding in clique.bindings
        )
    message.assignments.extend(node_assignments(places))


def _reasons(placement: Placement, still_holds: StillHolds) -> list[str]:
    return [reason.sentence(is_still_so=still_holds(reason)) for reason in placement.reasons]


def _show_verdict(message: pb.PlacementExplanation, verdict: Verdict, names: Mapping[str, str]) -> None:
    message.state = PENDING
    message.reason = verdict.code.value
    message.sentence = verdict.sentence()
    message.proof = verdict.proof
    scope = _scope(verdict.kind, verdict.scope)
    message.failed_scope = scope
    message.cluster.CopyFrom(
        pb.PlacementClusterCounts(
            node_count=verdict.nodes_total,
            node_count_fitting=verdict.nodes_total - sum(each.node_count for each in verdict.exclusions),
            excluded=[_exclusion(each) for each in sorted(verdict.exclusions, key=_by_count)],
        )
    )
    message.levels.extend(_level_row(report, scope, verdict, names) for report in verdict.levels)
    message.would_fit_if.extend(remedy.sentence() for remedy in verdict.remedies)


def _by_count(exclusion: Exclusion) -> tuple[int, str, str]:
    return (-exclusion.node_count, exclusion.kind.value, exclusion.detail)


def _exclusion(exclusion: Exclusion) -> pb.NodeExclusion:
    return pb.NodeExclusion(
        reason=_EXCLUSIONS.get(exclusion.kind, exclusion.kind.value),
        detail=exclusion.detail,
        node_count=exclusion.node_count,
    )


def _level_row(report: LevelReport, scope: str, verdict: Verdict, names: Mapping[str, str]) -> pb.PlacementLevelRow:
    best = report.best
    return pb.PlacementLevelRow(
        scope=scope,
        level=level_name(report.level, names),
        key=report.level,
        required=report.level == verdict.level,
        domain_count=report.domains_considered,
        domain_count_fitting=report.domains_fitting,
        best_domain="" if best is None else best.value,
        best_pod_count=None if best is None else best.pods_fit,
        needed_pod_count=verdict.pods_needed,
        missing={} if best is None else _missing(best.lacks),
    )


def _chosen(choice: DomainChoice, names: Mapping[str, str]) -> topology_pb2.ChosenDomain:
    return topology_pb2.ChosenDomain(
        scope=choice.scope, level=level_name(choice.level, names), key=choice.level, domain=choice.value
    )


def _scope(kind: ScopeKind, name: str) -> str:
    return "gang" if kind is ScopeKind.GANG else f"{kind.value.lower()}/{name}"


def level_name(key: str, names: Mapping[str, str]) -> str:
    """Return how people call a level: by its domain name where the topology is known."""
    return names.get(key) or short_level(key)


def _needs(decision: Decision, names: Mapping[str, str]) -> pb.PlacementNeeds | None:
    """Return what was asked for, with the cliques that came with later parts alone."""
    requests = [each.request for each in (decision, *decision.later) if each.request is not None]
    if not requests:
        return None
    request: GangRequest = requests[0]
    by_name = {clique.name: clique for each in reversed(requests) for clique in _cliques(each.members)}
    first = {clique.name: None for each in requests for clique in _cliques(each.members)}
    cliques = [by_name[name] for name in first]
    minimum = sum(clique.minimum for clique in cliques)
    return pb.PlacementNeeds(
        pod_count_min=minimum,
        pod_count=minimum + sum(clique.optional for clique in cliques),
        cliques=[
            pb.CliqueNeeds(
                name=clique.name,
                pod_count_min=clique.minimum,
                pod_count=clique.minimum + clique.optional,
                requests=shape_requests(clique.shape),
                required_level=level_name(clique.required or "", names),
                preferred_level=level_name(clique.preferred or "", names),
            )
            for clique in cliques
        ],
        required_level=level_name(request.required or "", names),
        preferred_level=level_name(request.preferred or "", names),
        within=_within(request.within, names),
    )


def _cliques(members: Iterable[CliqueRequest | GroupRequest]) -> Iterator[CliqueRequest]:
    for member in members:
        if isinstance(member, CliqueRequest):
            yield member
        else:
            yield from _cliques(member.members)


def _missing(lacks: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Return amounts by resource; shares stand under the name that people know GPUs by."""
    return {GPU_RESOURCE if name == GPU_SHARE else name: amount_text(name, amount) for name, amount in lacks}


def shape_requests(shape: PodShape) -> dict[str, str]:
    """Return what one pod asks for, as quantities; a share of a GPU under the name that people know GPUs by."""
    amounts = {resource: amount_text(resource, amount) for resource, amount in shape.requests}
    if shape.gpu_milli:
        amounts[GPU_RESOURCE] = amount_text(GPU_SHARE, shape.gpu_milli)
    return amounts


def _within(path: DomainPath, names: Mapping[str, str]) -> list[topology_pb2.ChosenDomain]:
    return [
        topology_pb2.ChosenDomain(scope="gang", level=level_name(key, names), key=key, domain=value)
        for key, value in path
    ]
