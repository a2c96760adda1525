"""NodeService: machines, whether new pods may go there, and the failing and changing of simulated ones.

What real nodes are like is for their machine or their cluster's API to say: labels, taints, and whether they exist are
changed here for simulated ones alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from grove.v1 import node_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.named import change_named, check_names, keys_of, remove_at_once
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import Reading, Requests
from grove_server.api.reasons import invalid_fields, invalid_request, nodes_not_simulated
from grove_server.control.indexes import PODS_BY_NODE
from grove_server.resources.cluster import Node, Taint
from grove_server.resources.labels import label_key_problem, label_value_problem
from grove_server.resources.meta import Kind
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.violations import Violation, quoted
from grove_server.runtime.node_source import TAINT_EFFECTS

NODES_PER_CALL_MAX: Final = 10_000
# Readiness of any other runtime's nodes is what that runtime sees, and nobody may say otherwise.
SIMULATING_RUNTIMES: Final = frozenset({"fake"})


def demand_simulated_nodes(backend: Backend) -> None:
    """Raise ApiError unless the runtime's nodes are simulated, so that people say what they are like."""
    if backend.facts.runtime not in SIMULATING_RUNTIMES:
        raise nodes_not_simulated(backend.facts.runtime)


class NodeService:
    """Nodes: Get, List, Watch, Cordon, Drain, Uncordon, MarkDown, MarkUp, Label, Taint, Delete."""

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
            "Label": Awaited(pb.NodeServiceLabelRequest, self.label),
            "Taint": Awaited(pb.NodeServiceTaintRequest, self.taint),
            "Delete": Awaited(pb.NodeServiceDeleteRequest, self.delete),
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

    async def label(self, request: pb.NodeServiceLabelRequest, _call: Call) -> bytes:
        """Set and remove labels of simulated nodes."""
        refuse_unknown_fields(request)
        demand_simulated_nodes(self._backend)
        wanted, removed = dict(request.labels), set(request.removed)
        if not wanted and not removed:
            raise invalid_request("labels", "labels to set or to remove are needed", reason=FieldReason.REQUIRED)
        refuse([*_label_violations(wanted), *_label_violations(dict.fromkeys(removed, ""), "removed")])

        def decide(node: Node) -> Node | None:
            kept = {key: value for key, value in node.metadata.labels.items() if key not in removed}
            labels = {**kept, **wanted}
            if labels == node.metadata.labels:
                return None
            return replace(node, metadata=replace(node.metadata, labels=labels))

        changed = await self._change(request.names, decide, cause="api.label")
        return pb.NodeServiceLabelResponse(changed=changed).SerializeToString()

    async def taint(self, request: pb.NodeServiceTaintRequest, _call: Call) -> bytes:
        """Put taints on simulated nodes and take them off."""
        refuse_unknown_fields(request)
        demand_simulated_nodes(self._backend)
        if not request.taints and not request.removed:
            raise invalid_request("taints", "taints to put on or to take off are needed", reason=FieldReason.REQUIRED)
        wanted = [Taint(key=each.key, value=each.value, effect=each.effect) for each in request.taints]
        refuse([*_taint_violations(wanted), *_removed_violations(request.removed)])
        gone = {(each.key, each.effect) for each in request.removed}
        replaced = {(each.key, each.effect) for each in wanted}

        def decide(node: Node) -> Node | None:
            kept = [
                each
                for each in node.taints
                if (each.key, each.effect) not in gone | replaced and (each.key, "") not in gone
            ]
            taints = (*kept, *wanted)
            return None if set(taints) == set(node.taints) else replace(node, taints=taints)

        changed = await self._change(request.names, decide, cause="api.taint")
        return pb.NodeServiceTaintResponse(changed=changed).SerializeToString()

    async def delete(self, request: pb.NodeServiceDeleteRequest, _call: Call) -> bytes:
        """Remove simulated nodes; their pods are gone with them and replaced elsewhere."""
        refuse_unknown_fields(request)
        demand_simulated_nodes(self._backend)
        check_names(request.names, NODES_PER_CALL_MAX)
        if request.resource_version and len(request.names) > 1:
            raise invalid_request("resourceVersion", "only with a single name", reason=FieldReason.FORBIDDEN)
        await change_named(
            self._backend.shared.store,
            keys_of(Kind.NODE, "", request.names),
            remove_at_once,
            expected_version=request.resource_version,
            dry_run=request.validate_only,
            cause="api.delete",
        )
        return b""

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
        demand_simulated_nodes(self._backend)
        now = self._backend.now()

        def decide(node: Node) -> Node | None:
            return None if node.ready is ready else replace(node, ready=ready, ready_changed_at=now)

        return await self._change(names, decide, cause="api.node-failure")

    async def _change(self, names: Sequence[str], decide: Callable[[Node], Node | None], *, cause: str) -> list[str]:
        """Change all named nodes in one commit, or none; return the names of those that became different."""
        check_names(names, NODES_PER_CALL_MAX)
        pairs = await change_named(self._backend.shared.store, keys_of(Kind.NODE, "", names), decide, cause=cause)
        return [before.metadata.name for before, after in pairs if before is not after]


def refuse(violations: Sequence[Violation]) -> None:
    """Raise ApiError with all that is wrong, if anything is."""
    if violations:
        raise invalid_fields(violations)


def _label_violations(labels: Mapping[str, str], field: str = "labels") -> Iterator[Violation]:
    for key, value in sorted(labels.items()):
        problem = label_key_problem(key) or label_value_problem(value)
        if problem:
            yield Violation(f"{field}[{key}]", FieldReason.INVALID, problem)


def _taint_violations(taints: Sequence[Taint]) -> Iterator[Violation]:
    for number, taint in enumerate(taints):
        for name, problem in (("key", label_key_problem(taint.key)), ("value", label_value_problem(taint.value))):
            if problem:
                yield Violation(f"taints[{number}].{name}", FieldReason.INVALID, problem)
        if taint.effect not in TAINT_EFFECTS:
            yield Violation(f"taints[{number}].effect", FieldReason.NOT_SUPPORTED, _effects(taint.effect))


def _removed_violations(removed: Sequence[pb.Taint]) -> Iterator[Violation]:
    for number, taint in enumerate(removed):
        problem = label_key_problem(taint.key)
        if problem:
            yield Violation(f"removed[{number}].key", FieldReason.INVALID, problem)
        if taint.effect and taint.effect not in TAINT_EFFECTS:
            yield Violation(f"removed[{number}].effect", FieldReason.NOT_SUPPORTED, _effects(taint.effect))


def _effects(got: str) -> str:
    return f"must be one of {', '.join(TAINT_EFFECTS)}, got {quoted(got)}"
