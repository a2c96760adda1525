"""ServerService: what answers here."""

from __future__ import annotations

from grove.v1 import server_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.timestamps import rfc3339
from grove_server.api.pipeline import Method, Ready


class ServerService:
    """The server itself: GetInfo."""

    name = "grove.v1.ServerService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {"GetInfo": Ready(pb.ServerServiceGetInfoRequest, self.get_info)}

    def get_info(self, _request: pb.ServerServiceGetInfoRequest) -> bytes:
        """Return version, mode and the store's version."""
        facts = self._backend.facts
        return pb.ServerServiceGetInfoResponse(
            version=facts.version,
            commit=facts.commit,
            store=facts.store,
            runtime=facts.runtime,
            started_at=rfc3339(facts.started_at),
            resource_version=str(self._backend.shared.store.read().version),
        ).SerializeToString()
