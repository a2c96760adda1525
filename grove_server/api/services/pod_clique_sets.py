"""PodCliqueSetService: what users write."""

from __future__ import annotations

from typing import Final

from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.admission.scale import admit_scale_of_set
from grove_server.api.backend import Backend
from grove_server.api.changes import Mode, Result, Wanted
from grove_server.api.conversions.requests import manifest_of, refuse_unknown_fields
from grove_server.api.conversions.wire import nested, text
from grove_server.api.named import change_named, check_names, keys_of, mark_deleted
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, Reading, Requests
from grove_server.api.reasons import being_deleted, invalid_request
from grove_server.api.scaling import demand_expected, read_scale_request, scale_response
from grove_server.api.services.rollouts import Rollouts
from grove_server.api.set_sizes import pod_count
from grove_server.resources.meta import Key, Kind
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.workload import PodCliqueSet

_KIND: Final = Kind.POD_CLIQUE_SET
_Change = pb.PodCliqueSetServiceApplyRequest | pb.PodCliqueSetServiceCreateRequest | pb.PodCliqueSetServiceUpdateRequest


class PodCliqueSetService:
    """Sets: Apply, Create, Get, List, Update, Delete, Watch, Scale, and what steers updates."""

    name = "grove.v1.PodCliqueSetService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._rollouts = Rollouts(backend)
        self._reading = Reading(
            backend.shared,
            _KIND,
            Requests(
                get=pb.PodCliqueSetServiceGetRequest,
                list=pb.PodCliqueSetServiceListRequest,
                watch=pb.PodCliqueSetServiceWatchRequest,
            ),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            **self._reading.methods(),
            **self._rollouts.methods(),
            "Apply": Awaited(pb.PodCliqueSetServiceApplyRequest, self.apply),
            "Create": Awaited(pb.PodCliqueSetServiceCreateRequest, self.create),
            "Update": Awaited(pb.PodCliqueSetServiceUpdateRequest, self.update),
            "Delete": Awaited(pb.PodCliqueSetServiceDeleteRequest, self.delete),
            "Scale": Awaited(pb.PodCliqueSetServiceScaleRequest, self.scale),
        }

    async def apply(self, request: pb.PodCliqueSetServiceApplyRequest, _call: Call) -> bytes:
        """Create or replace."""
        result = await self._write(request, Mode.APPLY)
        parts = [nested(1, self._backend.shared.views.of(result.resource)), text(2, result.action.value)]
        parts += (text(3, warning) for warning in result.warnings)
        return b"".join(parts)

    async def create(self, request: pb.PodCliqueSetServiceCreateRequest, _call: Call) -> bytes:
        """Create only."""
        return self._with_warnings(await self._write(request, Mode.CREATE))

    async def update(self, request: pb.PodCliqueSetServiceUpdateRequest, _call: Call) -> bytes:
        """Replace what was read."""
        if request.HasField("pod_clique_set") and not request.pod_clique_set.metadata.resource_version:
            raise invalid_request(
                "podCliqueSet.metadata.resourceVersion",
                "is required: an update replaces what was read at a version",
                reason=FieldReason.REQUIRED,
            )
        return self._with_warnings(await self._write(request, Mode.UPDATE))

    async def delete(self, request: pb.PodCliqueSetServiceDeleteRequest, _call: Call) -> bytes:
        """Ask for deletion; the loops take the tree down and remove the set last."""
        refuse_unknown_fields(request)
        check_names(request.names)
        if request.resource_version and len(request.names) > 1:
            raise invalid_request("resourceVersion", "only with a single name", reason=FieldReason.FORBIDDEN)
        await change_named(
            self._backend.shared.store,
            keys_of(_KIND, request.namespace or DEFAULT_NAMESPACE, request.names),
            mark_deleted(self._backend.now()),
            expected_version=request.resource_version,
            dry_run=request.validate_only,
            cause="api.delete",
        )
        return b""

    async def scale(self, request: pb.PodCliqueSetServiceScaleRequest, _call: Call) -> bytes:
        """Set the number of copies."""
        refuse_unknown_fields(request)
        replicas, owner = read_scale_request(request)
        namespace = request.namespace or DEFAULT_NAMESPACE
        backend = self._backend
        store, key = backend.shared.store, Key(_KIND, namespace, request.name)

        def decide(target: PodCliqueSet) -> PodCliqueSet | None:
            if target.metadata.deleted_at is not None:
                raise being_deleted(_KIND.value, namespace, target.metadata.name)
            demand_expected(request, target)
            uid = target.metadata.uid
            count = pod_count(store.read(), target, backend.scales.of_set(uid), key, replicas)
            context = backend.changes.context(namespace)
            admitted = admit_scale_of_set(target, replicas, context, owner=owner, pod_count=count)
            if not admitted.changed:
                return None
            announce(uid, key, replicas)
            return admitted.resource

        with backend.scales.announcing() as announce:
            ((before, after),) = await change_named(store, [key], decide, cause="api.scale")
        return scale_response(
            before.spec.replicas or 0,
            after.spec.replicas or 0,
            after.scale_owner,
            self._backend.shared.views.of(after),
        )

    async def _write(self, request: _Change, mode: Mode) -> Result:
        refuse_unknown_fields(request)
        if not request.HasField("pod_clique_set"):
            raise invalid_request("podCliqueSet", "is required", reason=FieldReason.REQUIRED)
        changes = self._backend.changes
        manifest = changes.read(_KIND, manifest_of(request.pod_clique_set, _KIND), DEFAULT_NAMESPACE)
        (result,) = await changes.apply(
            [Wanted(manifest=manifest, uid=changes.new_uid())],
            mode=mode,
            default_namespace=DEFAULT_NAMESPACE,
            dry_run=request.validate_only,
        )
        return result

    def _with_warnings(self, result: Result) -> bytes:
        parts = [nested(1, self._backend.shared.views.of(result.resource))]
        parts += (text(2, warning) for warning in result.warnings)
        return b"".join(parts)
