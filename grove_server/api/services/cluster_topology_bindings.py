"""ClusterTopologyBindingService: which node labels are the levels of the cluster."""

from __future__ import annotations

from typing import Final

from grove.v1 import cluster_topology_binding_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.changes import Mode, Result, Wanted
from grove_server.api.conversions.requests import manifest_of, refuse_unknown_fields
from grove_server.api.conversions.wire import nested, text
from grove_server.api.named import change_named, check_names, keys_of, remove_at_once
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import Reading, Requests
from grove_server.api.reasons import invalid_request
from grove_server.resources.meta import Kind
from grove_server.resources.violations import Reason as FieldReason

_KIND: Final = Kind.CLUSTER_TOPOLOGY_BINDING
_Change = (
    pb.ClusterTopologyBindingServiceApplyRequest
    | pb.ClusterTopologyBindingServiceCreateRequest
    | pb.ClusterTopologyBindingServiceUpdateRequest
)


class ClusterTopologyBindingService:
    """Topology bindings: Apply, Create, Get, List, Update, Delete, Watch."""

    name = "grove.v1.ClusterTopologyBindingService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(
            backend.shared,
            _KIND,
            Requests(
                get=pb.ClusterTopologyBindingServiceGetRequest,
                list=pb.ClusterTopologyBindingServiceListRequest,
                watch=pb.ClusterTopologyBindingServiceWatchRequest,
            ),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            **self._reading.methods(),
            "Apply": Awaited(pb.ClusterTopologyBindingServiceApplyRequest, self.apply),
            "Create": Awaited(pb.ClusterTopologyBindingServiceCreateRequest, self.create),
            "Update": Awaited(pb.ClusterTopologyBindingServiceUpdateRequest, self.update),
            "Delete": Awaited(pb.ClusterTopologyBindingServiceDeleteRequest, self.delete),
        }

    async def apply(self, request: pb.ClusterTopologyBindingServiceApplyRequest, _call: Call) -> bytes:
        """Create or replace."""
        result = await self._write(request, Mode.APPLY)
        parts = [nested(1, self._backend.shared.views.of(result.resource)), text(2, result.action.value)]
        parts += (text(3, warning) for warning in result.warnings)
        return b"".join(parts)

    async def create(self, request: pb.ClusterTopologyBindingServiceCreateRequest, _call: Call) -> bytes:
        """Create only."""
        return self._with_warnings(await self._write(request, Mode.CREATE))

    async def update(self, request: pb.ClusterTopologyBindingServiceUpdateRequest, _call: Call) -> bytes:
        """Replace what was read."""
        binding = request.cluster_topology_binding
        if request.HasField("cluster_topology_binding") and not binding.metadata.resource_version:
            raise invalid_request(
                "clusterTopologyBinding.metadata.resourceVersion",
                "is required: an update replaces what was read at a version",
                reason=FieldReason.REQUIRED,
            )
        return self._with_warnings(await self._write(request, Mode.UPDATE))

    async def delete(self, request: pb.ClusterTopologyBindingServiceDeleteRequest, _call: Call) -> bytes:
        """Remove at once: a binding owns nothing, and sets that use it wait or run on with a condition."""
        refuse_unknown_fields(request)
        check_names(request.names)
        if request.resource_version and len(request.names) > 1:
            raise invalid_request("resourceVersion", "only with a single name", reason=FieldReason.FORBIDDEN)
        await change_named(
            self._backend.shared.store,
            keys_of(_KIND, "", request.names),
            remove_at_once,
            expected_version=request.resource_version,
            dry_run=request.validate_only,
            cause="api.delete",
        )
        return b""

    async def _write(self, request: _Change, mode: Mode) -> Result:
        refuse_unknown_fields(request)
        if not request.HasField("cluster_topology_binding"):
            raise invalid_request("clusterTopologyBinding", "is required", reason=FieldReason.REQUIRED)
        changes = self._backend.changes
        manifest = changes.read_binding(manifest_of(request.cluster_topology_binding, _KIND))
        (result,) = await changes.apply(
            [Wanted(manifest=manifest, uid=changes.new_uid())],
            mode=mode,
            default_namespace="",
            dry_run=request.validate_only,
        )
        return result

    def _with_warnings(self, result: Result) -> bytes:
        parts = [nested(1, self._backend.shared.views.of(result.resource))]
        parts += (text(2, warning) for warning in result.warnings)
        return b"".join(parts)
