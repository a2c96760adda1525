"""StoryService: what happened to a resource, and why, as far as the server remembers."""

from __future__ import annotations

from typing import Final

from grove.v1 import meta_pb2
from grove.v1 import story_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.timestamps import rfc3339
from grove_server.api.pipeline import Method, Ready
from grove_server.api.reading import DEFAULT_NAMESPACE, demand_name
from grove_server.api.reasons import invalid_request
from grove_server.control.story import Transition
from grove_server.resources.meta import API_VERSIONS, CLUSTER_SCOPED, Key, Kind
from grove_server.resources.violations import Reason as FieldReason

_TOLD: Final = (
    Kind.POD_CLIQUE_SET,
    Kind.POD_CLIQUE,
    Kind.POD_CLIQUE_SCALING_GROUP,
    Kind.POD_GANG,
    Kind.POD,
    Kind.NODE,
    Kind.CLUSTER_TOPOLOGY_BINDING,
    Kind.PRIORITY_CLASS,
    Kind.QUEUE,
    Kind.SCALING_POLICY,
)


class StoryService:
    """Stories: Get."""

    name = "grove.v1.StoryService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {"Get": Ready(pb.StoryServiceGetRequest, self.get)}

    def get(self, request: pb.StoryServiceGetRequest) -> bytes:
        """Return the last transitions of one name."""
        key = _key(request)
        if request.limit < 0:
            raise invalid_request("limit", f"must be 0 or more, got {request.limit}")
        story = self._backend.chronicle.story(key, uid=request.uid)
        transitions = story.transitions[-request.limit :] if request.limit else story.transitions
        return pb.StoryServiceGetResponse(
            involved_object=meta_pb2.ObjectReference(
                api_version=API_VERSIONS[key.kind],
                kind=key.kind.value,
                namespace=key.namespace,
                name=key.name,
                uid=request.uid,
            ),
            transitions=[_message(each) for each in transitions],
            forgotten=story.forgotten_count,
            remembered_since=rfc3339(story.since),
        ).SerializeToString()


def _key(request: pb.StoryServiceGetRequest) -> Key:
    demand_name(request.name)
    kind = next((each for each in _TOLD if each.value == request.kind), None)
    if kind is None:
        reason = FieldReason.INVALID if request.kind else FieldReason.REQUIRED
        raise invalid_request("kind", f"must be one of {', '.join(_TOLD)}", reason=reason)
    if kind not in CLUSTER_SCOPED:
        return Key(kind, request.namespace or DEFAULT_NAMESPACE, request.name)
    if request.namespace:
        raise invalid_request("namespace", f"must be empty for a {kind}", reason=FieldReason.FORBIDDEN)
    return Key(kind, "", request.name)


def _message(transition: Transition) -> pb.Transition:
    origin = transition.origin
    return pb.Transition(
        time=rfc3339(transition.at),
        uid=transition.uid,
        resource_version=str(transition.version),
        cause=transition.cause,
        actor=origin.actor,
        request_id=origin.request_id,
        reason=origin.reason,
        changes=[pb.Change(what=each.what, before=each.before, after=each.after) for each in transition.changes],
        steps=transition.steps,
        since=rfc3339(transition.since),
    )
