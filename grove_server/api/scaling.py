"""Scale calls at the three levels: who asks, how large the set is now, what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.scale import LiveSet
from grove_server.api.conversions.wire import nested, text, varint
from grove_server.api.reading import demand_name
from grove_server.api.reasons import ApiError, Reason, invalid_request
from grove_server.control.indexes import CLIQUES_BY_COPY
from grove_server.resources.manifest import PodCliqueSetSpec
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.workload import PodClique, PodCliqueSet, ScaleOwner
from grove_server.store.interface import Reader

_OWNERS: Final[Mapping[str, ScaleOwner]] = {
    "": ScaleOwner.USER,
    "user": ScaleOwner.USER,
    "autoscaler": ScaleOwner.AUTOSCALER,
}
PREVIOUS_FIELD: Final = 1
REPLICAS_FIELD: Final = 2
OWNER_FIELD: Final = 3
RESOURCE_FIELD: Final = 4
_INT32_BITS: Final = 3


def read_scale_request(request: Any) -> tuple[int, ScaleOwner]:  # noqa: ANN401 -- one of three messages of one shape
    """Return the wanted size and who wants it. Raises ApiError."""
    demand_name(request.name)
    if not request.HasField("replicas"):
        raise invalid_request("replicas", "is required", reason=FieldReason.REQUIRED)
    owner = _OWNERS.get(request.requested_by)
    if owner is None:
        raise invalid_request(
            "requestedBy",
            f'must be "user" or "autoscaler", got "{request.requested_by[:64]}"',
            reason=FieldReason.NOT_SUPPORTED,
        )
    replicas: int = request.replicas
    return replicas, owner


def live_set(reader: Reader, namespace: str, set_name: str, set_uid: str) -> LiveSet:
    """Return the set that a scaled child belongs to. Raises ApiError if it is gone or going."""
    owner = reader.get(PodCliqueSet, namespace, set_name)
    if owner is None or owner.metadata.uid != set_uid or owner.metadata.deleted_at is not None:
        raise ApiError(
            reason=Reason.BEING_DELETED,
            message=f"PodCliqueSet {namespace}/{set_name}, which owns this, is being deleted",
            metadata={"kind": "PodCliqueSet", "namespace": namespace, "name": set_name},
            preconditions=(("BEING_DELETED", f"{namespace}/{set_name}", "the owner has a deletionTimestamp"),),
        )
    return LiveSet(spec=owner.spec, pod_count=pod_count(reader, owner.spec, set_uid))


def pod_count(reader: Reader, spec: PodCliqueSetSpec, set_uid: str) -> int:
    """Return how many pods all cliques of a set want now."""
    count = 0
    for copy in range(spec.replicas or 0):
        cliques: list[PodClique] = [*reader.indexed(CLIQUES_BY_COPY, (set_uid, copy))]
        count += sum(clique.replicas for clique in cliques)
    return count


def scale_response(previous: int, replicas: int, owner: ScaleOwner, resource: bytes) -> bytes:
    """Return the serialized response; the three responses number their fields alike."""
    return b"".join(
        (
            varint(PREVIOUS_FIELD << _INT32_BITS) + varint(previous),
            varint(REPLICAS_FIELD << _INT32_BITS) + varint(replicas),
            text(OWNER_FIELD, owner.value),
            nested(RESOURCE_FIELD, resource),
        )
    )
