"""The service of a kind that people write and that goes at once when it is deleted: the same for each such kind.

All of them number the fields of their messages alike (a test compares them with the descriptors): the resource is 1 in
every request, and what was done and the warnings follow it in the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from google.protobuf.message import Message

from grove_server.api.backend import Backend
from grove_server.api.changes import Mode, Result, Wanted
from grove_server.api.conversions.requests import manifest_of, refuse_unknown_fields
from grove_server.api.conversions.wire import nested, text
from grove_server.api.named import change_named, check_names, keys_of
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, Reading, Requests
from grove_server.api.reasons import invalid_request
from grove_server.api.removal import removal
from grove_server.resources.meta import CLUSTER_SCOPED, Kind
from grove_server.resources.violations import Reason as FieldReason

RESOURCE_FIELD: Final = 1
ACTION_FIELD: Final = 2
APPLY_WARNINGS_FIELD: Final = 3
WARNINGS_FIELD: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """The request messages of one kind."""

    apply: type[Message]
    create: type[Message]
    update: type[Message]
    delete: type[Message]
    reading: Requests


class OwnedService:
    """Apply, Create, Get, List, Update, Delete, Watch of one kind; a subclass says which."""

    name: str
    kind: ClassVar[Kind]
    messages: ClassVar[Messages]

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(backend.shared, self.kind, self.messages.reading)
        field = self.messages.apply.DESCRIPTOR.fields_by_number[RESOURCE_FIELD]
        self._field, self._json_field = field.name, field.json_name
        self._default_namespace = "" if self.kind in CLUSTER_SCOPED else DEFAULT_NAMESPACE

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            **self._reading.methods(),
            "Apply": Awaited(self.messages.apply, self.apply),
            "Create": Awaited(self.messages.create, self.create),
            "Update": Awaited(self.messages.update, self.update),
            "Delete": Awaited(self.messages.delete, self.delete),
        }

    async def apply(self, request: Any, _call: Call) -> bytes:  # noqa: ANN401 -- the kind's ApplyRequest
        """Create or replace."""
        result = await self._write(request, Mode.APPLY)
        parts = [self._resource(result), text(ACTION_FIELD, result.action.value)]
        parts += (text(APPLY_WARNINGS_FIELD, warning) for warning in result.warnings)
        return b"".join(parts)

    async def create(self, request: Any, _call: Call) -> bytes:  # noqa: ANN401 -- the kind's CreateRequest
        """Create only."""
        return self._with_warnings(await self._write(request, Mode.CREATE))

    async def update(self, request: Any, _call: Call) -> bytes:  # noqa: ANN401 -- the kind's UpdateRequest
        """Replace what was read."""
        if request.HasField(self._field) and not getattr(request, self._field).metadata.resource_version:
            raise invalid_request(
                f"{self._json_field}.metadata.resourceVersion",
                "is required: an update replaces what was read at a version",
                reason=FieldReason.REQUIRED,
            )
        return self._with_warnings(await self._write(request, Mode.UPDATE))

    async def delete(self, request: Any, _call: Call) -> bytes:  # noqa: ANN401 -- the kind's DeleteRequest
        """Remove at once, unless the resource has to stay."""
        refuse_unknown_fields(request)
        check_names(request.names)
        if request.resource_version and len(request.names) > 1:
            raise invalid_request("resourceVersion", "only with a single name", reason=FieldReason.FORBIDDEN)
        namespace = (request.namespace or self._default_namespace) if self._default_namespace else ""
        store, keys = self._backend.shared.store, keys_of(self.kind, namespace, request.names)
        await change_named(
            store,
            keys,
            removal(store, keys, self._backend.now()),
            expected_version=request.resource_version,
            dry_run=request.validate_only,
            cause="api.delete",
        )
        return b""

    async def _write(self, request: Any, mode: Mode) -> Result:  # noqa: ANN401 -- one of the three above
        refuse_unknown_fields(request)
        if not request.HasField(self._field):
            raise invalid_request(self._json_field, "is required", reason=FieldReason.REQUIRED)
        changes = self._backend.changes
        manifest = changes.read(
            self.kind, manifest_of(getattr(request, self._field), self.kind), self._default_namespace
        )
        (result,) = await changes.apply(
            [Wanted(manifest=manifest, uid=changes.new_uid())],
            mode=mode,
            default_namespace=self._default_namespace,
            dry_run=request.validate_only,
        )
        return result

    def _resource(self, result: Result) -> bytes:
        return nested(RESOURCE_FIELD, self._backend.shared.views.of(result.resource))

    def _with_warnings(self, result: Result) -> bytes:
        parts = [self._resource(result), *(text(WARNINGS_FIELD, warning) for warning in result.warnings)]
        return b"".join(parts)
