"""What a set's pass does besides its status in updates: keeping revisions, going back when an update is stuck.

Decisions are lifecycle's (``rollout.revisions``, ``rollout.deadline``); here the kept revisions are read and the
changes put together, so that they are committed with the status or not at all.
"""

from __future__ import annotations

from grove_server.control.indexes import REVISIONS_BY_SET
from grove_server.lifecycle.availability import AVAILABLE
from grove_server.lifecycle.plan import Note
from grove_server.lifecycle.rollout.deadline import PROGRESSING, goes_back, rollback_note, stuck_note
from grove_server.lifecycle.rollout.revisions import keep_revision, proven_before, returned_to
from grove_server.resources.meta import find_condition, key_of
from grove_server.resources.rollout import SetRevision
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Change, Delete, Put, Reader


def kept_revisions(reader: Reader, set_uid: str) -> list[SetRevision]:
    """Return the kept revisions of a set, oldest first."""
    found: list[SetRevision] = [*reader.indexed(REVISIONS_BY_SET, set_uid)]
    return sorted(found, key=lambda revision: revision.number)


def revision_changes(reader: Reader, owner: PodCliqueSet, now: float) -> list[Change]:
    """Return what to change about the kept revisions, for *owner* as it is about to be stored."""
    if owner.status.current_generation_hash != owner.revision.hash:
        return []
    progress = owner.status.update_progress
    available = find_condition(owner.status.conditions, AVAILABLE)
    works = (progress is None or not progress.is_active) and available is not None and available.status == "True"
    changes = keep_revision(owner, kept_revisions(reader, owner.metadata.uid), now, works=works)
    made: list[Change] = [Delete(key_of(revision), revision.resource_version) for revision in changes.deletes]
    if changes.put is not None:
        made.append(Put(changes.put, changes.put.resource_version))
    return made


def gone_back(reader: Reader, owner: PodCliqueSet, now: float) -> tuple[PodCliqueSet, list[Note]]:
    """Return *owner*, at the revision before if its update is stuck and it wants that, and what to tell of it."""
    if not goes_back(owner, owner.status.update_progress, now):
        return owner, []
    revision = proven_before(owner, kept_revisions(reader, owner.metadata.uid))
    if revision is None:
        return owner, []
    return returned_to(owner, revision, now, is_automatic=True), [rollback_note(owner, revision)]


def progress_notes(before: PodCliqueSet, after: PodCliqueSet) -> list[Note]:
    """Return what to tell people when an update begins, ends, rests or gets stuck."""
    old = find_condition(before.status.conditions, PROGRESSING)
    new = find_condition(after.status.conditions, PROGRESSING)
    if new is None or (old is not None and old.reason == new.reason):
        return []
    return [stuck_note(after, new)]
