"""What the tree under one set must be once all is calm: every clique and group, its size, its pods and its status."""

from __future__ import annotations

from collections.abc import Iterator

from grove_server.resources.manifest import ON_DELETE, ScalingGroupTemplate
from grove_server.resources.meta import Key, Kind, find_condition
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodCliqueSet, ScaleOwner
from tests.simulation.books import Books


def tree_differences(books: Books, owner: PodCliqueSet) -> Iterator[str]:
    """Yield where the tree under *owner* is not as it should be; nothing may be missing and nothing too much."""
    name, status, copies = owner.metadata.name, owner.status, owner.spec.replicas or 0
    wanted = {each for copy in range(copies) for each in _names(books, owner, copy)}
    there = {key.name for key in books.scalable.get(owner.metadata.uid, {})}
    is_held_up = _is_held_up(books, owner)
    # Replicas that an update adds stay as long as it waits.
    added = {name for name in there - wanted if is_held_up and _is_surge(books, owner, name)}
    if there - added != wanted:
        yield f"set {name} lacks {sorted(wanted - there)} and has {sorted(there - wanted)} too many"
        return
    for key in books.scalable.get(owner.metadata.uid, {}):
        row = books.rows[key]
        if isinstance(row, PodClique):
            yield from _clique(books, row, owner)
        elif isinstance(row, PodCliqueScalingGroup):
            yield from _group(books, row, owner)
    available = sum(_is_copy_available(books, owner, copy) for copy in range(copies))
    if (status.replicas, status.available_replicas) != (copies, available):
        yield f"set {name} claims {status.available_replicas} available copies, {available} are"
    if status.observed_generation != owner.metadata.generation:
        yield f"set {name} is at generation {owner.metadata.generation}, seen was {status.observed_generation}"


def _standalone(owner: PodCliqueSet, copy: int) -> list[str]:
    template = owner.spec.template
    members = {name for group in template.pod_clique_scaling_groups for name in group.clique_names}
    return [f"{owner.metadata.name}-{copy}-{each.name}" for each in template.cliques if each.name not in members]


def _find_group(books: Books, owner: PodCliqueSet, copy: int, name: str) -> PodCliqueScalingGroup | None:
    key = Key(Kind.POD_CLIQUE_SCALING_GROUP, owner.metadata.namespace, f"{owner.metadata.name}-{copy}-{name}")
    found = books.rows.get(key)
    return found if isinstance(found, PodCliqueScalingGroup) else None


def _members(group: PodCliqueScalingGroup, replica: int) -> list[str]:
    return [f"{group.metadata.name}-{replica}-{clique}" for clique in group.clique_names]


def _names(books: Books, owner: PodCliqueSet, copy: int) -> Iterator[str]:
    """Yield the names of the cliques and groups that a copy should have."""
    yield from _standalone(owner, copy)
    for template in owner.spec.template.pod_clique_scaling_groups:
        yield f"{owner.metadata.name}-{copy}-{template.name}"
        group = _find_group(books, owner, copy, template.name)
        for replica in range(0 if group is None else group.replicas):
            yield from _members(group, replica) if group is not None else ()


def _is_copy_available(books: Books, owner: PodCliqueSet, copy: int) -> bool:
    namespace = owner.metadata.namespace
    groups = [_find_group(books, owner, copy, each.name) for each in owner.spec.template.pod_clique_scaling_groups]
    return all(_is_available(books, namespace, name) for name in _standalone(owner, copy)) and all(
        group is not None and _whole(books, group) >= min(group.min_available, group.replicas) for group in groups
    )


def _whole(books: Books, group: PodCliqueScalingGroup) -> int:
    """Return how many replicas of a group serve with all their cliques."""
    namespace = group.metadata.namespace
    return sum(
        all(_is_available(books, namespace, name) for name in _members(group, replica))
        for replica in range(_there(books, group))
    )


def _there(books: Books, group: PodCliqueScalingGroup) -> int:
    """Return how many replicas of a group there are, those that an update adds included."""
    found = group.replicas
    namespace = group.metadata.namespace
    while found and Key(Kind.POD_CLIQUE, namespace, _members(group, found)[0]) in books.rows:
        found += 1
    return found


def _is_surge(books: Books, owner: PodCliqueSet, name: str) -> bool:
    clique = books.rows.get(Key(Kind.POD_CLIQUE, owner.metadata.namespace, name))
    if not isinstance(clique, PodClique) or not clique.identity.group:
        return False
    group = _find_group(books, owner, clique.identity.copy, clique.identity.group)
    return group is not None and group.replicas > 0


def _group(books: Books, group: PodCliqueScalingGroup, owner: PodCliqueSet) -> Iterator[str]:
    name, status = group.metadata.name, group.status
    template = _template_of(owner, group)
    if group.scale_owner is ScaleOwner.SPEC and group.replicas != template.replicas:
        yield f"group {name} has size {group.replicas}, its template says {template.replicas}"
    whole = _whole(books, group)
    if (status.available_replicas, status.replicas) != (whole, _there(books, group)):
        yield f"group {name} claims {status.available_replicas} of {status.replicas}, true is {whole}"


def _template_of(owner: PodCliqueSet, group: PodCliqueScalingGroup) -> ScalingGroupTemplate:
    return next(each for each in owner.spec.template.pod_clique_scaling_groups if each.name == group.group)


def _clique(books: Books, clique: PodClique, owner: PodCliqueSet) -> Iterator[str]:
    name = clique.metadata.name
    template = owner.spec.template.clique(clique.identity.clique)
    assert template is not None, "a clique has a template"
    if clique.scale_owner is ScaleOwner.SPEC and clique.replicas != template.spec.replicas:
        yield f"clique {name} has size {clique.replicas}, its template says {template.spec.replicas}"
    current = owner.revision.clique_hashes[clique.identity.clique]
    if clique.template.hash != current and not _is_held_up(books, owner):
        yield f"clique {name} is of revision {clique.template.hash}"
    pods = _pods_of(books, clique)
    strategy = owner.spec.update_strategy
    is_left_alone = owner.paused_at is not None or (strategy is not None and strategy.type == ON_DELETE)
    old = [pod.metadata.name for pod in pods if pod.template.hash != current]
    if old and not is_left_alone and not _is_held_up(books, owner):
        yield f"pods {old} of clique {name} are not of its revision"
    if len(pods) < clique.replicas or (len(pods) > clique.replicas and not _is_held_up(books, owner)):
        yield f"clique {name} of size {clique.replicas} has {len(pods)} pods"
    status = clique.status
    counts = (
        len(pods),
        sum(1 for pod in pods if pod.node),
        sum(1 for pod in pods if pod.is_ready),
        sum(1 for pod in pods if pod.template.hash == current),
        sum(1 for pod in pods if not pod.node),
        0,
    )
    claims = (
        status.replicas,
        status.scheduled_replicas,
        status.ready_replicas,
        status.updated_replicas,
        status.schedule_gated_replicas,
        status.terminating_replicas,
    )
    if claims != counts:
        yield f"clique {name} claims {claims}, true is {counts}"
    if status.observed_generation != clique.metadata.generation:
        yield f"clique {name} is at generation {clique.metadata.generation}, seen was {status.observed_generation}"
    scheduled = find_condition(status.conditions, "PodCliqueScheduled")
    is_scheduled = counts[1] >= min(clique.min_available, clique.replicas)
    if scheduled is None or (scheduled.status == "True") != is_scheduled:
        yield f"clique {name} says of being scheduled {scheduled}"


def _is_held_up(books: Books, owner: PodCliqueSet) -> bool:
    """Return whether an update waits for room: new pods have no node, and no old one may go before they serve.

    That there is no room for them is looked at elsewhere.
    """
    progress = owner.status.update_progress
    rows = (books.rows[key] for key in books.scalable.get(owner.metadata.uid, {}))
    pods = (pod for row in rows if isinstance(row, PodClique) for pod in _pods_of(books, row))
    return progress is not None and progress.is_active and any(not pod.node for pod in pods)


def _pods_of(books: Books, clique: PodClique) -> list[Pod]:
    namespace = clique.metadata.namespace
    of_gang = books.pods_of_gang.get((namespace, clique.identity.gang), {}).values()
    return [pod for pod in of_gang if pod.identity.name == clique.metadata.name]


def _is_available(books: Books, namespace: str, name: str) -> bool:
    clique = books.rows.get(Key(Kind.POD_CLIQUE, namespace, name))
    if not isinstance(clique, PodClique):
        return False
    ready = sum(1 for pod in _pods_of(books, clique) if pod.is_active and pod.is_ready)
    return ready >= min(clique.min_available, clique.replicas)
