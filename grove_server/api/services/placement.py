"""PlacementService: what would happen, without making it happen."""

from __future__ import annotations

from grove.v1 import placement_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.explanations import explanation
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.ports import SimulatedGang
from grove_server.api.reading import DEFAULT_NAMESPACE
from grove_server.api.reasons import ApiError, Reason
from grove_server.api.services.manifests import read_manifests
from grove_server.placement.results import Placement
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.workload import PodCliqueSet


class PlacementService:
    """What-ifs: Simulate."""

    name = "grove.v1.PlacementService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {"Simulate": Awaited(pb.PlacementServiceSimulateRequest, self.simulate)}

    async def simulate(self, request: pb.PlacementServiceSimulateRequest, _call: Call) -> bytes:
        """Admit the manifests as an apply would, then ask placement."""
        refuse_unknown_fields(request)
        default_namespace = request.default_namespace or DEFAULT_NAMESPACE
        wanted, violations = await read_manifests(self._backend, request.manifest, default_namespace)
        results = await self._backend.changes.apply(
            wanted, default_namespace=default_namespace, dry_run=True, known_violations=violations
        )
        resources = [result.resource for result in results]
        version = self._backend.shared.store.read().version
        limit = self._backend.gangs_per_question_max
        answer = await self._backend.placement.simulate(
            [each for each in resources if isinstance(each, PodCliqueSet)],
            [each for each in resources if isinstance(each, ClusterTopologyBinding)],
            gang_count_max=limit,
        )
        if answer.gang_count > limit:
            raise ApiError(
                reason=Reason.TOO_MANY_GANGS,
                message=f"the manifests make {answer.gang_count} gangs; one question may have {limit}",
                metadata={"gang_count": str(answer.gang_count), "limit": str(limit)},
            )
        gangs = [_message(gang) for gang in answer.gangs]
        return pb.PlacementServiceSimulateResponse(
            gangs=gangs,
            fits=all(gang.fits for gang in gangs),
            warnings=[warning for result in results for warning in result.warnings],
            resource_version=str(version),
        ).SerializeToString()


def _message(gang: SimulatedGang) -> pb.SimulatedGang:
    outcome = gang.decision.outcome
    placed = surplus = 0
    if isinstance(outcome, Placement):
        placed = sum(len(clique.bindings) - clique.minimum for clique in outcome.cliques)
        surplus = placed + sum(clique.optional_unplaced for clique in outcome.cliques)
    return pb.SimulatedGang(
        namespace=gang.namespace,
        name=gang.name,
        pod_clique_set=gang.set_name,
        role="base" if gang.is_base else "scaled",
        fits=isinstance(outcome, Placement),
        surplus_pod_count_placed=placed,
        surplus_pod_count=surplus,
        explanation=explanation(gang.decision),
    )
