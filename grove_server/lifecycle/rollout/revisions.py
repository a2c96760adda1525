"""Revisions that a set can go back to: which are kept, and what going back or starting anew makes of a set.

A revision is kept when the set begins to use it, so that edits that were overtaken within a burst leave no trace. As in
kubectl one that comes back gets the next number. Going back takes labels, annotations, pod specs, the priority class
and the cause of the change from the kept revision; sizes, minimums and everything else stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from grove_server.lifecycle.identifiers import derive_uid
from grove_server.resources.manifest import CliqueTemplate, PodCliqueSetTemplate
from grove_server.resources.meta import Metadata
from grove_server.resources.revision import revision_of
from grove_server.resources.rollout import CHANGE_CAUSE, RESTARTED_AT, REVISIONS_KEPT, SetRevision, snapshot
from grove_server.resources.workload import PodCliqueSet


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionChanges:
    """A revision to write, if the newest is not the set's, and those beyond the number kept."""

    put: SetRevision | None = None
    deletes: tuple[SetRevision, ...] = ()


def keep_revision(owner: PodCliqueSet, kept: Sequence[SetRevision], now: float, *, works: bool) -> RevisionChanges:
    """Return what to change about *kept* now that *owner* uses its revision; *works* says that all of it does."""
    ordered = sorted(kept, key=lambda revision: revision.number)
    newest = ordered[-1] if ordered else None
    hash_ = owner.revision.hash
    if newest is not None and newest.hash == hash_:
        if works and newest.worked_at is None:
            return RevisionChanges(put=replace(newest, worked_at=now))
        return RevisionChanges()
    number = newest.number + 1 if newest is not None else 1
    known = next((revision for revision in ordered if revision.hash == hash_), None)
    if known is not None:
        return RevisionChanges(put=replace(known, number=number, change_cause=_cause(owner)))
    # The newest that worked is kept whatever its age: it is where an update that is stuck goes back to.
    proven = proven_before(owner, ordered)
    ordered = [revision for revision in ordered if revision is not proven]
    surplus = ordered[: max(0, len(ordered) + 1 + (proven is not None) - REVISIONS_KEPT)]
    return RevisionChanges(put=_new_revision(owner, number, now), deletes=tuple(surplus))


def revision_before(owner: PodCliqueSet, kept: Sequence[SetRevision]) -> SetRevision | None:
    """Return the newest kept revision that is not the set's own."""
    others = [revision for revision in kept if revision.hash != owner.revision.hash]
    return max(others, key=lambda revision: revision.number, default=None)


def proven_before(owner: PodCliqueSet, kept: Sequence[SetRevision]) -> SetRevision | None:
    """Return the newest kept revision that is not the set's own and with which all of the set once worked."""
    return revision_before(owner, [revision for revision in kept if revision.worked_at is not None])


def returned_to(owner: PodCliqueSet, revision: SetRevision, now: float, *, is_automatic: bool = False) -> PodCliqueSet:
    """Return *owner* with what *revision* kept; cliques that it does not know stay as they are.

    An automatic return notes what it left, so that it is not followed by another.
    """
    template = owner.spec.template
    cliques = tuple(_restored(clique, revision) for clique in template.cliques)
    changed = replace(template, cliques=cliques, priority_class_name=revision.priority_class_name or None)
    back = _with_template(owner, changed, now, rolled_back_from=owner.revision.hash if is_automatic else "")
    return owner if back is owner else _with_cause(back, revision.change_cause)


def restarted(owner: PodCliqueSet, at: str, now: float) -> PodCliqueSet:
    """Return *owner* with a template that asks for new pods everywhere; *at* is the time as it is shown."""
    template = owner.spec.template
    cliques = tuple(
        replace(clique, annotations={**clique.annotations, RESTARTED_AT: at}) for clique in template.cliques
    )
    return _with_template(owner, replace(template, cliques=cliques), now)


def _with_template(
    owner: PodCliqueSet, template: PodCliqueSetTemplate, now: float, *, rolled_back_from: str = ""
) -> PodCliqueSet:
    if template == owner.spec.template:
        return owner
    return replace(
        owner,
        metadata=replace(owner.metadata, generation=owner.metadata.generation + 1),
        spec=replace(owner.spec, template=template),
        revision=revision_of(template),
        revised_at=now,
        rolled_back_from=rolled_back_from,
    )


def _with_cause(owner: PodCliqueSet, cause: str) -> PodCliqueSet:
    """Return *owner* with the cause of its revision; that of the revision it leaves must not stay, as in kubectl."""
    annotations = {key: value for key, value in owner.metadata.annotations.items() if key != CHANGE_CAUSE}
    if cause:
        annotations[CHANGE_CAUSE] = cause
    return replace(owner, metadata=replace(owner.metadata, annotations=annotations))


def _restored(clique: CliqueTemplate, revision: SetRevision) -> CliqueTemplate:
    kept = revision.cliques.get(clique.name)
    if kept is None:
        return clique
    spec = replace(clique.spec, pod_spec=kept.pod_spec)
    return replace(clique, labels=kept.labels, annotations=kept.annotations, spec=spec)


def _new_revision(owner: PodCliqueSet, number: int, now: float) -> SetRevision:
    metadata = owner.metadata
    name = f"{metadata.name}-{owner.revision.hash}"
    return SetRevision(
        metadata=Metadata(
            name=name,
            namespace=metadata.namespace,
            uid=derive_uid(metadata.uid, f"revision/{name}", repr(now)),
            created_at=now,
            owner_uid=metadata.uid,
        ),
        set_name=metadata.name,
        number=number,
        hash=owner.revision.hash,
        change_cause=_cause(owner),
        priority_class_name=owner.spec.template.priority_class_name or "",
        cliques={clique.name: snapshot(clique) for clique in owner.spec.template.cliques},
    )


def _cause(owner: PodCliqueSet) -> str:
    return owner.metadata.annotations.get(CHANGE_CAUSE, "")
