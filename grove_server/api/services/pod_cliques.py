"""PodCliqueService and PodCliqueScalingGroupService: what sets are made of; only their size can be set."""

from __future__ import annotations

from grove.v1 import pod_clique_pb2, pod_clique_scaling_group_pb2
from grove_server.admission.scale import admit_scale_of_clique, admit_scale_of_group
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.named import change_named
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, Reading, Requests
from grove_server.api.reasons import being_deleted
from grove_server.api.scaling import demand_expected, live_set, read_scale_request, scale_response
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup


class PodCliqueService:
    """Cliques: Get, List, Watch, Scale."""

    name = "grove.v1.PodCliqueService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(
            backend.shared,
            Kind.POD_CLIQUE,
            Requests(
                get=pod_clique_pb2.PodCliqueServiceGetRequest,
                list=pod_clique_pb2.PodCliqueServiceListRequest,
                watch=pod_clique_pb2.PodCliqueServiceWatchRequest,
            ),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {**self._reading.methods(), "Scale": Awaited(pod_clique_pb2.PodCliqueServiceScaleRequest, self.scale)}

    async def scale(self, request: pod_clique_pb2.PodCliqueServiceScaleRequest, _call: Call) -> bytes:
        """Set the number of pods."""
        refuse_unknown_fields(request)
        replicas, owner = read_scale_request(request)
        namespace = request.namespace or DEFAULT_NAMESPACE
        backend = self._backend
        store, key = backend.shared.store, Key(Kind.POD_CLIQUE, namespace, request.name)

        def decide(target: PodClique) -> PodClique | None:
            if target.metadata.deleted_at is not None:
                raise being_deleted(target.kind.value, namespace, target.metadata.name)
            demand_expected(request, target)
            live = live_set(store.read(), backend.scales, target, replicas)
            admitted = admit_scale_of_clique(
                target, replicas, backend.changes.context(namespace), owner=owner, live=live
            )
            if not admitted.changed:
                return None
            announce(target.identity.set_uid, key, replicas)
            return admitted.resource

        with backend.scales.announcing() as announce:
            ((before, after),) = await change_named(store, [key], decide, cause="api.scale")
        return scale_response(before.replicas, after.replicas, after.scale_owner, self._backend.shared.views.of(after))


class PodCliqueScalingGroupService:
    """Scaling groups: Get, List, Watch, Scale."""

    name = "grove.v1.PodCliqueScalingGroupService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(
            backend.shared,
            Kind.POD_CLIQUE_SCALING_GROUP,
            Requests(
                get=pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceGetRequest,
                list=pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceListRequest,
                watch=pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceWatchRequest,
            ),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        request = pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceScaleRequest
        return {**self._reading.methods(), "Scale": Awaited(request, self.scale)}

    async def scale(
        self, request: pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceScaleRequest, _call: Call
    ) -> bytes:
        """Set the number of group replicas."""
        refuse_unknown_fields(request)
        replicas, owner = read_scale_request(request)
        namespace = request.namespace or DEFAULT_NAMESPACE
        backend = self._backend
        store, key = backend.shared.store, Key(Kind.POD_CLIQUE_SCALING_GROUP, namespace, request.name)

        def decide(target: PodCliqueScalingGroup) -> PodCliqueScalingGroup | None:
            if target.metadata.deleted_at is not None:
                raise being_deleted(target.kind.value, namespace, target.metadata.name)
            demand_expected(request, target)
            live = live_set(store.read(), backend.scales, target, replicas)
            admitted = admit_scale_of_group(
                target, replicas, backend.changes.context(namespace), owner=owner, live=live
            )
            if not admitted.changed:
                return None
            announce(target.set_uid, key, replicas)
            return admitted.resource

        with backend.scales.announcing() as announce:
            ((before, after),) = await change_named(store, [key], decide, cause="api.scale")
        return scale_response(before.replicas, after.replicas, after.scale_owner, self._backend.shared.views.of(after))
