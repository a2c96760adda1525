"""NodeService: machines, whether new pods may go there, and the failing of simulated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from grove.v1 import node_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.named import change_named, check_names, keys_of
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import Reading, Requests
from grove_server.api.reasons import nodes_not_simulated
from grove_server.control.indexes import PODS_BY_NODE
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Kind

NODES_PER_CALL_MAX: Final = 10_000
# Readiness of any other runtime's nodes is what that runtime sees, and nobody may say otherwise.
SIMULATING_RUNTIMES: Final = frozenset({"fake"})


class NodeService:
    """Nodes: Get, List, Watch, Cordon, Drain, Uncordon, MarkDown, MarkUp."""

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
            "Drain": Awaited(pb.NodeServiceDrainRequest, self.drain),
            "Uncordon": Awaited(pb.NodeServiceUncordonRequest, self.uncordon),
            "MarkDown": Awaited(pb.NodeServiceMarkDownRequest, self.mark_down),
            "MarkUp": Awaited(pb.NodeServiceMarkUpRequest, self.mark_up),
        }

    async def cordon(self, request: pb.NodeServiceCordonRequest, _call: Call) -> bytes:
        """Keep new pods away."""
        refuse_unknown_fields(request)
        changed = await self._set_unschedulable(request.names, unschedulable=True)
        return pb.NodeServiceCordonResponse(changed=changed).SerializeToString()

    async def drain(self, request: pb.NodeServiceDrainRequest, _call: Call) -> bytes:
        """Keep new pods away and let those that run leave; say how many are left."""
        refuse_unknown_fields(request)
        now = self._backend.now()

        def decide(node: Node) -> Node | None:
            if node.unschedulable and node.draining_since is not None:
                return None
            return replace(node, unschedulable=True, draining_since=node.draining_since or now)

        changed = await self._change(request.names, decide, cause="api.drain")
        reader = self._backend.shared.store.read()
        left = sum(len(reader.indexed(PODS_BY_NODE, name)) for name in request.names)
        return pb.NodeServiceDrainResponse(changed=changed, pods_left=left).SerializeToString()

    async def uncordon(self, request: pb.NodeServiceUncordonRequest, _call: Call) -> bytes:
        """Let new pods in again."""
        refuse_unknown_fields(request)
        changed = await self._set_unschedulable(request.names, unschedulable=False)
        return pb.NodeServiceUncordonResponse(changed=changed).SerializeToString()

    async def mark_down(self, request: pb.NodeServiceMarkDownRequest, _call: Call) -> bytes:
        """Let simulated nodes fail."""
        refuse_unknown_fields(request)
        changed = await self._set_ready(request.names, ready=False)
        return pb.NodeServiceMarkDownResponse(changed=changed).SerializeToString()

    async def mark_up(self, request: pb.NodeServiceMarkUpRequest, _call: Call) -> bytes:
        """Bring simulated nodes back."""
        refuse_unknown_fields(request)
        changed = await self._set_ready(request.names, ready=True)
        return pb.NodeServiceMarkUpResponse(changed=changed).SerializeToString()

    async def _set_unschedulable(self, names: Sequence[str], *, unschedulable: bool) -> list[str]:
        def decide(node: Node) -> Node | None:
            if node.unschedulable is unschedulable:
                return None
            # A node that takes pods again is not being emptied.
            return replace(
                node, unschedulable=unschedulable, draining_since=node.draining_since if unschedulable else None
            )

        return await self._change(names, decide, cause="api.cordon")

    async def _set_ready(self, names: Sequence[str], *, ready: bool) -> list[str]:
        runtime = self._backend.facts.runtime
        if runtime not in SIMULATING_RUNTIMES:
            raise nodes_not_simulated(runtime)
        now = self._backend.now()

        def decide(node: Node) -> Node | None:
            return None if node.ready is ready else replace(node, ready=ready, ready_changed_at=now)

        return await self._change(names, decide, cause="api.node-failure")

    async def _change(self, names: Sequence[str], decide: Callable[[Node], Node | None], *, cause: str) -> list[str]:
        """Change all named nodes in one commit, or none; return the names of those that became different."""
        check_names(names, NODES_PER_CALL_MAX)
        pairs = await change_named(self._backend.shared.store, keys_of(Kind.NODE, "", names), decide, cause=cause)
        return [before.metadata.name for before, after in pairs if before is not after]
