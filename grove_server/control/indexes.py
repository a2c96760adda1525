"""How the store files resources for the loops: by set, copy, gang and node; and names for the collision check."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Final

from grove_server.resources.meta import Kind
from grove_server.resources.rollout import SetRevision
from grove_server.resources.routing import RouterRegistration
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodGang,
    PodTemplate,
    ScaleOwner,
)
from grove_server.store.interface import Index

CLIQUES_BY_COPY: Final = "cliques_by_copy"
GROUPS_BY_COPY: Final = "groups_by_copy"
GANGS_BY_COPY: Final = "gangs_by_copy"
PODS_BY_COPY: Final = "pods_by_copy"
PODS_BY_GANG: Final = "pods_by_gang"
TEMPLATES_BY_SET: Final = "templates_by_set"
SETS_BY_NAME_STEM: Final = "sets_by_name_stem"
DRAINING_BY_SET: Final = "draining_by_set"
ROUTERS_BY_SET: Final = "routers_by_set"
REVISIONS_BY_SET: Final = "revisions_by_set"
PODS_BY_NODE: Final = "pods_by_node"
RESIZED_CLIQUES_BY_SET: Final = "resized_cliques_by_set"
RESIZED_GROUPS_BY_SET: Final = "resized_groups_by_set"


def _clique_copy(clique: PodClique) -> Iterable[Hashable]:
    return ((clique.identity.set_uid, clique.identity.copy),)


def _group_copy(group: PodCliqueScalingGroup) -> Iterable[Hashable]:
    return ((group.set_uid, group.copy),)


def _gang_copy(gang: PodGang) -> Iterable[Hashable]:
    return ((gang.set_uid, gang.copy),)


def _pod_copy(pod: Pod) -> Iterable[Hashable]:
    return ((pod.identity.set_uid, pod.identity.copy),)


def _pod_gang(pod: Pod) -> Iterable[Hashable]:
    return ((pod.metadata.namespace, pod.identity.gang),)


def _pod_node(pod: Pod) -> Iterable[Hashable]:
    return (pod.node,) if pod.node else ()


def _template_set(template: PodTemplate) -> Iterable[Hashable]:
    return (template.metadata.owner_uid,)


def _draining_set(pod: Pod) -> Iterable[Hashable]:
    if pod.draining_at is None or pod.metadata.deleted_at is not None:
        return ()
    return ((pod.metadata.namespace, pod.identity.set_name),)


def _router_set(registration: RouterRegistration) -> Iterable[Hashable]:
    return ((registration.metadata.namespace, registration.set_name),)


def _revision_set(revision: SetRevision) -> Iterable[Hashable]:
    return (revision.metadata.owner_uid,)


def _is_resized(resource: PodClique | PodCliqueScalingGroup) -> bool:
    """Return whether the size may be another one than the template's."""
    return resource.replicas != resource.template_replicas or resource.scale_owner is ScaleOwner.AUTOSCALER


def _resized_clique_set(clique: PodClique) -> Iterable[Hashable]:
    return (clique.identity.set_uid,) if _is_resized(clique) else ()


def _resized_group_set(group: PodCliqueScalingGroup) -> Iterable[Hashable]:
    return (group.set_uid,) if _is_resized(group) else ()


def name_stems(set_name: str) -> tuple[str, ...]:
    """Return what stands before each piece of a name that looks like an index: "a-0-b-1" has the stems "a", "a-0-b".

    Children of two sets can only share a name if the name of one set is a stem of the other's: names of children begin
    with their set's name and an index, and two names that differ in a piece that is no index never meet.
    """
    pieces = set_name.split("-")
    return tuple("-".join(pieces[:at]) for at in range(1, len(pieces)) if pieces[at].isdecimal())


def _set_stems(pod_clique_set: PodCliqueSet) -> Iterable[Hashable]:
    metadata = pod_clique_set.metadata
    return [(metadata.namespace, stem) for stem in name_stems(metadata.name)]


def store_indexes() -> Mapping[str, Index]:
    """Return all secondary indexes of the store."""
    return {
        CLIQUES_BY_COPY: (Kind.POD_CLIQUE, _clique_copy),
        GROUPS_BY_COPY: (Kind.POD_CLIQUE_SCALING_GROUP, _group_copy),
        GANGS_BY_COPY: (Kind.POD_GANG, _gang_copy),
        PODS_BY_COPY: (Kind.POD, _pod_copy),
        PODS_BY_GANG: (Kind.POD, _pod_gang),
        PODS_BY_NODE: (Kind.POD, _pod_node),
        TEMPLATES_BY_SET: (Kind.POD_TEMPLATE, _template_set),
        SETS_BY_NAME_STEM: (Kind.POD_CLIQUE_SET, _set_stems),
        DRAINING_BY_SET: (Kind.POD, _draining_set),
        ROUTERS_BY_SET: (Kind.ROUTER_REGISTRATION, _router_set),
        REVISIONS_BY_SET: (Kind.SET_REVISION, _revision_set),
        RESIZED_CLIQUES_BY_SET: (Kind.POD_CLIQUE, _resized_clique_set),
        RESIZED_GROUPS_BY_SET: (Kind.POD_CLIQUE_SCALING_GROUP, _resized_group_set),
    }
