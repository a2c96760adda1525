"""Steering the updates of sets: pause, resume, undo, restart, history. Part of PodCliqueSetService.

How far an update is stands in the status of the set, so that a watch follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from google.protobuf.message import Message

from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.pod_clique_sets import revision_message
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.conversions.timestamps import rfc3339
from grove_server.api.conversions.wire import nested, varint
from grove_server.api.named import change_named, keys_of
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, demand_name
from grove_server.api.reasons import ApiError, Reason, being_deleted, invalid_request, not_found
from grove_server.control.revisions import kept_revisions
from grove_server.lifecycle.rollout.revisions import restarted, returned_to, revision_before
from grove_server.resources.meta import Kind
from grove_server.resources.rollout import SetRevision
from grove_server.resources.workload import PodCliqueSet

_KIND: Final = Kind.POD_CLIQUE_SET
_SET_FIELD: Final = 1
_CHANGED_FIELD: Final = 2


class Rollouts:
    """The methods about updates."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            "PauseRollout": Awaited(pb.PodCliqueSetServicePauseRolloutRequest, self.pause),
            "ResumeRollout": Awaited(pb.PodCliqueSetServiceResumeRolloutRequest, self.resume),
            "UndoRollout": Awaited(pb.PodCliqueSetServiceUndoRolloutRequest, self.undo),
            "RestartRollout": Awaited(pb.PodCliqueSetServiceRestartRolloutRequest, self.restart),
            "ListRevisions": Awaited(pb.PodCliqueSetServiceListRevisionsRequest, self.history),
        }

    async def pause(self, request: pb.PodCliqueSetServicePauseRolloutRequest, _call: Call) -> bytes:
        """Let updates rest."""
        now = self._backend.now()
        return await self._change(request, lambda owner: owner if owner.paused_at else replace(owner, paused_at=now))

    async def resume(self, request: pb.PodCliqueSetServiceResumeRolloutRequest, _call: Call) -> bytes:
        """Let updates go on."""
        now = self._backend.now()
        return await self._change(
            request, lambda owner: replace(owner, paused_at=None, resumed_at=now) if owner.paused_at else owner
        )

    async def undo(self, request: pb.PodCliqueSetServiceUndoRolloutRequest, _call: Call) -> bytes:
        """Go back to a kept revision."""
        if request.to_revision < 0:
            raise invalid_request("toRevision", f"must be 0 or more, got {request.to_revision}")

        def back(owner: PodCliqueSet) -> PodCliqueSet:
            return returned_to(owner, self._wanted(owner, request.to_revision), self._backend.now())

        return await self._change(request, back)

    async def restart(self, request: pb.PodCliqueSetServiceRestartRolloutRequest, _call: Call) -> bytes:
        """Replace all pods."""
        now = self._backend.now()
        return await self._change(request, lambda owner: restarted(owner, rfc3339(now), now), tells_change=False)

    async def history(self, request: pb.PodCliqueSetServiceListRevisionsRequest, _call: Call) -> bytes:
        """List the kept revisions."""
        refuse_unknown_fields(request)
        demand_name(request.name)
        namespace = request.namespace or DEFAULT_NAMESPACE
        owner = self._backend.shared.store.read().get(PodCliqueSet, namespace, request.name)
        if owner is None:
            raise not_found(_KIND.value, namespace, [request.name])
        revisions = [revision_message(revision, owner) for revision in self._kept(owner)]
        return pb.PodCliqueSetServiceListRevisionsResponse(revisions=revisions).SerializeToString()

    def _kept(self, owner: PodCliqueSet) -> list[SetRevision]:
        return kept_revisions(self._backend.shared.store.read(), owner.metadata.uid)

    def _wanted(self, owner: PodCliqueSet, number: int) -> SetRevision:
        kept = self._kept(owner)
        if number == 0:
            found = revision_before(owner, kept)
        else:
            found = next((revision for revision in kept if revision.number == number), None)
        if found is None:
            what = f"revision {number}" if number else "revision before the current one"
            raise ApiError(
                reason=Reason.NOT_FOUND,
                message=f"{_KIND.value} {owner.metadata.namespace}/{owner.metadata.name} has no {what}",
            )
        return found

    async def _change(
        self,
        request: Any,  # noqa: ANN401 -- one of four messages of one shape
        change: Callable[[PodCliqueSet], PodCliqueSet],
        *,
        tells_change: bool = True,
    ) -> bytes:
        message: Message = request
        refuse_unknown_fields(message)
        demand_name(request.name)
        namespace = request.namespace or DEFAULT_NAMESPACE

        def decide(owner: PodCliqueSet) -> PodCliqueSet | None:
            if owner.metadata.deleted_at is not None:
                raise being_deleted(_KIND.value, namespace, owner.metadata.name)
            changed = change(owner)
            return None if changed == owner else changed

        shared = self._backend.shared
        keys = keys_of(_KIND, namespace, [request.name])
        ((before, after),) = await change_named(shared.store, keys, decide, cause="api.rollout")
        answer = nested(_SET_FIELD, shared.views.of(after))
        if tells_change and before is not after:
            answer += varint(_CHANGED_FIELD << 3) + varint(1)
        return answer
