"""Priority classes and queues as messages."""

from __future__ import annotations

from grove.v1 import priority_class_pb2, queue_pb2
from grove_server.api.conversions.metadata import condition_messages, object_meta
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue


def priority_class_message(resource: PriorityClass) -> priority_class_pb2.PriorityClass:
    """Return the message of a priority class."""
    return priority_class_pb2.PriorityClass(
        api_version=API_VERSIONS[Kind.PRIORITY_CLASS],
        kind=Kind.PRIORITY_CLASS.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        value=resource.value,
        global_default=resource.global_default,
        description=resource.description,
        preemption_policy=resource.preemption_policy,
    )


def queue_message(resource: Queue) -> queue_pb2.Queue:
    """Return the message of a queue."""
    spec, status = resource.spec, resource.status
    return queue_pb2.Queue(
        api_version=API_VERSIONS[Kind.QUEUE],
        kind=Kind.QUEUE.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        spec=queue_pb2.QueueSpec(
            parent=spec.parent,
            guarantee=spec.guarantee,
            limit=spec.limit,
            weight=spec.weight,
            priority=spec.priority,
            blocking=spec.blocking,
            earmark_after=spec.earmark_after,
        ),
        status=queue_pb2.QueueStatus(
            observed_generation=status.observed_generation,
            conditions=condition_messages(status.conditions),
            used=status.used,
            fair_share=status.fair_share,
            running_gang_count=status.running_gangs,
            pending_gang_count=status.pending_gangs,
        ),
    )
