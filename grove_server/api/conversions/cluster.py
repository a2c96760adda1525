"""Nodes, topology bindings and events as messages."""

from __future__ import annotations

from grove.v1 import cluster_topology_binding_pb2, event_pb2, meta_pb2, node_pb2
from grove_server.api.conversions.metadata import condition_messages, object_meta
from grove_server.api.conversions.timestamps import optional_rfc3339, rfc3339
from grove_server.resources.cluster import ClusterTopologyBinding, Event, Node
from grove_server.resources.meta import API_VERSIONS, Kind


def node_message(resource: Node) -> node_pb2.Node:
    """Return the v1 Node of a machine."""
    changed = resource.ready_changed_at or resource.metadata.created_at
    ready = meta_pb2.Condition(
        type="Ready",
        status="True" if resource.ready else "False",
        reason="KubeletReady" if resource.ready else "NodeStatusUnknown",
        message="the node takes pods" if resource.ready else "the node does not answer",
        last_transition_time=rfc3339(changed) if changed else "",
    )
    addresses = [node_pb2.NodeAddress(type="Hostname", address=resource.metadata.name)]
    if resource.address:
        addresses.insert(0, node_pb2.NodeAddress(type="InternalIP", address=resource.address))
    return node_pb2.Node(
        api_version=API_VERSIONS[Kind.NODE],
        kind=Kind.NODE.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        spec=node_pb2.NodeSpec(
            # As in Kubernetes, the field is there only when it is true.
            unschedulable=resource.unschedulable or None,
            draining_since=optional_rfc3339(resource.draining_since),
            taints=[node_pb2.Taint(key=t.key, value=t.value, effect=t.effect) for t in resource.taints],
        ),
        status=node_pb2.NodeStatus(
            capacity=resource.capacity or resource.allocatable,
            allocatable=resource.allocatable,
            conditions=[ready, *_draining(resource), *condition_messages(resource.conditions)],
            addresses=addresses,
        ),
    )


def _draining(resource: Node) -> list[meta_pb2.Condition]:
    if resource.draining_since is None:
        return []
    return [
        meta_pb2.Condition(
            type="Draining",
            status="True",
            reason="DrainRequested",
            message="pods leave the node within their availability budgets",
            last_transition_time=rfc3339(resource.draining_since),
        )
    ]


def cluster_topology_binding_message(
    resource: ClusterTopologyBinding,
) -> cluster_topology_binding_pb2.ClusterTopologyBinding:
    """Return the message of a topology binding."""
    return cluster_topology_binding_pb2.ClusterTopologyBinding(
        api_version=API_VERSIONS[Kind.CLUSTER_TOPOLOGY_BINDING],
        kind=Kind.CLUSTER_TOPOLOGY_BINDING.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        spec=cluster_topology_binding_pb2.ClusterTopologyBindingSpec(
            levels=[
                cluster_topology_binding_pb2.TopologyLevel(domain=level.domain, key=level.key)
                for level in resource.spec.levels
            ],
            scheduler_topology_bindings=[
                cluster_topology_binding_pb2.SchedulerTopologyBinding(
                    scheduler_name=binding.scheduler_name, topology_reference=binding.topology_reference
                )
                for binding in resource.spec.scheduler_topology_bindings
            ],
        ),
        status=cluster_topology_binding_pb2.ClusterTopologyBindingStatus(
            observed_generation=resource.status.observed_generation,
            conditions=condition_messages(resource.status.conditions),
        ),
    )


def event_message(resource: Event) -> event_pb2.Event:
    """Return the v1 Event of something that happened."""
    return event_pb2.Event(
        api_version=API_VERSIONS[Kind.EVENT],
        kind=Kind.EVENT.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        involved_object=meta_pb2.ObjectReference(
            api_version=API_VERSIONS[resource.involved_kind],
            kind=resource.involved_kind.value,
            namespace=resource.metadata.namespace,
            name=resource.involved_name,
            uid=resource.involved_uid,
        ),
        reason=resource.reason,
        message=resource.message,
        type=resource.type,
        count=resource.count,
        first_timestamp=rfc3339(resource.first_at),
        last_timestamp=rfc3339(resource.last_at),
        reporting_component="grove-server",
    )
