"""The parts all views share: metadata, owners, conditions, constraints.

`API_VERSIONS` and kinds come from the resource, so a view never says anything about itself that the store does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf import struct_pb2

from grove.v1 import meta_pb2, pod_clique_pb2, topology_pb2
from grove_server.api.conversions.timestamps import optional_rfc3339, rfc3339
from grove_server.api.conversions.wire import to_struct
from grove_server.resources.gang_parts import LevelConstraint
from grove_server.resources.manifest import AutoScalingConfig, TopologyConstraint
from grove_server.resources.meta import API_VERSIONS, Condition, Kind, Metadata
from grove_server.resources.workload import ChosenDomain


def object_meta(
    metadata: Metadata,
    resource_version: int,
    *,
    owner: meta_pb2.OwnerReference | None = None,
    annotations: Mapping[str, str] | None = None,
) -> meta_pb2.ObjectMeta:
    """Return the metadata of a resource; *annotations* replaces the stored ones where the view adds some."""
    return meta_pb2.ObjectMeta(
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        resource_version=str(resource_version) if resource_version else "",
        generation=metadata.generation,
        creation_timestamp=rfc3339(metadata.created_at) if metadata.created_at else "",
        deletion_timestamp=optional_rfc3339(metadata.deleted_at),
        labels=metadata.labels,
        annotations=metadata.annotations if annotations is None else annotations,
        owner_references=() if owner is None else (owner,),
    )


def owner_reference(kind: Kind, name: str, uid: str) -> meta_pb2.OwnerReference | None:
    """Return the reference to the one owner; None where the owner is not known."""
    if not uid:
        return None
    return meta_pb2.OwnerReference(
        api_version=API_VERSIONS[kind],
        kind=kind.value,
        name=name,
        uid=uid,
        controller=True,
        block_owner_deletion=True,
    )


def condition_messages(conditions: Iterable[Condition]) -> list[meta_pb2.Condition]:
    """Return conditions as messages."""
    return [
        meta_pb2.Condition(
            type=c.type,
            status=c.status,
            reason=c.reason,
            message=c.message,
            last_transition_time=rfc3339(c.last_transition_at) if c.last_transition_at else "",
            observed_generation=c.observed_generation,
        )
        for c in conditions
    ]


def topology_constraint(constraint: TopologyConstraint | None) -> topology_pb2.TopologyConstraint | None:
    """Return a constraint as users write it."""
    if constraint is None:
        return None
    pack = constraint.pack
    return topology_pb2.TopologyConstraint(
        topology_name=constraint.topology_name or "",
        pack=None
        if pack is None
        else topology_pb2.TopologyPack(required=pack.required or "", preferred=pack.preferred or ""),
        pack_domain=constraint.pack_domain or "",
    )


def gang_constraint(constraint: LevelConstraint | None) -> topology_pb2.GangTopologyConstraint | None:
    """Return a constraint in the scheduler's form (node label keys)."""
    if constraint is None or not (constraint.required or constraint.preferred):
        return None
    return topology_pb2.GangTopologyConstraint(
        pack_constraint=topology_pb2.GangPackConstraint(
            required=constraint.required or "", preferred=constraint.preferred or ""
        )
    )


def chosen_domains(domains: Iterable[ChosenDomain]) -> list[topology_pb2.ChosenDomain]:
    """Return chosen domains as messages."""
    return [topology_pb2.ChosenDomain(scope=d.scope, level=d.level, key=d.key, domain=d.domain) for d in domains]


def auto_scaling_config(config: AutoScalingConfig | None) -> pod_clique_pb2.AutoScalingConfig | None:
    """Return bounds and metrics of autoscaling."""
    if config is None:
        return None
    metrics: list[struct_pb2.Struct] = [to_struct(metric) for metric in config.metrics]
    return pod_clique_pb2.AutoScalingConfig(
        min_replicas=config.min_replicas, max_replicas=config.max_replicas, metrics=metrics
    )
