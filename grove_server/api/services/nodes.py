"""NodeService: machines, and whether new pods may go there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from grove.v1 import node_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.named import change_named, check_names, keys_of
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import Reading, Requests
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Kind

NODES_PER_CALL_MAX: Final = 10_000


class NodeService:
    """Nodes: Get, List, Watch, Cordon, Uncordon."""

    name = "grove.v1.NodeService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(
            backend.shared,
            Kind.NODE,
            Requests(get=pb.NodeServiceGetRequest, list=pb.NodeServiceListRequest, watch=pb.NodeServiceWatchRequest),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            **self._reading.methods(),
            "Cordon": Awaited(pb.NodeServiceCordonRequest, self.cordon),
            "Uncordon": Awaited(pb.NodeServiceUncordonRequest, self.uncordon),
        }

    async def cordon(self, request: pb.NodeServiceCordonRequest, _call: Call) -> bytes:
        """Keep new pods away."""
        refuse_unknown_fields(request)
        changed = await self._set(request.names, unschedulable=True)
        return pb.NodeServiceCordonResponse(changed=changed).SerializeToString()

    async def uncordon(self, request: pb.NodeServiceUncordonRequest, _call: Call) -> bytes:
        """Let new pods in again."""
        refuse_unknown_fields(request)
        changed = await self._set(request.names, unschedulable=False)
        return pb.NodeServiceUncordonResponse(changed=changed).SerializeToString()

    async def _set(self, names: Sequence[str], *, unschedulable: bool) -> list[str]:
        check_names(names, NODES_PER_CALL_MAX)

        def decide(node: Node) -> Node | None:
            return None if node.unschedulable is unschedulable else replace(node, unschedulable=unschedulable)

        pairs = await change_named(
            self._backend.shared.store, keys_of(Kind.NODE, "", names), decide, cause="api.cordon"
        )
        return [before.metadata.name for before, after in pairs if before is not after]
