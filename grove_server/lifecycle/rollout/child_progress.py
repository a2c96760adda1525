"""How far the update of one clique or group is, as Grove publishes it in their statuses.

A clique or group is *at* a revision of its set when all its pods run it; ``current_set_hash`` says which. Its own
update begins when its copy has its turn and ends when all is new and the minimum serves; what an update does not
change begins and ends at once. Under OnDelete it is over when it begins, and the hash follows with the last pod.
Selected are ready pods, or group replicas that serve, which the update stopped: what does not serve is no choice.

Members of a group have no progress of their own, since a group replica goes as a whole. Whose turn it is, and what is
stopped, is not decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from grove_server.lifecycle.availability import PodCounts
from grove_server.lifecycle.copy import CliqueState
from grove_server.resources.labels import SET_REVISION
from grove_server.resources.replacing import replace
from grove_server.resources.rollout import CliqueUpdate, GroupUpdate
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup

# Grove lists all that were replaced; a status that grows with the size of a clique would make each write dearer.
COMPLETED_MAX: Final = 64


def with_clique_progress(
    clique: PodClique,
    pods: Sequence[Pod],
    counts: PodCounts,
    *,
    selected: Sequence[str],
    present: Collection[str],
    is_over_at_once: bool,
    now: float,
) -> PodClique:
    """Return *clique* with its update's progress and the hashes that all of its pods have.

    *pods* and *counts* are those after the plan; *selected* are ready pods that it stops for the update, *present* all
    pods that still have a row.
    """
    status = clique.status
    set_hash, template_hash = clique.metadata.labels.get(SET_REVISION, ""), clique.template.hash
    old = status.update_progress
    is_at_it = (status.current_set_hash, status.current_pod_template_hash) == (set_hash, template_hash)
    if is_at_it and (old is None or old.update_ended_at is not None):
        return clique
    runs_it = clique.replicas <= len(pods) and all(pod.template.hash == template_hash for pod in pods)
    progress = None
    if not clique.identity.group and status.current_set_hash:
        progress = old
        if progress is None or (progress.set_hash, progress.template_hash) != (set_hash, template_hash):
            ended_at = now if is_over_at_once else None
            progress = CliqueUpdate(
                update_started_at=now, update_ended_at=ended_at, set_hash=set_hash, template_hash=template_hash
            )
        progress = _gone_on(progress, counts.updated_ready, selected, present)
        serves = counts.ready >= min(clique.min_available, clique.replicas)
        if progress.update_ended_at is None and runs_it and serves:
            progress = replace(_completed(progress, len(progress.selected)), update_ended_at=now)
    is_done = runs_it and (progress is None or progress.update_ended_at is not None)
    changed = replace(
        status,
        update_progress=progress,
        current_set_hash=set_hash if is_done else status.current_set_hash,
        current_pod_template_hash=template_hash if is_done else status.current_pod_template_hash,
    )
    return clique if changed == status else replace(clique, status=changed)


def _gone_on(progress: CliqueUpdate, new_ready: int, selected: Sequence[str], present: Collection[str]) -> CliqueUpdate:
    """Return *progress* with pods *selected* added, and with those completed that are gone and replaced."""
    if selected:
        progress = replace(progress, selected=(*progress.selected, *selected))
    done = 0
    for name in progress.selected:
        if name in present or progress.completed_count + done >= new_ready:
            break
        done += 1
    return _completed(progress, done)


def _completed(progress: CliqueUpdate, count: int) -> CliqueUpdate:
    if not count:
        return progress
    return replace(
        progress,
        selected=progress.selected[count:],
        completed=(*progress.completed, *progress.selected[:count])[-COMPLETED_MAX:],
        completed_count=progress.completed_count + count,
    )


def with_group_progress(
    group: PodCliqueScalingGroup,
    replicas: Mapping[int, Sequence[CliqueState]],
    set_hash: str,
    *,
    selected: Sequence[int],
    has_turn: bool,
    is_over_at_once: bool,
    now: float,
) -> PodCliqueScalingGroup:
    """Return *group* with its update's progress and the set's revision that all of it is at.

    *set_hash* is the set's revision; *selected* are replicas that served and that the update stops now.
    """
    status = group.status
    old = status.update_progress
    states = [state for of_replica in replicas.values() for state in of_replica]
    is_new = not status.current_set_hash
    is_at_it = status.current_set_hash == set_hash
    if (is_at_it and (old is None or old.update_ended_at is not None)) or not (has_turn or is_new):
        return _recounted(group, states)
    runs_it = all(s.is_updated and s.clique.metadata.labels.get(SET_REVISION) == set_hash for s in states)
    progress = None
    if not is_new:
        progress = old
        if progress is None or progress.set_hash != set_hash:
            progress = GroupUpdate(
                update_started_at=now, update_ended_at=now if is_over_at_once else None, set_hash=set_hash
            )
        done = [
            j for j, of_replica in sorted(replicas.items()) if all(s.is_updated and s.is_available for s in of_replica)
        ]
        chosen = dict.fromkeys((*progress.selected, *selected))
        going = [j for j in chosen if j not in done]
        back = [j for j in chosen if j in done]
        progress = replace(
            _counted(progress, states),
            selected=tuple(going),
            completed=(*(j for j in progress.completed if j not in chosen), *back)[-COMPLETED_MAX:],
        )
        serves = status.available_replicas >= min(group.min_available, group.replicas)
        if progress.update_ended_at is None and runs_it and serves:
            completed = (*progress.completed, *progress.selected)[-COMPLETED_MAX:]
            progress = replace(progress, update_ended_at=now, selected=(), completed=completed)
    is_done = runs_it and (progress is None or progress.update_ended_at is not None)
    changed = replace(
        status, update_progress=progress, current_set_hash=set_hash if is_done else status.current_set_hash
    )
    return group if changed == status else replace(group, status=changed)


def _recounted(group: PodCliqueScalingGroup, states: Sequence[CliqueState]) -> PodCliqueScalingGroup:
    """Return *group* with the numbers of its cliques, which follow its size when no update is under way, too."""
    old = group.status.update_progress
    if old is None:
        return group
    progress = _counted(old, states)
    return group if progress == old else replace(group, status=replace(group.status, update_progress=progress))


def _counted(progress: GroupUpdate, states: Sequence[CliqueState]) -> GroupUpdate:
    return replace(progress, updated_cliques=sum(state.is_updated for state in states), total_cliques=len(states))
