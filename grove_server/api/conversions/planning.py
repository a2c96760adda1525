"""Answers to what-ifs as messages: gangs that would be placed, figures of the cluster, moves.

Shown as placement said it; nothing is concluded here.
"""

from __future__ import annotations

from collections.abc import Iterable

from grove.v1 import explanation_pb2
from grove.v1 import placement_pb2 as pb
from grove_server.api.conversions.explanations import explanation, level_name, shape_requests
from grove_server.api.ports import Decision, SimulatedGang
from grove_server.control.planning import PlannedMoves
from grove_server.placement.alternatives import Alternative
from grove_server.placement.fragmentation import Fragmentation, LargestGang
from grove_server.placement.gang_facts import is_leaving
from grove_server.placement.trial import SUCCESSOR

_MILLI = 1_000


def simulated_gang(gang: SimulatedGang) -> pb.SimulatedGang:
    """Return what would happen to one gang."""
    message = pb.SimulatedGang(
        namespace=gang.namespace,
        name=gang.name,
        pod_clique_set=gang.set_name,
        role="base" if gang.is_base else "scaled",
        fits=gang.fits,
        surplus_pod_count_placed=gang.surplus_placed,
        surplus_pod_count=gang.surplus_count,
        explanation=explanation(gang.decision),
        displaced=gang.is_displaced,
    )
    for victim in () if gang.eviction is None else gang.eviction.victims:
        if is_leaving(victim.gang):
            # They go without being told to.
            continue
        namespace, _, name = victim.gang.partition("/")
        # Those that would only be made in the course of it have no names yet.
        pods = [pod.partition("/")[2] for pod in victim.pods if not pod.endswith(SUCCESSOR)]
        if not pods:
            continue
        message.evictions.add(
            namespace=namespace, name=name, kind=victim.kind.value, priority=victim.priority, pods=pods
        )
    return message


def cluster_figures(figures: Fragmentation) -> pb.ClusterFigures:
    """Return how GPUs are used."""
    return pb.ClusterFigures(
        node_count=figures.node_count,
        gpu_count=figures.gpu_milli / _MILLI,
        gpu_count_allocated=figures.allocated_milli / _MILLI,
        gpu_count_unusable=None if figures.unusable_milli is None else figures.unusable_milli / _MILLI,
        levels=[
            pb.LevelFigures(
                key=use.level,
                domain_count_empty=use.empty,
                domain_count_partly_used=use.partly_used,
                domain_count_full=use.full,
            )
            for use in figures.levels
        ],
    )


def largest_messages(largest: Iterable[LargestGang]) -> list[pb.LargestGang]:
    """Return the largest gangs by shape and level."""
    return [
        pb.LargestGang(
            requests=shape_requests(each.shape),
            key="" if each.is_node else each.level,
            node=each.is_node,
            domain=each.domain,
            pod_count=each.pod_count,
        )
        for each in largest
    ]


def alternative(other: Alternative, decision: Decision) -> explanation_pb2.PlacementAlternative:
    """Return one domain that a gang is not in."""
    return explanation_pb2.PlacementAlternative(
        level=level_name(other.level, decision.level_names),
        key=other.level,
        domain=other.domain,
        fits=other.fits,
        placement_score=other.score if other.fits else None,
        node_count=other.node_count,
        why=other.why,
    )


def consolidation(planned: PlannedMoves, version: int) -> pb.PlacementServicePlanConsolidationResponse:
    """Return a plan of moves, or why none helps."""
    plan = planned.plan
    if plan is None:
        assert planned.verdict is not None, "a plan or the reason that there is none"
        return pb.PlacementServicePlanConsolidationResponse(
            helps=False, sentence=planned.verdict.sentence(), resource_version=str(version)
        )
    message = pb.PlacementServicePlanConsolidationResponse(
        helps=plan.target is not None or bool(plan.freed),
        sentence=plan.sentence(),
        domains_freed=plan.freed,
        pod_count_placed=plan.pods_placed,
        pod_count_moved=len(planned.moves),
        gang_count_moved=plan.cost.gangs_broken,
        priority_highest=plan.cost.priority_highest,
        resource_version=str(version),
    )
    gang_of = {pod: move.gang for move in plan.moves for pod in move.pods}
    for move in planned.moves:
        namespace, _, pod = move.pod.partition("/")
        message.moves.add(
            namespace=namespace,
            pod_gang=gang_of[move.pod].partition("/")[2],
            pod=pod,
            from_node=move.from_node,
            to_node=move.to_node,
            gpu_ids=move.gpu_ids,
        )
    return message
