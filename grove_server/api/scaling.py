"""Scale calls at the three levels: who asks, how large the set is now, what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.scale import LiveSet
from grove_server.api.conversions.wire import nested, text, varint
from grove_server.api.reading import demand_name
from grove_server.api.reasons import ApiError, Reason, invalid_request, size_conflict
from grove_server.api.set_sizes import ScalesUnderway, pod_count
from grove_server.resources.meta import key_of
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup, PodCliqueSet, ScaleOwner
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


def demand_expected(
    request: Any,  # noqa: ANN401 -- one of three messages of one shape
    target: PodCliqueSet | PodClique | PodCliqueScalingGroup,
) -> None:
    """Raise ApiError if the size is another than the caller believes; a size that is there already is no conflict."""
    size = (target.spec.replicas or 0) if isinstance(target, PodCliqueSet) else target.replicas
    if request.HasField("expected_replicas") and size not in (request.expected_replicas, request.replicas):
        raise size_conflict(
            target.kind.value, target.metadata.namespace, target.metadata.name, request.expected_replicas, size
        )


def live_set(
    reader: Reader, underway: ScalesUnderway, target: PodClique | PodCliqueScalingGroup, replicas: int
) -> LiveSet:
    """Return the set that *target*, which is to get *replicas*, belongs to. Raises ApiError if it is gone or going.

    If an edit of it is under way, it is returned as it leaves less room, before or after the edit.
    """
    namespace = target.metadata.namespace
    identity = target.identity if isinstance(target, PodClique) else target
    owner = reader.get(PodCliqueSet, namespace, identity.set_name)
    if owner is None or owner.metadata.uid != identity.set_uid or owner.metadata.deleted_at is not None:
        raise ApiError(
            reason=Reason.BEING_DELETED,
            message=f"PodCliqueSet {namespace}/{identity.set_name}, which owns this, is being deleted",
            metadata={"kind": "PodCliqueSet", "namespace": namespace, "name": identity.set_name},
            preconditions=(("BEING_DELETED", f"{namespace}/{identity.set_name}", "the owner has a deletionTimestamp"),),
        )
    key, sizes = key_of(target), underway.of_set(identity.set_uid)
    possible = [
        LiveSet(spec=each.spec, pod_count=pod_count(reader, each, sizes, key, replicas))
        for each in (owner, *underway.edits_of_set(identity.set_uid))
    ]
    return max(possible, key=lambda live: live.pod_count + (replicas - target.replicas) * _pods_each(live, target))


def _pods_each(live: LiveSet, target: PodClique | PodCliqueScalingGroup) -> int:
    """Return how many pods one more replica of *target* is."""
    if isinstance(target, PodClique):
        return 1
    sizes = {clique.name: clique.spec.replicas or 0 for clique in live.spec.template.cliques}
    return sum(sizes.get(name, 0) for name in target.clique_names)


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
