"""Tells people what others did to the server's sets and nodes: notices of the store that become events.

What the server decides itself it announces where it decides. Reasons are a fixed set of words; who did it and by how
much is in the message. A start announces nothing: the nodes of its cluster file were there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from grove_server.lifecycle.plan import EVENT_NORMAL, EVENT_WARNING, Note
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Resource
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup, PodCliqueSet
from grove_server.store.interface import ChangeType, Notice

NODE_ADDED: Final = "NodeAdded"
NODE_REMOVED: Final = "NodeRemoved"
NODE_READY: Final = "NodeReady"
NODE_NOT_READY: Final = "NodeNotReady"
NODE_CORDONED: Final = "NodeCordoned"
NODE_UNCORDONED: Final = "NodeUncordoned"
NODE_RELABELLED: Final = "NodeRelabelled"
NODE_TAINTS_CHANGED: Final = "NodeTaintsChanged"
CREATED: Final = "Created"
EDITED: Final = "Edited"
SCALED: Final = "Scaled"
DELETION_REQUESTED: Final = "DeletionRequested"
DELETED: Final = "Deleted"

# What the workload loop writes follows from what somebody else did.
_CHANGES_SHOWN: Final = 5
_OWN: Final = "workload"


class Announcer:
    """Listens to the store; *note* takes what becomes events."""

    def __init__(self, note: Callable[[Iterable[Note]], None]) -> None:
        self._note = note

    def observe(self, notices: Sequence[Notice]) -> None:
        """Announce what is worth it."""
        notes = [note for notice in notices for note in announcements(notice)]
        if notes:
            self._note(notes)


def announcements(notice: Notice) -> Iterator[Note]:
    """Yield what people should know of one change."""
    resource, previous = notice.resource, notice.previous
    if isinstance(resource, Node):
        yield from _of_node(notice, resource, previous)
    elif isinstance(resource, PodCliqueSet):
        yield from _of_set(notice, resource, previous)
    elif (
        isinstance(resource, PodClique | PodCliqueScalingGroup)
        and isinstance(previous, PodClique | PodCliqueScalingGroup)
        and notice.kind is ChangeType.MODIFIED
        and notice.cause != _OWN
        and resource.replicas != previous.replicas
    ):
        yield _scaled(notice, previous.replicas, resource.replicas)


def _of_node(notice: Notice, node: Node, previous: Resource | None) -> Iterator[Note]:
    if notice.kind is ChangeType.DELETED:
        yield _note(notice, NODE_REMOVED, f"the node left the cluster{_by(notice)}", EVENT_WARNING)
        return
    if not isinstance(previous, Node):
        yield _note(notice, NODE_ADDED, f"the node joined the cluster{_by(notice)}")
        return
    if node.ready is not previous.ready:
        if node.ready:
            yield _note(notice, NODE_READY, f"the node is ready again{_by(notice)}")
        else:
            yield _note(notice, NODE_NOT_READY, f"the node is not ready{_by(notice)}", EVENT_WARNING)
    if node.unschedulable is not previous.unschedulable:
        if node.unschedulable:
            yield _note(notice, NODE_CORDONED, f"no new pods are placed on the node{_by(notice)}")
        else:
            yield _note(notice, NODE_UNCORDONED, f"new pods are placed on the node again{_by(notice)}")
    if node.metadata.labels != previous.metadata.labels:
        text = _labels_changed(previous.metadata.labels, node.metadata.labels)
        yield _note(notice, NODE_RELABELLED, f"{text}{_by(notice)}")
    if node.taints != previous.taints:
        taints = [f"{each.key}={each.value}:{each.effect}" for each in node.taints[:_CHANGES_SHOWN]]
        more = f" and {len(node.taints) - len(taints)} more" if len(node.taints) > len(taints) else ""
        yield _note(notice, NODE_TAINTS_CHANGED, f"its taints are {', '.join(taints) or 'none'}{more}{_by(notice)}")


def _labels_changed(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return which labels are different now."""
    keys = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    texts = [f"label {key}: {before.get(key, '(none)')} → {after.get(key, '(none)')}" for key in keys[:_CHANGES_SHOWN]]
    return ", ".join(texts) + (f" and {len(keys) - len(texts)} more" if len(keys) > len(texts) else "")


def _of_set(notice: Notice, owner: PodCliqueSet, previous: Resource | None) -> Iterator[Note]:
    if notice.kind is ChangeType.DELETED:
        yield _note(notice, DELETED, "the set and everything in it is gone")
        return
    if not isinstance(previous, PodCliqueSet):
        yield _note(notice, CREATED, f"{owner.spec.replicas or 0} copies were asked for{_by(notice)}")
        return
    if owner.metadata.deleted_at is not None and previous.metadata.deleted_at is None:
        yield _note(notice, DELETION_REQUESTED, f"the set is to be deleted{_by(notice)}")
        return
    if owner.spec is previous.spec or owner.spec == previous.spec:
        return
    if owner.spec.replicas != previous.spec.replicas:
        yield _scaled(notice, previous.spec.replicas or 0, owner.spec.replicas or 0)
    if owner.revision.hash != previous.revision.hash:
        revisions = f"revision {previous.revision.hash} → {owner.revision.hash}"
        yield _note(notice, EDITED, f"the pods' template changed: {revisions}{_by(notice)}")
    elif owner.spec.template != previous.spec.template:
        yield _note(notice, EDITED, f"the template changed, the pods' part of it did not{_by(notice)}")


def _scaled(notice: Notice, before: int, after: int) -> Note:
    return _note(notice, SCALED, f"{before} → {after} replicas{_by(notice)}")


def _by(notice: Notice) -> str:
    return f", by {notice.origin.actor}" if notice.origin.actor else ""


def _note(notice: Notice, reason: str, message: str, type_: str = EVENT_NORMAL) -> Note:
    metadata = notice.resource.metadata
    return Note(
        kind=notice.resource.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=reason,
        message=message,
        type=type_,
    )
