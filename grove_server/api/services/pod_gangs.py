"""PodGangService: gangs, and why they wait or are where they are."""

from __future__ import annotations

from collections.abc import Iterator

from grove.v1 import explanation_pb2
from grove.v1 import pod_gang_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.explanations import PLACED, PodPlace, explanation, node_assignments
from grove_server.api.conversions.metadata import chosen_domains
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, Reading, Requests, demand_name
from grove_server.api.reasons import not_found
from grove_server.control.indexes import PODS_BY_GANG
from grove_server.placement.results import Placement
from grove_server.resources.meta import Kind
from grove_server.resources.workload import Pod, PodGang


class PodGangService:
    """Gangs: Get, List, Watch, Explain."""

    name = "grove.v1.PodGangService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(
            backend.shared,
            Kind.POD_GANG,
            Requests(
                get=pb.PodGangServiceGetRequest, list=pb.PodGangServiceListRequest, watch=pb.PodGangServiceWatchRequest
            ),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {**self._reading.methods(), "Explain": Awaited(pb.PodGangServiceExplainRequest, self.explain)}

    async def explain(self, request: pb.PodGangServiceExplainRequest, _call: Call) -> bytes:
        """Return placement's last word on a gang."""
        demand_name(request.name)
        namespace = request.namespace or DEFAULT_NAMESPACE
        gang = self._backend.shared.store.read().get(PodGang, namespace, request.name)
        decision = self._backend.placement.explain(namespace, request.name)
        if gang is None or decision is None:
            raise not_found(Kind.POD_GANG.value, namespace, [request.name])
        is_placed = gang.status.scheduled_at is not None and (
            decision.outcome is None or isinstance(decision.outcome, Placement)
        )
        message = explanation(decision, self._places(gang) if is_placed else None)
        if is_placed and decision.outcome is None and not decision.waiting_reason:
            self._show_stored(message, gang)
        return pb.PodGangServiceExplainResponse(
            namespace=namespace, name=request.name, phase=gang.status.phase.value, explanation=message
        ).SerializeToString()

    def _show_stored(self, message: explanation_pb2.PlacementExplanation, gang: PodGang) -> None:
        """Show what the gang itself remembers: it was placed before this server started."""
        message.state = PLACED
        message.sentence = (
            f"gang {gang.metadata.name} was placed before this server started; why just there is no longer known"
        )
        message.topology.extend(chosen_domains(gang.status.topology))
        if gang.status.placement_score is not None:
            message.placement_score = gang.status.placement_score
        message.assignments.extend(node_assignments(self._places(gang)))

    def _places(self, gang: PodGang) -> Iterator[PodPlace]:
        reader = self._backend.shared.store.read()
        pods: list[Pod] = [*reader.indexed(PODS_BY_GANG, (gang.metadata.namespace, gang.metadata.name))]
        for pod in pods:
            if pod.node and pod.is_active:
                yield pod.identity.name, pod.node, pod.gpu_ids
