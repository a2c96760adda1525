"""Whose turn it is: the update of a set as a whole, from the summaries of its copies.

One copy has its turn at a time (Grove): first those that are below their minimum, then the lowest. Copies of which
nothing is placed have theirs at once and nobody waits for them, since nobody loses anything by it. A turn ends when the
copy is wholly of the new revision, works, and needs no extra replicas any more; the update ends when no copy has
anything old.

An update begins when the template has been quiet for a while, so that a burst of edits is one update. An edit during an
update aims it anew: what is at a revision in between is old again. Sizes always follow, and new copies begin with the
current revision. While a set is paused nobody gets or keeps a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grove_server.lifecycle.copy import CopySummary
from grove_server.lifecycle.copy_totals import CopySums, CopyTotals
from grove_server.lifecycle.orders import UpdateOrder
from grove_server.resources.manifest import ON_DELETE, ROLLING_RECREATE, UpdateStrategy
from grove_server.resources.replacing import replace
from grove_server.resources.rollout import UpdateProgress, UpdatingCopy
from grove_server.resources.workload import PodCliqueSet

SETTLE_S: Final = 1.0
_DEFAULT_STRATEGY: Final = UpdateStrategy(type=ROLLING_RECREATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Where the update of a set stands after a look at it; ``wake_at`` is when to look again (epoch seconds).

    ``is_awaited`` says that there is something to roll out which has not begun, because the template has to be quiet
    first or because the set is paused.
    """

    target_hash: str
    clique_hashes: Mapping[str, str]
    progress: UpdateProgress | None
    wake_at: float | None = None
    is_awaited: bool = False


def strategy_of(owner: PodCliqueSet) -> UpdateStrategy:
    """Return the strategy of a set; sets without one roll."""
    return owner.spec.update_strategy or _DEFAULT_STRATEGY


def update_order(owner: PodCliqueSet, copy: int) -> UpdateOrder | None:
    """Return whether *copy* takes the current template in this pass, and how; None if it stays as it is."""
    strategy = strategy_of(owner)
    progress = owner.status.update_progress
    if owner.paused_at is not None:
        return None
    changed = frozenset(progress.changed) if progress is not None else frozenset()
    order = UpdateOrder(strategy=strategy.type or ROLLING_RECREATE, changed=changed, budget=strategy.rolling_update)
    if strategy.type == ON_DELETE:
        return order
    if progress is None or owner.status.current_generation_hash != owner.revision.hash:
        return None
    return order if any(turn.replica_index == copy for turn in progress.currently_updating) else None


def turns(owner: PodCliqueSet) -> frozenset[int]:
    """Return the copies that may replace pods now."""
    progress = owner.status.update_progress
    if progress is None:
        return frozenset()
    found = frozenset(turn.replica_index for turn in progress.currently_updating)
    return frozenset(copy for copy in found if update_order(owner, copy) is not None)


def advance(owner: PodCliqueSet, totals: CopyTotals, *, now: float, settle_s: float = SETTLE_S) -> Advance:
    """Return where the update stands now; *totals* are those of all copies, of those beyond the size too."""
    status, revision = owner.status, owner.revision
    wanted = owner.spec.replicas or 0
    held = Advance(
        target_hash=status.current_generation_hash or revision.hash,
        clique_hashes=status.current_clique_hashes or revision.clique_hashes,
        progress=status.update_progress,
    )
    progress = held.progress
    is_new = held.target_hash != revision.hash
    begins = is_new or (not (progress and progress.is_active) and _falls_behind(owner, totals))
    held = replace(held, is_awaited=begins)
    is_known = totals.are_all_at(revision.hash, wanted)
    if not is_known or owner.metadata.deleted_at is not None or owner.paused_at is not None:
        return held
    if begins:
        quiet_at = owner.revised_at + settle_s
        # A clock that was set back must not make anybody wait for longer than it takes to settle.
        if now < quiet_at <= now + settle_s and totals.within(wanted).placed:
            return replace(held, wake_at=quiet_at)
        progress = _begun(owner, held, now)
    if progress is not None and progress.is_active:
        progress = _gone_on(owner, progress, totals, now)
    if progress is not None:
        progress = _counted(owner, progress, totals.within(wanted), now)
    return Advance(target_hash=revision.hash, clique_hashes=revision.clique_hashes, progress=progress)


def _falls_behind(owner: PodCliqueSet, totals: CopyTotals) -> bool:
    """Return whether a copy has anything old though no update goes on.

    It was wanted again while it was being taken down, for instance, or OnDelete left its pods to somebody who deletes
    them, and the strategy is another now.
    """
    if strategy_of(owner).type == ON_DELETE:
        return False
    wanted = owner.spec.replicas or 0
    return any(copy < wanted for copy in totals.old)


def _begun(owner: PodCliqueSet, held: Advance, now: float) -> UpdateProgress:
    old, new, last = held.clique_hashes, owner.revision.clique_hashes, held.progress
    is_on_delete = strategy_of(owner).type == ON_DELETE
    running = last if last is not None and last.is_active else None
    changed = {clique for clique, hash_ in new.items() if old.get(clique) != hash_}
    if last is not None and (not changed or running is not None or (is_on_delete and not _is_complete(last))):
        # What an update under way has changed, or OnDelete has left to be deleted, is still to be replaced.
        changed |= set(last.changed)
    return UpdateProgress(
        update_started_at=now,
        update_ended_at=now if is_on_delete else None,
        changed=tuple(sorted(changed & set(new) or set(new))),
        # Whoever had a turn keeps it: it is in pieces already, and another would be taken apart beside it.
        currently_updating=running.currently_updating if running is not None and not is_on_delete else (),
        progressed_at=now,
    )


def _is_complete(progress: UpdateProgress) -> bool:
    """Return whether everything was of the new revision when it was last counted."""
    return (
        progress.updated_pod_cliques_count >= progress.total_pod_cliques_count
        and progress.updated_pod_clique_scaling_groups_count >= progress.total_pod_clique_scaling_groups_count
    )


def _gone_on(owner: PodCliqueSet, progress: UpdateProgress, totals: CopyTotals, now: float) -> UpdateProgress:
    if strategy_of(owner).type == ON_DELETE:
        return replace(progress, update_ended_at=now, currently_updating=())
    wanted = owner.spec.replicas or 0
    known = totals.copies
    current = [turn for turn in progress.currently_updating if _goes_on(turn, known, wanted)]
    having = {turn.replica_index for turn in current}
    waiting = [known[copy] for copy in totals.old if copy < wanted and copy not in having]
    current += [
        UpdatingCopy(replica_index=copy, update_started_at=now, was_placed=False)
        for copy in sorted(summary.copy for summary in waiting if not summary.is_placed)
    ]
    if not any(turn.was_placed for turn in current):
        chosen = min(((each.available, each.copy) for each in waiting if each.is_placed), default=None)
        if chosen is not None:
            current.append(UpdatingCopy(replica_index=chosen[1], update_started_at=now))
    ended = not current and totals.within(wanted).count == wanted
    return replace(progress, currently_updating=tuple(current), update_ended_at=now if ended else None)


def _goes_on(turn: UpdatingCopy, known: Mapping[int, CopySummary], wanted: int) -> bool:
    summary = known.get(turn.replica_index)
    return summary is not None and summary.copy < wanted and not is_turn_over(summary)


def is_turn_over(summary: CopySummary) -> bool:
    """Return whether a copy that has its turn is wholly of the new revision and works.

    Extra group replicas serve in place of those that start; with the turn they would go, so it lasts as long as they.
    """
    return not summary.has_old and not summary.has_surge and summary.updated and summary.available


def _counted(owner: PodCliqueSet, progress: UpdateProgress, sums: CopySums, now: float) -> UpdateProgress:
    reached = sums.reached
    template, copies = owner.spec.template, owner.spec.replicas or 0
    members = {name for group in template.pod_clique_scaling_groups for name in group.clique_names}
    return replace(
        progress,
        updated_pod_cliques_count=sums.updated_cliques,
        total_pod_cliques_count=copies * sum(clique.name not in members for clique in template.cliques),
        updated_pod_clique_scaling_groups_count=sums.updated_groups,
        total_pod_clique_scaling_groups_count=copies * len(template.pod_clique_scaling_groups),
        # A count that fell by a crash or a scale-in has to be reached again before it is progress.
        reached=reached if not progress.is_active else max(reached, progress.reached),
        progressed_at=now if progress.is_active and reached > progress.reached else min(progress.progressed_at, now),
    )
