"""Rows: how resources become bytes in the store and come back.

JSON by pydantic's compiled adapters. Defaults are left out, so rows stay short and a new optional field needs no
migration. Templates are stored once and referred to by name: decode them first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from grove_server.resources.autoscalers import AutoscalerRoster
from grove_server.resources.cluster import ClusterTopologyBinding, Event, Node
from grove_server.resources.meta import Kind, Resource
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.resources.reference import TemplateLookup
from grove_server.resources.rollout import SetRevision
from grove_server.resources.routing import RouterRegistration
from grove_server.resources.scaling_policy import ScalingPolicy
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodGang,
    PodTemplate,
)

# Order matters when reading a whole store: what others refer to comes first.
DECODE_ORDER: Final = (
    Kind.POD_TEMPLATE,
    Kind.NODE,
    Kind.CLUSTER_TOPOLOGY_BINDING,
    Kind.PRIORITY_CLASS,
    Kind.QUEUE,
    Kind.POD_CLIQUE_SET,
    Kind.POD_CLIQUE_SCALING_GROUP,
    Kind.POD_CLIQUE,
    Kind.POD_GANG,
    Kind.POD,
    Kind.EVENT,
    Kind.ROUTER_REGISTRATION,
    Kind.SET_REVISION,
    Kind.SCALING_POLICY,
    Kind.AUTOSCALER_ROSTER,
)

_ADAPTERS: Final[Mapping[Kind, TypeAdapter[Any]]] = {
    Kind.POD_CLIQUE_SET: TypeAdapter(PodCliqueSet),
    Kind.POD_CLIQUE: TypeAdapter(PodClique),
    Kind.POD_CLIQUE_SCALING_GROUP: TypeAdapter(PodCliqueScalingGroup),
    Kind.POD_GANG: TypeAdapter(PodGang),
    Kind.POD: TypeAdapter(Pod),
    Kind.NODE: TypeAdapter(Node),
    Kind.CLUSTER_TOPOLOGY_BINDING: TypeAdapter(ClusterTopologyBinding),
    Kind.POD_TEMPLATE: TypeAdapter(PodTemplate),
    Kind.EVENT: TypeAdapter(Event),
    Kind.ROUTER_REGISTRATION: TypeAdapter(RouterRegistration),
    Kind.SET_REVISION: TypeAdapter(SetRevision),
    Kind.PRIORITY_CLASS: TypeAdapter(PriorityClass),
    Kind.QUEUE: TypeAdapter(Queue),
    Kind.SCALING_POLICY: TypeAdapter(ScalingPolicy),
    Kind.AUTOSCALER_ROSTER: TypeAdapter(AutoscalerRoster),
}


class RowError(ValueError):
    """A stored row is not a valid resource."""


def encode(resource: Resource) -> bytes:
    """Return the row of *resource*; its version is not part of it."""
    return _ADAPTERS[resource.kind].dump_json(
        resource, by_alias=True, exclude_defaults=True, exclude={"resource_version"}
    )


def decode(kind: Kind, payload: bytes, templates: TemplateLookup) -> Resource:
    """Return the resource of a row, at version 0.

    Raises RowError if the row is not valid, or refers to a template that *templates* does not know (KeyError inside).
    """
    try:
        resource: Resource = _ADAPTERS[kind].validate_json(payload, context={"templates": templates})
    except (ValidationError, KeyError) as error:
        msg = f"unreadable {kind} row: {error}"
        raise RowError(msg) from error
    return resource
