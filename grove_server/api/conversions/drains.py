"""Drains as messages, and the steps of a drain watch out of the events of a pod watch."""

from __future__ import annotations

from typing import Final

from grove.v1 import endpoint_pb2
from grove_server.api.conversions.timestamps import optional_rfc3339
from grove_server.api.conversions.wire import nested, text
from grove_server.resources.workload import NO_GROUP_REPLICA, Pod
from grove_server.store.interface import EventType, WatchEvent

_STEP = endpoint_pb2.EndpointServiceWatchDrainsResponse.DESCRIPTOR.fields_by_name
_TYPE_FIELD: Final = _STEP["type"].number
_OBJECT_FIELD: Final = _STEP["object"].number
_TOKEN_FIELD: Final = _STEP["resume_token"].number


def drain_message(pod: Pod) -> endpoint_pb2.Drain:
    """Return what routers are told of a pod that drains."""
    metadata, identity = pod.metadata, pod.identity
    return endpoint_pb2.Drain(
        namespace=metadata.namespace,
        pod=metadata.name,
        uid=metadata.uid,
        pod_clique_set=identity.set_name,
        clique=identity.clique,
        copy=identity.copy,
        group=identity.group,
        group_replica=None if identity.group_replica == NO_GROUP_REPLICA else identity.group_replica,
        index=pod.index,
        address=pod.pod_ip,
        node=pod.node,
        reason=pod.stop_reason,
        started_at=optional_rfc3339(pod.draining_at),
        deadline=optional_rfc3339(pod.drain_deadline),
        acknowledged_by=pod.drain_acks,
    )


class DrainSteps:
    """Makes one stream's steps; remembers what it told, which is never more than the pods that are on their way out.

    A stream that was resumed does not know what its reader knows, so it tells the end of every drain.
    """

    def __init__(self, *, is_resumed: bool) -> None:
        self._is_resumed = is_resumed
        # Uids of pods whose drain was told, and of those whose end was told while their row is still there.
        self._told: set[str] = set()
        self._over: set[str] = set()

    def encode(self, event: WatchEvent) -> bytes | None:
        """Return the serialized step that *event* of the pod watch is, None if it is none."""
        if event.resource is None:
            return _step(event.type, b"", event.token)
        assert isinstance(event.resource, Pod), "a drain watch watches pods"
        type_ = self._type(event.type, event.resource)
        if type_ is None:
            return None
        drain = drain_message(event.resource).SerializeToString()
        return _step(type_, nested(_OBJECT_FIELD, drain), event.token)

    def _type(self, type_: EventType, pod: Pod) -> EventType | None:
        if pod.draining_at is None:
            return None
        uid = pod.metadata.uid
        is_gone = type_ is EventType.DELETED
        if not is_gone and not pod.is_terminating:
            if uid in self._told:
                return EventType.MODIFIED
            self._told.add(uid)
            return EventType.ADDED
        was_over = uid in self._over
        was_told = uid in self._told
        self._told.discard(uid)
        if is_gone:
            self._over.discard(uid)
        elif was_told or self._is_resumed:
            self._over.add(uid)
        return EventType.DELETED if not was_over and (was_told or self._is_resumed) else None


def _step(type_: EventType, drain: bytes, token: str) -> bytes:
    return text(_TYPE_FIELD, type_.value) + drain + text(_TOKEN_FIELD, token)
