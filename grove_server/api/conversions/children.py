"""What a set is made of, as messages: cliques, scaling groups, gangs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grove.v1 import meta_pb2, pod_clique_pb2, pod_clique_scaling_group_pb2, pod_gang_pb2
from grove_server.api.conversions.metadata import (
    auto_scaling_config,
    chosen_domains,
    condition_messages,
    gang_constraint,
    object_meta,
    owner_reference,
)
from grove_server.api.conversions.timestamps import optional_rfc3339, rfc3339
from grove_server.api.conversions.wire import nested, struct_bytes
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.rollout import CliqueUpdate, GroupUpdate
from grove_server.resources.workload import NO_GROUP_REPLICA, PodClique, PodCliqueScalingGroup, PodGang, Recycle

_SPEC_FIELD: Final = pod_clique_pb2.PodClique.DESCRIPTOR.fields_by_name["spec"].number
_POD_SPEC_FIELD: Final = pod_clique_pb2.PodCliqueSpec.DESCRIPTOR.fields_by_name["pod_spec"].number


def pod_clique_bytes(resource: PodClique) -> bytes:
    """Return the serialized message of a clique; its owner is its group, or its set if it stands alone."""
    identity = resource.identity
    owner_kind = Kind.POD_CLIQUE_SCALING_GROUP if identity.group else Kind.POD_CLIQUE_SET
    owner_name = identity.group_name if identity.group else identity.set_name
    status = resource.status
    spec = pod_clique_pb2.PodCliqueSpec(
        role_name=resource.role_name,
        replicas=resource.replicas,
        min_available=resource.min_available,
        starts_after=resource.starts_after,
        auto_scaling_config=auto_scaling_config(resource.auto_scaling_config),
    )
    # The pod spec is most of the message; it is written once, not copied into message objects.
    spec_bytes = spec.SerializeToString() + nested(_POD_SPEC_FIELD, struct_bytes(resource.template.pod_spec))
    frame = pod_clique_pb2.PodClique(
        api_version=API_VERSIONS[Kind.POD_CLIQUE],
        kind=Kind.POD_CLIQUE.value,
        metadata=object_meta(
            resource.metadata,
            resource.resource_version,
            owner=owner_reference(owner_kind, owner_name, resource.metadata.owner_uid),
        ),
        status=pod_clique_pb2.PodCliqueStatus(
            observed_generation=status.observed_generation,
            replicas=status.replicas,
            ready_replicas=status.ready_replicas,
            updated_replicas=status.updated_replicas,
            schedule_gated_replicas=status.schedule_gated_replicas,
            scheduled_replicas=status.scheduled_replicas,
            hpa_pod_selector=status.hpa_pod_selector,
            conditions=condition_messages(status.conditions),
            current_pod_clique_set_generation_hash=status.current_set_hash,
            current_pod_template_hash=status.current_pod_template_hash,
            update_progress=_clique_progress(status.update_progress),
            terminating_replicas=status.terminating_replicas,
            scale_owner=resource.scale_owner.value,
        ),
    )
    return frame.SerializeToString() + nested(_SPEC_FIELD, spec_bytes)


def scaling_group_message(resource: PodCliqueScalingGroup) -> pod_clique_scaling_group_pb2.PodCliqueScalingGroup:
    """Return the message of a scaling group."""
    status = resource.status
    return pod_clique_scaling_group_pb2.PodCliqueScalingGroup(
        api_version=API_VERSIONS[Kind.POD_CLIQUE_SCALING_GROUP],
        kind=Kind.POD_CLIQUE_SCALING_GROUP.value,
        metadata=object_meta(
            resource.metadata,
            resource.resource_version,
            owner=owner_reference(Kind.POD_CLIQUE_SET, resource.set_name, resource.set_uid),
        ),
        spec=pod_clique_scaling_group_pb2.PodCliqueScalingGroupSpec(
            replicas=resource.replicas, min_available=resource.min_available, clique_names=resource.clique_names
        ),
        status=pod_clique_scaling_group_pb2.PodCliqueScalingGroupStatus(
            observed_generation=status.observed_generation,
            replicas=status.replicas,
            scheduled_replicas=status.scheduled_replicas,
            available_replicas=status.available_replicas,
            updated_replicas=status.updated_replicas,
            selector=status.selector,
            conditions=condition_messages(status.conditions),
            current_pod_clique_set_generation_hash=status.current_set_hash,
            update_progress=_group_progress(status.update_progress),
            scale_owner=resource.scale_owner.value,
            recycles=_recycles(status.recycles),
        ),
    )


def pod_gang_message(resource: PodGang) -> pod_gang_pb2.PodGang:
    """Return the message of a gang in Grove's scheduler form."""
    namespace = resource.metadata.namespace
    return pod_gang_pb2.PodGang(
        api_version=API_VERSIONS[Kind.POD_GANG],
        kind=Kind.POD_GANG.value,
        metadata=object_meta(
            resource.metadata,
            resource.resource_version,
            owner=owner_reference(Kind.POD_CLIQUE_SET, resource.set_name, resource.set_uid),
        ),
        spec=pod_gang_pb2.PodGangSpec(
            podgroups=[
                pod_gang_pb2.PodGroup(
                    name=group.name,
                    pod_references=[
                        meta_pb2.NamespacedName(namespace=namespace, name=name) for name in sorted(group.pods)
                    ],
                    min_replicas=group.min_replicas,
                    topology_constraint=gang_constraint(group.topology_constraint),
                )
                for group in resource.pod_groups
            ],
            topology_constraint=gang_constraint(resource.topology_constraint),
            topology_constraint_group_configs=[
                pod_gang_pb2.TopologyConstraintGroupConfig(
                    name=group.name,
                    pod_group_names=group.pod_group_names,
                    topology_constraint=gang_constraint(group.topology_constraint),
                )
                for group in resource.topology_groups
            ],
            priority_class_name=resource.priority_class_name,
            priority=resource.priority,
            preemption_policy=resource.preemption_policy,
        ),
        status=_gang_status(resource),
    )


def _gang_status(resource: PodGang) -> pod_gang_pb2.PodGangStatus:
    status = resource.status
    return pod_gang_pb2.PodGangStatus(
        phase=status.phase.value,
        conditions=condition_messages(status.conditions),
        placement_score=status.placement_score,
        reason=status.reason,
        message=status.message,
        topology=chosen_domains(status.topology),
        scheduled_at=optional_rfc3339(status.scheduled_at),
        ready_at=optional_rfc3339(status.ready_at),
        observed_generation=resource.metadata.generation,
        recycles=_recycles(status.recycles),
        nominated_places=[
            pod_gang_pb2.NominatedPlace(pod_group=place.pod_group, node=place.node, gpu_ids=place.gpu_ids)
            for place in (status.nomination.places if status.nomination is not None else ())
        ],
    )


def _clique_progress(update: CliqueUpdate | None) -> pod_clique_pb2.PodCliqueUpdateProgress | None:
    if update is None:
        return None
    chosen = None
    if update.selected or update.completed:
        chosen = pod_clique_pb2.PodsSelectedToUpdate(
            current=update.selected[0] if update.selected else "", completed=update.completed
        )
    return pod_clique_pb2.PodCliqueUpdateProgress(
        update_started_at=rfc3339(update.update_started_at),
        update_ended_at=optional_rfc3339(update.update_ended_at),
        pod_clique_set_generation_hash=update.set_hash,
        pod_template_hash=update.template_hash,
        ready_pods_selected_to_update=chosen,
    )


def _group_progress(
    update: GroupUpdate | None,
) -> pod_clique_scaling_group_pb2.PodCliqueScalingGroupUpdateProgress | None:
    if update is None:
        return None
    chosen = None
    if update.selected or update.completed:
        chosen = pod_clique_scaling_group_pb2.GroupReplicasSelectedToUpdate(
            current=update.selected[0] if update.selected else None, completed=update.completed
        )
    return pod_clique_scaling_group_pb2.PodCliqueScalingGroupUpdateProgress(
        update_started_at=rfc3339(update.update_started_at),
        update_ended_at=optional_rfc3339(update.update_ended_at),
        pod_clique_set_generation_hash=update.set_hash,
        updated_pod_cliques_count=update.updated_cliques,
        total_pod_cliques_count=update.total_cliques,
        ready_replica_indices_selected_to_update=chosen,
    )


def _recycles(recycles: Iterable[Recycle]) -> list[meta_pb2.Recycle]:
    return [
        meta_pb2.Recycle(
            at=rfc3339(each.at),
            scope=each.scope,
            group_replica=None if each.group_replica == NO_GROUP_REPLICA else each.group_replica,
            message=each.message,
            count=each.count,
        )
        for each in recycles
    ]
