"""A PodCliqueSet as a message: the manifest with its defaults, and the status."""

from __future__ import annotations

from collections.abc import Iterable

from grove.v1 import pod_clique_pb2, pod_clique_set_pb2
from grove_server.api.conversions.metadata import (
    auto_scaling_config,
    condition_messages,
    object_meta,
    topology_constraint,
)
from grove_server.api.conversions.wire import to_struct
from grove_server.resources.manifest import (
    CliqueTemplate,
    PodCliqueSetTemplate,
    PodCliqueSpec,
    ResourceSharing,
    ScalingGroupTemplate,
)
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.workload import PodCliqueSet


def pod_clique_set_message(resource: PodCliqueSet) -> pod_clique_set_pb2.PodCliqueSet:
    """Return the message of a set."""
    spec = resource.spec
    strategy = spec.update_strategy
    return pod_clique_set_pb2.PodCliqueSet(
        api_version=API_VERSIONS[Kind.POD_CLIQUE_SET],
        kind=Kind.POD_CLIQUE_SET.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        spec=pod_clique_set_pb2.PodCliqueSetSpec(
            replicas=spec.replicas,
            update_strategy=None
            if strategy is None
            else pod_clique_set_pb2.PodCliqueSetUpdateStrategy(type=strategy.type or ""),
            template=_template(spec.template),
        ),
        status=_status(resource),
    )


def _template(template: PodCliqueSetTemplate) -> pod_clique_set_pb2.PodCliqueSetTemplate:
    service = template.headless_service_config
    return pod_clique_set_pb2.PodCliqueSetTemplate(
        cliques=[_clique(clique) for clique in template.cliques],
        clique_startup_type=template.clique_startup_type or "",
        priority_class_name=template.priority_class_name or "",
        headless_service_config=None
        if service is None
        else pod_clique_set_pb2.HeadlessServiceConfig(publish_not_ready_addresses=service.publish_not_ready_addresses),
        topology_constraint=topology_constraint(template.topology_constraint),
        termination_delay=template.termination_delay or "",
        resource_claim_templates=[
            pod_clique_set_pb2.ResourceClaimTemplateConfig(
                name=claim.name, template_spec=to_struct(claim.template_spec)
            )
            for claim in template.resource_claim_templates
        ],
        resource_sharing=_sharing(template.resource_sharing),
        pod_clique_scaling_groups=[_group(group) for group in template.pod_clique_scaling_groups],
    )


def _clique(clique: CliqueTemplate) -> pod_clique_set_pb2.PodCliqueTemplate:
    return pod_clique_set_pb2.PodCliqueTemplate(
        name=clique.name,
        labels=clique.labels,
        annotations=clique.annotations,
        topology_constraint=topology_constraint(clique.topology_constraint),
        resource_sharing=_sharing(clique.resource_sharing),
        spec=_clique_spec(clique.spec),
    )


def _clique_spec(spec: PodCliqueSpec) -> pod_clique_pb2.PodCliqueSpec:
    return pod_clique_pb2.PodCliqueSpec(
        role_name=spec.role_name or "",
        pod_spec=to_struct(spec.pod_spec),
        replicas=spec.replicas,
        min_available=spec.min_available,
        starts_after=spec.starts_after,
        auto_scaling_config=auto_scaling_config(spec.auto_scaling_config),
    )


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
    )


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
    )
