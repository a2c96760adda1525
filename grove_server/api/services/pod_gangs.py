"""PodGangService: gangs, and why they wait or are where they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from grove.v1 import explanation_pb2
from grove.v1 import pod_gang_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.explanations import PLACED, PodPlace, explanation, node_assignments
from grove_server.api.conversions.metadata import chosen_domains
from grove_server.api.conversions.planning import alternative
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.ports import Decision
from grove_server.api.reading import DEFAULT_NAMESPACE, Reading, Requests, demand_name
from grove_server.api.reasons import not_found
from grove_server.control.indexes import PODS_BY_GANG
from grove_server.placement.results import Reason, Verdict
from grove_server.resources.cluster import Node
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
        decision = await self._backend.placement.explain_now(namespace, request.name)
        if gang is None or decision is None:
            raise not_found(Kind.POD_GANG.value, namespace, [request.name])
        is_placed = gang.status.scheduled_at is not None and not decision.waiting_reason
        if is_placed and not isinstance(decision.outcome, Verdict):
            message = self._placed(gang, decision)
            others = await self._backend.placement.alternatives(namespace, request.name)
            message.alternatives.extend(alternative(other, decision) for other in others)
        else:
            message = explanation(decision)
        return pb.PodGangServiceExplainResponse(
            namespace=namespace, name=request.name, phase=gang.status.phase.value, explanation=message
        ).SerializeToString()

    def _placed(self, gang: PodGang, decision: Decision) -> explanation_pb2.PlacementExplanation:
        """Return the explanation of a placed gang: why its minimum is there, where its pods are, what else waits."""
        pods = [pod for pod in self._pods(gang) if pod.is_active]
        bound = [pod for pod in pods if pod.node]
        places: list[PodPlace] = [(pod.identity.name, pod.node, pod.gpu_ids) for pod in bound]
        message = explanation(decision, places, lambda reason: self._still_holds(reason, gang, bound))
        if decision.outcome is None:
            message.state = PLACED
            message.reason = ""
            message.sentence = (
                f"gang {gang.metadata.name} was placed before this server started; why just there is no longer known"
            )
            message.assignments.extend(node_assignments(places))
        # Pods that came after the decision count too, so these are the gang's own words.
        del message.topology[:]
        message.topology.extend(chosen_domains(gang.status.topology))
        if gang.status.placement_score is not None:
            message.placement_score = gang.status.placement_score
        waiting = len(pods) - len(bound)
        if message.surplus and waiting:
            message.surplus_pod_count_waiting = waiting
            pods_wait = "1 surplus pod waits" if waiting == 1 else f"{waiting} surplus pods wait"
            message.sentence = f"gang {gang.metadata.name} is placed; {pods_wait}: {message.surplus[0].sentence}"
        else:
            del message.surplus[:]
        return message

    def _still_holds(self, reason: Reason, gang: PodGang, bound: Sequence[Pod]) -> bool:
        """Return whether all bound pods of a reason's scope are in the domain that it names."""
        reader = self._backend.shared.store.read()
        if not reason.domain:
            return True
        of_group = next((each.pod_group_names for each in gang.topology_groups if each.name == reason.scope), ())
        names = {
            pod.node
            for pod in bound
            if reason.scope == gang.metadata.name or pod.identity.name in of_group or reason.scope in _scopes(pod)
        }
        if not reason.level:
            return names <= {reason.domain}
        nodes = [reader.get(Node, "", name) for name in sorted(names)]
        return all(node is None or node.metadata.labels.get(reason.level) == reason.domain for node in nodes)

    def _pods(self, gang: PodGang) -> Collection[Pod]:
        reader = self._backend.shared.store.read()
        return reader.indexed(PODS_BY_GANG, (gang.metadata.namespace, gang.metadata.name))


def _scopes(pod: Pod) -> tuple[str, ...]:
    """Return the names of the parts of a gang that a pod is in: clique, group, group replica."""
    identity = pod.identity
    if not identity.group:
        return (identity.name,)
    return (identity.name, identity.group_name, f"{identity.group_name}-{identity.group_replica}")
