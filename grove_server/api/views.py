"""Resources as bytes: each version of a resource is serialized once, whoever asks for it and however often.

Gets, list items and watch events are all made of these bytes. The cache is bounded by bytes, least recently used first
out; a resource's version is unique among all changes of the store, so it alone is the key. Resources that were never
committed (version 0, dry runs) are not cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from grove_server.api.conversions.children import pod_clique_bytes, pod_gang_message, scaling_group_message
from grove_server.api.conversions.cluster import cluster_topology_binding_message, event_message, node_message
from grove_server.api.conversions.pod_clique_sets import pod_clique_set_bytes
from grove_server.api.conversions.pods import pod_bytes
from grove_server.api.conversions.scaling_policies import scaling_policy_message
from grove_server.api.conversions.scheduling import priority_class_message, queue_message
from grove_server.resources.meta import Kind, Resource

# What an entry costs beside its bytes: dictionary slot, key, bytes object.
_ENTRY_OVERHEAD_BYTES: Final = 200


def _serialized(convert: Callable[[Any], Message]) -> Callable[[Any], bytes]:
    def to_bytes(resource: Any) -> bytes:  # noqa: ANN401 -- the table below fixes the type
        return convert(resource).SerializeToString()

    return to_bytes


_SERIALIZERS: Final[Mapping[Kind, Callable[[Any], bytes]]] = {
    Kind.POD_CLIQUE_SET: pod_clique_set_bytes,
    Kind.POD_CLIQUE: pod_clique_bytes,
    Kind.POD_CLIQUE_SCALING_GROUP: _serialized(scaling_group_message),
    Kind.POD_GANG: _serialized(pod_gang_message),
    Kind.POD: pod_bytes,
    Kind.NODE: _serialized(node_message),
    Kind.CLUSTER_TOPOLOGY_BINDING: _serialized(cluster_topology_binding_message),
    Kind.PRIORITY_CLASS: _serialized(priority_class_message),
    Kind.QUEUE: _serialized(queue_message),
    Kind.SCALING_POLICY: _serialized(scaling_policy_message),
    Kind.EVENT: _serialized(event_message),
}


class Views:
    """Serialized resources, cached."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def of(self, resource: Resource) -> bytes:
        """Return the serialized message of *resource*."""
        version = resource.resource_version
        cached = self._cache.get(version)
        if cached is not None:
            self._cache.move_to_end(version)
            return cached
        payload = _SERIALIZERS[resource.kind](resource)
        if version:
            self._keep(version, payload)
        return payload

    def is_cached(self, resource: Resource) -> bool:
        """Return whether ``of`` would cost next to nothing."""
        return resource.resource_version in self._cache

    @property
    def size_bytes(self) -> int:
        """Return what the cache holds."""
        return self._bytes

    def _keep(self, version: int, payload: bytes) -> None:
        self._cache[version] = payload
        self._bytes += len(payload) + _ENTRY_OVERHEAD_BYTES
        while self._bytes > self._bytes_max and self._cache:
            _, dropped = self._cache.popitem(last=False)
            self._bytes -= len(dropped) + _ENTRY_OVERHEAD_BYTES
