"""What the workload loop works on: one copy of a set, or the set itself."""

from __future__ import annotations

from typing import Final, NamedTuple

from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodCliqueSet, PodGang

SET_PASS: Final = -1


class WorkKey(NamedTuple):
    """One copy of a set, or with copy -1 the set itself."""

    namespace: str
    set_name: str
    set_uid: str
    copy: int


def set_key(owner: PodCliqueSet) -> WorkKey:
    """Return the key of the set itself."""
    return WorkKey(owner.metadata.namespace, owner.metadata.name, owner.metadata.uid, SET_PASS)


def copy_key(resource: PodClique | PodCliqueScalingGroup | PodGang | Pod) -> WorkKey:
    """Return the key of the copy that a child belongs to."""
    namespace = resource.metadata.namespace
    if isinstance(resource, PodClique | Pod):
        identity = resource.identity
        return WorkKey(namespace, identity.set_name, identity.set_uid, identity.copy)
    return WorkKey(namespace, resource.set_name, resource.set_uid, resource.copy)
