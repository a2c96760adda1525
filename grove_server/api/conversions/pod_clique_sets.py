"""A PodCliqueSet as bytes: the manifest with its defaults, and the status.

The message is put together from the innermost parts outwards, so that pod specs are written once and never copied into
message objects. A set's status changes often and its spec rarely, so the spec's bytes are kept as long as the spec is
the very same object.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from google.protobuf import struct_pb2

from grove.v1 import pod_clique_pb2, pod_clique_set_pb2
from grove_server.api.conversions.metadata import (
    auto_scaling_config,
    condition_messages,
    object_meta,
    topology_constraint,
)
from grove_server.api.conversions.timestamps import optional_rfc3339, rfc3339
from grove_server.api.conversions.wire import nested, struct_bytes, to_struct, too_deep
from grove_server.resources.manifest import (
    CliqueTemplate,
    PodCliqueSetSpec,
    PodCliqueSetTemplate,
    PodCliqueSpec,
    ResourceClaimTemplate,
    ResourceSharing,
    RollingUpdate,
    ScalingGroupTemplate,
    UnitBudget,
)
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.rollout import SetRevision, UpdateProgress
from grove_server.resources.workload import PodCliqueSet

_SPEC_FIELD: Final = pod_clique_set_pb2.PodCliqueSet.DESCRIPTOR.fields_by_name["spec"].number
_TEMPLATE_FIELD: Final = pod_clique_set_pb2.PodCliqueSetSpec.DESCRIPTOR.fields_by_name["template"].number
_CLIQUES_FIELD: Final = pod_clique_set_pb2.PodCliqueSetTemplate.DESCRIPTOR.fields_by_name["cliques"].number
_CLIQUE_SPEC_FIELD: Final = pod_clique_set_pb2.PodCliqueTemplate.DESCRIPTOR.fields_by_name["spec"].number
POD_SPEC_FIELD: Final = pod_clique_pb2.PodCliqueSpec.DESCRIPTOR.fields_by_name["pod_spec"].number

# About 16 MB of specs of a few kilobytes.
_REMEMBERED_MAX: Final = 4_096
# Below a pod spec; enough to find it, and a path stays readable.
_PATH_STEPS_SHOWN: Final = 8


def pod_clique_set_bytes(resource: PodCliqueSet) -> bytes:
    """Return the serialized message of a set."""
    frame = pod_clique_set_pb2.PodCliqueSet(
        api_version=API_VERSIONS[Kind.POD_CLIQUE_SET],
        kind=Kind.POD_CLIQUE_SET.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        status=_status(resource),
    )
    return frame.SerializeToString() + nested(_SPEC_FIELD, _specs.of(resource))


def prepare_spec(resource: PodCliqueSet) -> None:
    """Serialize the spec of *resource* ahead of its first view. Raises NestingError if clients could not read it."""
    _specs.of(resource)


def unreadable_path(resource: PodCliqueSet) -> str:
    """Return the path to what is nested too deep for clients, down to a few levels, after ``prepare_spec`` refused."""
    template = resource.spec.template
    parts: list[tuple[str, object]] = [
        (f"spec.template.cliques[{index}].spec.podSpec", clique.spec.pod_spec)
        for index, clique in enumerate(template.cliques)
    ]
    parts += (
        (f"spec.template.resourceClaimTemplates[{index}].templateSpec", claim.template_spec)
        for index, claim in enumerate(template.resource_claim_templates)
    )
    for path, value in parts:
        found = too_deep(value)
        if found is not None:
            steps = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in found[:_PATH_STEPS_SHOWN])
            return path + "".join(steps)
    return "spec.template"


class _Specs:
    """Serialized specs by the uid of their set."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[str, tuple[PodCliqueSetSpec, bytes]] = OrderedDict()

    def of(self, resource: PodCliqueSet) -> bytes:
        """Return the serialized spec of *resource*."""
        uid, spec = resource.metadata.uid, resource.spec
        known = self._remembered.get(uid)
        if known is not None and known[0] is spec:
            return known[1]
        payload = _spec_bytes(spec)
        self._remembered[uid] = (spec, payload)
        if len(self._remembered) > _REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return payload


_specs: Final = _Specs()


def _spec_bytes(spec: PodCliqueSetSpec) -> bytes:
    strategy = spec.update_strategy
    frame = pod_clique_set_pb2.PodCliqueSetSpec(
        replicas=spec.replicas,
        update_strategy=None
        if strategy is None
        else pod_clique_set_pb2.PodCliqueSetUpdateStrategy(
            type=strategy.type or "", rolling_update=_rolling_update(strategy.rolling_update)
        ),
    )
    return frame.SerializeToString() + nested(_TEMPLATE_FIELD, _template_bytes(spec.template))


def _template_bytes(template: PodCliqueSetTemplate) -> bytes:
    service = template.headless_service_config
    frame = pod_clique_set_pb2.PodCliqueSetTemplate(
        clique_startup_type=template.clique_startup_type or "",
        priority_class_name=template.priority_class_name or "",
        headless_service_config=None
        if service is None
        else pod_clique_set_pb2.HeadlessServiceConfig(publish_not_ready_addresses=service.publish_not_ready_addresses),
        topology_constraint=topology_constraint(template.topology_constraint),
        termination_delay=template.termination_delay or "",
        resource_claim_templates=_claims(template.resource_claim_templates),
        resource_sharing=_sharing(template.resource_sharing),
        pod_clique_scaling_groups=[_group(group) for group in template.pod_clique_scaling_groups],
    )
    parts = [frame.SerializeToString()]
    parts += (nested(_CLIQUES_FIELD, _clique_bytes(clique)) for clique in template.cliques)
    return b"".join(parts)


def _clique_bytes(clique: CliqueTemplate) -> bytes:
    frame = pod_clique_set_pb2.PodCliqueTemplate(
        name=clique.name,
        labels=clique.labels,
        annotations=clique.annotations,
        topology_constraint=topology_constraint(clique.topology_constraint),
        resource_sharing=_sharing(clique.resource_sharing),
        rolling_update=_unit_budget(clique.rolling_update),
    )
    return frame.SerializeToString() + nested(_CLIQUE_SPEC_FIELD, _clique_spec_bytes(clique.spec))


def _clique_spec_bytes(spec: PodCliqueSpec) -> bytes:
    frame = pod_clique_pb2.PodCliqueSpec(
        role_name=spec.role_name or "",
        replicas=spec.replicas,
        min_available=spec.min_available,
        starts_after=spec.starts_after,
        auto_scaling_config=auto_scaling_config(spec.auto_scaling_config),
    )
    return frame.SerializeToString() + nested(POD_SPEC_FIELD, struct_bytes(spec.pod_spec))


def _group(group: ScalingGroupTemplate) -> pod_clique_set_pb2.PodCliqueScalingGroupConfig:
    return pod_clique_set_pb2.PodCliqueScalingGroupConfig(
        name=group.name,
        clique_names=group.clique_names,
        annotations=group.annotations,
        replicas=group.replicas,
        min_available=group.min_available,
        scale_config=auto_scaling_config(group.scale_config),
        resource_sharing=_sharing(group.resource_sharing),
        topology_constraint=topology_constraint(group.topology_constraint),
        rolling_update=_unit_budget(group.rolling_update),
        termination_delay=group.termination_delay or "",
    )


def _rolling_update(rolling: RollingUpdate | None) -> pod_clique_set_pb2.RollingUpdate | None:
    if rolling is None:
        return None
    return pod_clique_set_pb2.RollingUpdate(
        max_unavailable=int_or_percent(rolling.max_unavailable),
        max_surge=int_or_percent(rolling.max_surge),
        progress_deadline=rolling.progress_deadline or "",
        auto_rollback=rolling.auto_rollback,
    )


def _unit_budget(budget: UnitBudget | None) -> pod_clique_set_pb2.UnitBudget | None:
    if budget is None:
        return None
    return pod_clique_set_pb2.UnitBudget(
        max_unavailable=int_or_percent(budget.max_unavailable), max_surge=int_or_percent(budget.max_surge)
    )


def int_or_percent(value: int | str | None) -> struct_pb2.Value | None:
    """Return a number or a share as a message; None for one that is left out."""
    if value is None:
        return None
    return struct_pb2.Value(string_value=value) if isinstance(value, str) else struct_pb2.Value(number_value=value)


def _claims(claims: Iterable[ResourceClaimTemplate]) -> list[pod_clique_set_pb2.ResourceClaimTemplateConfig]:
    return [
        pod_clique_set_pb2.ResourceClaimTemplateConfig(name=claim.name, template_spec=to_struct(claim.template_spec))
        for claim in claims
    ]


def _sharing(entries: Iterable[ResourceSharing]) -> list[pod_clique_set_pb2.ResourceSharing]:
    return [
        pod_clique_set_pb2.ResourceSharing(
            name=entry.name,
            namespace=entry.namespace or "",
            scope=entry.scope,
            filter=None
            if entry.filter is None
            else pod_clique_set_pb2.ResourceSharingFilter(
                child_clique_names=entry.filter.child_clique_names,
                child_scaling_group_names=entry.filter.child_scaling_group_names,
            ),
        )
        for entry in entries
    ]


def _status(resource: PodCliqueSet) -> pod_clique_set_pb2.PodCliqueSetStatus:
    status = resource.status
    return pod_clique_set_pb2.PodCliqueSetStatus(
        observed_generation=status.observed_generation,
        conditions=condition_messages(status.conditions),
        replicas=status.replicas,
        available_replicas=status.available_replicas,
        updated_replicas=status.updated_replicas,
        hpa_pod_selector=status.hpa_pod_selector,
        current_generation_hash=status.current_generation_hash,
        pod_gang_statuses=[
            pod_clique_set_pb2.PodGangStatusSummary(
                name=gang.name,
                phase=gang.phase.value,
                conditions=condition_messages(gang.conditions),
                reason=gang.reason,
            )
            for gang in status.pod_gang_statuses
        ],
        pod_gang_phase_counts=status.pod_gang_phase_counts,
        scale_owner=resource.scale_owner.value,
        phase=status.phase.value,
        update_progress=_progress(status.update_progress),
        paused_at=optional_rfc3339(resource.paused_at),
        rolled_back_from=resource.rolled_back_from,
    )


def _progress(progress: UpdateProgress | None) -> pod_clique_set_pb2.PodCliqueSetUpdateProgress | None:
    if progress is None:
        return None
    return pod_clique_set_pb2.PodCliqueSetUpdateProgress(
        update_started_at=rfc3339(progress.update_started_at),
        update_ended_at=optional_rfc3339(progress.update_ended_at),
        updated_pod_cliques_count=progress.updated_pod_cliques_count,
        total_pod_cliques_count=progress.total_pod_cliques_count,
        updated_pod_clique_scaling_groups_count=progress.updated_pod_clique_scaling_groups_count,
        total_pod_clique_scaling_groups_count=progress.total_pod_clique_scaling_groups_count,
        currently_updating=[
            pod_clique_set_pb2.PodCliqueSetReplicaUpdateProgress(
                replica_index=turn.replica_index, update_started_at=rfc3339(turn.update_started_at)
            )
            for turn in progress.currently_updating
        ],
    )


def revision_message(revision: SetRevision, owner: PodCliqueSet) -> pod_clique_set_pb2.PodCliqueSetRevision:
    """Return a kept revision of *owner* as its history shows it."""
    return pod_clique_set_pb2.PodCliqueSetRevision(
        number=revision.number,
        hash=revision.hash,
        created_at=rfc3339(revision.metadata.created_at),
        change_cause=revision.change_cause,
        is_current=revision.hash == owner.revision.hash,
        images={
            f"{name}/{container.get('name', '')}": str(container.get("image", ""))
            for name, clique in sorted(revision.cliques.items())
            for container in clique.pod_spec.get("containers") or ()
        },
    )
