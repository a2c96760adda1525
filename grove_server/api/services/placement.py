"""PlacementService: what would happen, without making it happen; the picture of the cluster."""

from __future__ import annotations

import asyncio
from typing import Final

from grove.v1 import placement_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.planning import cluster_figures, consolidation, largest_messages, simulated_gang
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE
from grove_server.api.reasons import ApiError, Reason, gang_not_waiting, invalid_request, not_found
from grove_server.api.services.manifests import read_manifests
from grove_server.placement.cluster import NodeInvalidError, UnknownNodeError
from grove_server.placement.nodes import NodeState
from grove_server.placement.picture_svg import svg_of
from grove_server.placement.picture_text import text_of
from grove_server.placement.results import Placement
from grove_server.placement.shapes import node_state
from grove_server.placement.waiting import NOT_ANSWERED
from grove_server.placement.whatif import ClusterChange
from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.meta import Kind
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.resources.violations import quoted
from grove_server.resources.workload import PodCliqueSet
from grove_server.runtime.cluster_file import ClusterFileError, parse_cluster

FORMATS: Final = ("text", "svg")
NAMES_MAX: Final = 10_000
"""Most nodes, sets and gangs that one question may change."""

_WIDTH_DEFAULT: Final = 100
_REMOVABLE: Final = {"pcs": Kind.POD_CLIQUE_SET, "pg": Kind.POD_GANG}


class PlacementService:
    """What-ifs and pictures: Simulate, GetMap, PlanConsolidation."""

    name = "grove.v1.PlacementService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            "Simulate": Awaited(pb.PlacementServiceSimulateRequest, self.simulate),
            "GetMap": Awaited(pb.PlacementServiceGetMapRequest, self.get_map),
            "PlanConsolidation": Awaited(pb.PlacementServicePlanConsolidationRequest, self.plan_consolidation),
        }

    async def simulate(self, request: pb.PlacementServiceSimulateRequest, _call: Call) -> bytes:
        """Admit the manifests as an apply would, then ask placement."""
        refuse_unknown_fields(request)
        default_namespace = request.default_namespace or DEFAULT_NAMESPACE
        change = await self._change(request, default_namespace)
        results = []
        if request.manifest or not change.is_any:
            wanted, violations = await read_manifests(self._backend, request.manifest, default_namespace)
            results = await self._backend.changes.apply(
                wanted, default_namespace=default_namespace, dry_run=True, known_violations=violations
            )
        resources = [result.resource for result in results]
        version = self._version()
        limit = self._backend.gangs_per_question_max
        try:
            answer = await self._backend.placement.simulate(
                [each for each in resources if isinstance(each, PodCliqueSet)],
                [each for each in resources if isinstance(each, ClusterTopologyBinding)],
                gang_count_max=limit,
                classes=[each for each in resources if isinstance(each, PriorityClass)],
                queues=[each for each in resources if isinstance(each, Queue)],
                change=change,
            )
        except UnknownNodeError as error:
            # It left between the look at the store and the question, or placement cannot use it.
            raise invalid_request("drained_nodes", str(error)) from error
        except NodeInvalidError as error:
            raise invalid_request("added_nodes", str(error)) from error
        if answer.gang_count > limit:
            raise ApiError(
                reason=Reason.TOO_MANY_GANGS,
                message=f"the manifests make {answer.gang_count} gangs; one question may have {limit}",
                metadata={"gang_count": str(answer.gang_count), "limit": str(limit)},
            )
        gangs = [simulated_gang(gang) for gang in answer.gangs]
        warnings = [warning for result in results for warning in result.warnings]
        cut = sum(gang.decision.waiting_reason == NOT_ANSWERED for gang in answer.gangs)
        if cut:
            warnings.append(f"{cut} of {len(gangs)} gangs were not answered within the budget of one question")
        return pb.PlacementServiceSimulateResponse(
            gangs=gangs,
            fits=all(gang.fits for gang in gangs),
            warnings=warnings,
            resource_version=str(version),
            largest_gangs=largest_messages(answer.largest),
            figures=None if answer.figures is None else cluster_figures(answer.figures),
            pod_count_displaced=answer.pods_displaced,
        ).SerializeToString()

    async def get_map(self, request: pb.PlacementServiceGetMapRequest, _call: Call) -> bytes:
        """Draw the cluster."""
        refuse_unknown_fields(request)
        kind = request.format or FORMATS[0]
        if kind not in FORMATS:
            raise invalid_request("format", f"must be one of {', '.join(FORMATS)}")
        version = self._version()
        view = await self._backend.placement.draw(request.topology_name)
        if view is None:
            raise not_found(Kind.CLUSTER_TOPOLOGY_BINDING.value, "", [request.topology_name])
        if kind == "svg":
            picture = await asyncio.to_thread(svg_of, view.map)
        else:
            width = request.width or _WIDTH_DEFAULT
            picture = await asyncio.to_thread(text_of, view.map, width=width, has_colours=request.colours)
        return pb.PlacementServiceGetMapResponse(
            picture=picture,
            sentence=view.map.sentence(),
            figures=cluster_figures(view.figures),
            largest_gangs=largest_messages(view.largest),
            topology_name=view.topology_name,
            resource_version=str(version),
        ).SerializeToString()

    async def plan_consolidation(self, request: pb.PlacementServicePlanConsolidationRequest, _call: Call) -> bytes:
        """Plan moves."""
        refuse_unknown_fields(request)
        for name, value in (("domain_count_max", request.domain_count_max), ("pod_count_max", request.pod_count_max)):
            if value < 0:
                raise invalid_request(name, "must not be negative")
        placement = self._backend.placement
        version = self._version()
        if request.pod_gang:
            namespace = request.namespace or DEFAULT_NAMESPACE
            decision = placement.explain(namespace, request.pod_gang)
            if decision is None:
                raise not_found(Kind.POD_GANG.value, namespace, [request.pod_gang])
            if decision.request is None or isinstance(decision.outcome, Placement):
                raise gang_not_waiting(namespace, request.pod_gang)
            return consolidation(
                await placement.make_room(decision.request, pods_max=request.pod_count_max), version
            ).SerializeToString()
        planned = await placement.clear(
            request.topology_name,
            request.level,
            domains_max=request.domain_count_max,
            pods_max=request.pod_count_max,
        )
        if planned is None:
            name = request.topology_name or f"with a level {request.level}"
            raise not_found(Kind.CLUSTER_TOPOLOGY_BINDING.value, "", [name])
        return consolidation(planned, version).SerializeToString()

    # Inside.

    def _version(self) -> int:
        return self._backend.shared.store.read().version

    async def _change(self, request: pb.PlacementServiceSimulateRequest, namespace: str) -> ClusterChange:
        """Return what the question changes of the cluster; ApiError for what is not there, or is there already."""
        if len(request.drained_nodes) + len(request.without) > NAMES_MAX:
            raise invalid_request("drained_nodes", f"one question may change at most {NAMES_MAX} nodes, sets and gangs")
        reader = self._backend.shared.store.read()
        added = await self._added(request.added_nodes) if request.added_nodes else ()
        known = {state.name for state in added}
        missing = [name for name in request.drained_nodes if name not in known and reader.get(Node, "", name) is None]
        if missing:
            raise not_found(Kind.NODE.value, "", missing)
        gone: dict[Kind, list[tuple[str, str]]] = {Kind.POD_CLIQUE_SET: [], Kind.POD_GANG: []}
        for target in request.without:
            word, _, name = target.partition("/")
            kind = _REMOVABLE.get(word)
            if kind is None or not name:
                raise invalid_request("without", f"must be pcs/NAME or pg/NAME, got {quoted(target)}")
            if reader.get(kind, namespace, name) is None:
                raise not_found(kind.value, namespace, [name])
            gone[kind].append((namespace, name))
        return ClusterChange(
            nodes_added=added,
            nodes_drained=tuple(request.drained_nodes),
            sets_gone=tuple(gone[Kind.POD_CLIQUE_SET]),
            gangs_gone=tuple(gone[Kind.POD_GANG]),
        )

    async def _added(self, text: str) -> tuple[NodeState, ...]:
        try:
            added = await asyncio.to_thread(parse_cluster, text)
            states = tuple(node_state(node) for node in added.nodes)
        except (ClusterFileError, ValueError) as error:
            raise invalid_request("added_nodes", str(error)) from error
        reader = self._backend.shared.store.read()
        known = [state.name for state in states if reader.get(Node, "", state.name) is not None]
        if known:
            raise invalid_request("added_nodes", f"node {known[0]} exists already")
        return states
