"""EventService: what happened, for people. Narrowed to one resource by kind and name."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from grove.v1 import event_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.pipeline import Method
from grove_server.api.reading import Filter, Reading, Requests
from grove_server.resources.cluster import Event
from grove_server.resources.meta import Kind


class EventService:
    """Events: List, Watch."""

    name = "grove.v1.EventService"

    def __init__(self, backend: Backend) -> None:
        self._reading = Reading(
            backend.shared,
            Kind.EVENT,
            Requests(get=None, list=pb.EventServiceListRequest, watch=pb.EventServiceWatchRequest),
            sort_key=_by_time,
            extra_filter=_involved,
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return self._reading.methods()


def _by_time(event: Event) -> tuple[str, float, str]:
    return (event.metadata.namespace, event.last_at, event.metadata.name)


def _involved(request: Any) -> tuple[Hashable, Filter | None]:  # noqa: ANN401 -- one of two messages of one shape
    kind, name = request.involved_kind, request.involved_name
    if not kind and not name:
        return None, None

    def wanted(event: Event) -> bool:
        return (not kind or event.involved_kind.value == kind) and (not name or event.involved_name == name)

    return (kind, name), wanted
