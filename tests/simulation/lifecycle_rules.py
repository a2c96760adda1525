"""What must hold of starts, stops, updates and sizes after every durable commit; part of ``invariants``.

Each rule is written down once more, by other code than the server's. A decision is judged by what whoever took it could
see: pods that stopped serving unseen count as serving, and a set that was edited unseen is not judged for that commit.
Failures by faults are not counted against anybody: only pods that the workload loop itself stops are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from grove_server.lifecycle.removal import StopReason
from grove_server.resources.labels import STUCK_TERMINATING_POLICY, STUCK_WAIT
from grove_server.resources.manifest import COHERENT, ON_DELETE, RollingUpdate, UnitBudget
from grove_server.resources.meta import Key, Kind, Resource, find_condition
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    ScaleOwner,
)
from tests.simulation.books import FINISHED, Books, CopyKey, drain_timeout_s
from tests.simulation.routers import Fleet

Previous = Mapping[Key, Resource | None]

_BY_BUDGET: Final = (StopReason.UPDATE, StopReason.NODE_DRAINED)
_BREACHED: Final = "MinAvailableBreached"


@dataclass(slots=True)
class Pass:
    """What one commit of the workload loop did to one copy. ``seen`` is the version that it surely rested on."""

    books: Books
    copy: CopyKey
    owner: PodCliqueSet | None
    previous: Previous
    seen: int
    first: int
    # Pods that were active and are not any more, as they are now, with whether they served.
    stopped: list[tuple[Pod, bool]] = field(default_factory=list)
    made: list[Pod] = field(default_factory=list)

    @property
    def is_judged(self) -> bool:
        """Whether what the set says is what the pass saw of it."""
        return not self.books.was_edited(self.copy[0], self.seen, self.first)

    def unseen(self) -> Counter[str]:
        """Return how many pods of each clique stopped serving before this commit and after the pass looked."""
        lost = self.books.stopped_serving(self.copy, self.seen, self.first)
        return Counter(pod.identity.name for pod in lost)

    def pods(self) -> list[Pod]:
        """Return the active pods of the copy as they are now."""
        return [pod for pod in self.books.pods_of_copy.get(self.copy, {}).values() if pod.is_active]

    def scalable(self) -> Iterator[PodClique | PodCliqueScalingGroup]:
        """Yield the cliques and groups of the copy."""
        for key in self.books.scalable.get(self.copy[0], {}):
            row = self.books.rows[key]
            if (isinstance(row, PodClique) and row.identity.copy == self.copy[1]) or (
                isinstance(row, PodCliqueScalingGroup) and row.copy == self.copy[1]
            ):
                yield row


def check_pass(
    books: Books, previous: Previous, seen: int, first: int, decided_at_s: float, fleet: Fleet
) -> Iterator[str]:
    """Yield what is wrong about a commit of the workload loop.

    It was decided on version *seen*, and its own first change has version *first*.
    """
    passes: dict[CopyKey, Pass] = {}
    for key, before in previous.items():
        after = books.rows.get(key)
        if key.kind in (Kind.POD_CLIQUE, Kind.POD_CLIQUE_SCALING_GROUP):
            yield from check_size(books, before, after, seen, first)
        if key.kind is not Kind.POD:
            continue
        pod = after if isinstance(after, Pod) else before
        assert isinstance(pod, Pod)
        copy = (pod.identity.set_uid, pod.identity.copy)
        here = passes.get(copy)
        if here is None:
            owner = books.set_of(copy[0])
            here = passes[copy] = Pass(books, copy, owner, previous, seen, first)
        yield from _sort_in(here, before, after, decided_at_s, fleet)
    for here in passes.values():
        yield from check_release(here)
        if here.stopped:
            yield from check_stops(here)
            yield from check_budgets(here)
        if here.owner is not None and (here.stopped or here.made):
            yield from check_ratio(here, here.owner)


def _sort_in(
    here: Pass, before: Resource | None, after: Resource | None, decided_at_s: float, fleet: Fleet
) -> Iterator[str]:
    if isinstance(before, Pod) and before.is_active and not (isinstance(after, Pod) and after.is_active):
        here.stopped.append((after if isinstance(after, Pod) else before, before.is_ready))
    if before is None and isinstance(after, Pod):
        here.made.append(after)
    if isinstance(before, Pod) and isinstance(after, Pod):
        yield from check_drain(here, before, after, decided_at_s, fleet)
    if isinstance(before, Pod) and after is None and before.node:
        yield from check_removed(here, before)


# Starts.


def check_start(before: Resource | None, pod: Pod) -> Iterator[str]:
    """Containers of a pod whose clique starts after others start only when it was released, each time anew."""
    if not pod.is_ordered or pod.started_at is None:
        return
    name = pod.metadata.name
    was = before if isinstance(before, Pod) and before.metadata.uid == pod.metadata.uid else None
    if was is not None and was.started_at == pod.started_at:
        return
    if pod.released_at is None:
        yield f"{name} started while it was held back"
    if was is not None and was.started_at is not None:
        yield f"{name} started again without asking whether its parents serve"


def check_release(here: Pass) -> Iterator[str]:
    """A pod is released only when every clique that it starts after has its minimum ready."""
    released = [
        pod
        for key, before in here.previous.items()
        if isinstance(pod := here.books.rows.get(key), Pod)
        and pod.is_ordered
        and pod.released_at is not None
        and not (isinstance(before, Pod) and before.released_at is not None)
    ]
    if not released or not here.is_judged:
        return
    counts = Counter(pod.identity.name for pod in here.pods() if pod.is_ready) + here.unseen()
    for name in sorted({pod.identity.name for pod in released}):
        clique = here.books.rows.get(Key(Kind.POD_CLIQUE, released[0].metadata.namespace, name))
        for row in awaited(here.books, clique) if isinstance(clique, PodClique) else ():
            parent = row.metadata.name
            if not _is_leaving(here.books, row) and counts[parent] < min(row.min_available, row.replicas):
                yield f"pods of {name} may start although {parent} has {counts[parent]} of {row.min_available} ready"


def awaited(books: Books, clique: PodClique) -> list[PodClique]:
    """Return the cliques that *clique* starts after; whoever starts after an empty one starts after its parents."""
    found: dict[str, PodClique] = {}
    names = list(clique.starts_after)
    for name in names:
        row = books.rows.get(Key(Kind.POD_CLIQUE, clique.metadata.namespace, name))
        if isinstance(row, PodClique) and name not in found:
            found[name] = row
            names += row.starts_after if not row.replicas else ()
    return list(found.values())


def _is_leaving(books: Books, clique: PodClique) -> bool:
    """Return whether a clique is of a group replica that is not wanted any more: nobody waits for it."""
    identity = clique.identity
    group = books.rows.get(Key(Kind.POD_CLIQUE_SCALING_GROUP, clique.metadata.namespace, identity.group_name))
    return isinstance(group, PodCliqueScalingGroup) and identity.group_replica >= group.replicas


# Stops.


def check_stops(here: Pass) -> Iterator[str]:
    """Each reason for a stop is true, and what serves goes last."""
    for pod, _ in here.stopped:
        reason, name = pod.stop_reason, pod.metadata.name
        if reason == StopReason.REPLACED and pod.phase not in FINISHED:
            yield f"{name} is replaced in phase {pod.phase}"
        if reason == StopReason.RECYCLED and not _is_broken(here):
            yield f"{name} is recycled and nothing in copy {here.copy[1]} was broken"
    owner = here.owner
    if owner is None or not here.is_judged:
        return
    updated = [pod for pod, _ in here.stopped if pod.stop_reason == StopReason.UPDATE]
    if updated and owner.paused_at is not None:
        yield f"{updated[0].metadata.name} is updated while {owner.metadata.name} rests"
    strategy = owner.spec.update_strategy
    if updated and strategy is not None and strategy.type == ON_DELETE:
        yield f"{updated[0].metadata.name} is updated, and {owner.metadata.name} updates on delete"
    progress = owner.status.update_progress
    having = {turn.replica_index for turn in progress.currently_updating} if progress is not None else set()
    if updated and here.copy[1] not in having:
        yield f"{updated[0].metadata.name} is updated, and copy {here.copy[1]} does not have its turn"
    if any(pod.stop_reason == StopReason.RECYCLED for pod, _ in here.stopped) and _is_never_recycled(owner):
        yield f"copy {here.copy[1]} of {owner.metadata.name} is recycled, which was switched off"
    for name in sorted(
        {p.identity.name for p, ready in here.stopped if ready and p.stop_reason == StopReason.SCALE_IN}
    ):
        idle = [
            p for p in here.pods() if p.identity.name == name and not p.is_ready and p.resource_version <= here.seen
        ]
        if idle:
            yield f"scale-in takes pods of {name} that serve and leaves {idle[0].metadata.name}, which does not"


def _is_broken(here: Pass) -> bool:
    """Return whether a clique or group of the copy was below its minimum before this commit, or fell below in it."""
    for key, now in ((key, here.books.rows.get(key)) for key in here.books.scalable.get(here.copy[0], {})):
        for row in (here.previous.get(key), now):
            if isinstance(row, PodClique | PodCliqueScalingGroup):
                found = find_condition(row.status.conditions, _BREACHED)
                if found is not None and found.status == "True":
                    return True
    return False


def _is_never_recycled(owner: PodCliqueSet) -> bool:
    template = owner.spec.template
    own = [group.termination_delay for group in template.pod_clique_scaling_groups]
    return all((delay or template.termination_delay) == "never" for delay in (None, *own))


def check_drain(here: Pass, before: Pod, after: Pod, decided_at_s: float, fleet: Fleet) -> Iterator[str]:
    """A pod that serves is stopped only when all routers that surely live have left it, or at its deadline."""
    if before.is_terminating or not after.is_terminating or not before.is_ready:
        return
    waited = set(fleet.surely_alive(before, decided_at_s)) - set(before.drain_acks)
    if not waited:
        return
    deleted_at = after.metadata.deleted_at or 0.0
    if before.draining_at is not None:
        if before.drain_deadline is not None and deleted_at < before.drain_deadline:
            yield f"{before.metadata.name} is stopped before {sorted(waited)} left it and before its deadline"
    elif here.is_judged and (here.owner is None or drain_timeout_s(here.owner) > 0):
        yield f"{before.metadata.name} serves {sorted(waited)} and is stopped without a drain"


def check_removed(here: Pass, pod: Pod) -> Iterator[str]:
    """The row of a pod with a node goes only when its node cannot say that it stopped, and the set allows it."""
    node = here.books.nodes.get(pod.node)
    if node is not None and node.resource_version > here.seen:
        return
    if not pod.is_terminating or node is None or node.ready:
        yield f"the row of {pod.metadata.name} is removed, node {pod.node} could tell of its end"
    owner = here.owner
    if owner is not None and here.is_judged and owner.metadata.annotations.get(STUCK_TERMINATING_POLICY) == STUCK_WAIT:
        yield f"the row of {pod.metadata.name} is removed, and its set waits for stuck pods"


# Budgets.


def check_budgets(here: Pass) -> Iterator[str]:
    """Updates and drains of nodes take what serves only while enough others do."""
    taken = [pod for pod, served in here.stopped if served and pod.stop_reason in _BY_BUDGET]
    if not taken or here.owner is None or not here.is_judged:
        return
    lost = Counter(pod.identity.name for pod in taken)
    ready = Counter(pod.identity.name for pod in here.pods() if pod.is_ready) + here.unseen()
    spec = here.owner.spec
    rows = list(here.scalable())
    reasons = {pod.stop_reason for pod in taken}
    for row in rows:
        if isinstance(row, PodClique) and not row.identity.group and lost[row.metadata.name]:
            template = spec.template.clique(row.identity.clique)
            own = None if template is None else template.rolling_update
            allowed = _missing_max(here.owner, own, row.replicas, row.min_available, reasons)
            if ready[row.metadata.name] < row.replicas - allowed:
                yield f"{sorted(reasons)} leaves {ready[row.metadata.name]} of {row.replicas} of {row.metadata.name}"
        elif isinstance(row, PodCliqueScalingGroup):
            members = [each for each in rows if isinstance(each, PodClique) and each.identity.group == row.group]
            after = _whole(members, ready)
            if after == _whole(members, ready + lost):
                continue
            own = next(g for g in spec.template.pod_clique_scaling_groups if g.name == row.group).rolling_update
            allowed = _missing_max(here.owner, own, row.replicas, row.min_available, reasons)
            if after < row.replicas - allowed:
                yield f"{sorted(reasons)} leaves {after} of {row.replicas} replicas of {row.metadata.name}"


def _whole(members: Sequence[PodClique], ready: Counter[str]) -> int:
    """Return how many replicas of a group have the minimum of every clique."""
    fine: dict[int, bool] = {}
    for clique in members:
        j = clique.identity.group_replica
        serving = ready[clique.metadata.name] >= min(clique.min_available, clique.replicas)
        fine[j] = fine.get(j, True) and serving
    return sum(fine.values())


def _missing_max(owner: PodCliqueSet, own: UnitBudget | None, size: int, minimum: int, reasons: set[str]) -> int:
    """Return how many units may be missing while some are taken for *reasons*."""
    strategy = owner.spec.update_strategy
    common = None if strategy is None else strategy.rolling_update
    missing, added = _given(own, common)
    drained = 0
    if StopReason.NODE_DRAINED in reasons:
        drained = 1 if missing is None else max(1, _units(missing, size))
    if StopReason.UPDATE not in reasons:
        return drained
    if strategy is not None and strategy.type == COHERENT:
        return max(drained, minimum, 1, minimum if missing is None else _units(missing, size))
    updated = 1 if missing is None else _units(missing, size)
    return max(drained, updated if updated or (added is not None and added not in (0, "0%")) else 1)


def _given(own: UnitBudget | None, common: RollingUpdate | None) -> tuple[int | str | None, int | str | None]:
    sources = [each for each in (own, common) if each is not None]
    missing = next((each.max_unavailable for each in sources if each.max_unavailable is not None), None)
    added = next((each.max_surge for each in sources if each.max_surge is not None), None)
    return missing, added


def _units(value: int | str, size: int) -> int:
    return value if isinstance(value, int) else size * int(value[:-1]) // 100


# Coherent.


def check_ratio(here: Pass, owner: PodCliqueSet) -> Iterator[str]:
    """Under Coherent no part of a copy gets more new units than the step has which the copy is at."""
    strategy, progress = owner.spec.update_strategy, owner.status.update_progress
    if strategy is None or strategy.type != COHERENT or progress is None or not progress.is_active:
        return
    if owner.status.current_generation_hash != owner.revision.hash or owner.paused_at is not None:
        return
    if owner.metadata.deleted_at is not None or here.copy[1] >= (owner.spec.replicas or 0):
        return
    if not here.is_judged or here.copy[1] not in {turn.replica_index for turn in progress.currently_updating}:
        return
    parts = [*_parts(here, owner)]
    steps = min((part.size // max(1, part.minimum) for part in parts), default=0)
    if steps < 1:
        return
    at = max(part.step(part.before, steps) for part in parts)
    if all(part.before >= at * part.target(steps) for part in parts):
        at += 1
    if at > steps:
        return
    for part in parts:
        # Where nothing is old any more, nobody knows what the old revision was.
        if part.has_old and part.after > max(part.before, at * part.target(steps)):
            yield (
                f"{part.name} has {part.after} new units of {part.size} in step {at} of {steps}: "
                f"{[(each.name, each.before, each.after, each.size, each.minimum) for each in parts]}"
            )


@dataclass(slots=True, kw_only=True)
class _Part:
    """A changed clique or group of a copy: its new units before and after a commit."""

    name: str
    size: int
    minimum: int
    before: int = 0
    after: int = 0
    has_old: bool = True

    def target(self, steps: int) -> int:
        """Return the units of one step."""
        return self.minimum + (self.size - steps * self.minimum) // steps

    def step(self, count: int, steps: int) -> int:
        """Return the step that *count* new units are in; what is left over comes after the last."""
        return -(-min(count, self.size) // max(1, self.target(steps)))


def _parts(here: Pass, owner: PodCliqueSet) -> Iterator[_Part]:
    progress = owner.status.update_progress
    changed = set(progress.changed) if progress is not None else set()
    now = here.pods()
    made = {pod.metadata.name for pod in here.made}
    then = [pod for pod in now if pod.metadata.name not in made] + [pod for pod, _ in here.stopped]
    lost = here.books.stopped_serving(here.copy, here.seen, here.first)
    then += lost
    there = [*then, *(pod for pod in here.books.pods_of_copy.get(here.copy, {}).values() if not pod.is_active)]
    for row in here.scalable():
        if not row.replicas:
            continue
        if isinstance(row, PodClique) and not row.identity.group:
            has_old = any(_is_old(here.books, owner, p) for p in there if p.identity.name == row.metadata.name)
            if row.identity.clique in changed or has_old:
                yield _Part(
                    name=row.metadata.name,
                    size=row.replicas,
                    minimum=row.min_available,
                    before=sum(_is_new(here.books, owner, p, row.metadata.name) for p in then),
                    after=sum(_is_new(here.books, owner, p, row.metadata.name) for p in now),
                    has_old=has_old,
                )
        elif isinstance(row, PodCliqueScalingGroup):
            if not any(pod.identity.group == row.group for pod in then):
                # Replicas without pods have no part in the ratio.
                continue
            has_old = any(_is_old(here.books, owner, p) for p in there if p.identity.group == row.group)
            has_old = has_old or any(_is_old(here.books, owner, clique) for clique in _cliques_then(here, row))
            if changed & set(row.clique_names) or has_old:
                yield _Part(
                    name=row.metadata.name,
                    size=row.replicas,
                    minimum=row.min_available,
                    before=_new_replicas(here, owner, then, row, is_now=False),
                    after=_new_replicas(here, owner, now, row, is_now=True),
                    has_old=has_old,
                )


def _is_old(books: Books, owner: PodCliqueSet, user: Pod | PodClique) -> bool:
    """Return whether a pod or clique has to be replaced to run what its set says now."""
    clique, namespace = user.identity.clique, user.metadata.namespace
    current = owner.revision.clique_hashes.get(clique, "")
    if user.template.hash == current:
        return False
    wanted = books.restart_hashes.get((namespace, clique, current))
    running = books.restart_hashes.get((namespace, clique, user.template.hash))
    return wanted is None or running != wanted


def _is_new(books: Books, owner: PodCliqueSet, pod: Pod, name: str) -> bool:
    return pod.identity.name == name and not _is_old(books, owner, pod)


def _cliques_then(here: Pass, group: PodCliqueScalingGroup) -> Iterator[PodClique]:
    """Yield the cliques of a group as they were before the commit."""
    for key in here.books.scalable.get(here.copy[0], {}):
        row = here.previous.get(key, here.books.rows[key])
        if isinstance(row, PodClique) and (row.identity.copy, row.identity.group) == (group.copy, group.group):
            yield row


def _new_replicas(
    here: Pass, owner: PodCliqueSet, pods: Sequence[Pod], group: PodCliqueScalingGroup, *, is_now: bool
) -> int:
    """Return how many replicas of a group, within its size, are new: their cliques, and all pods that they have."""
    fine: dict[int, bool] = {}
    rows = (row for row in here.scalable() if isinstance(row, PodClique) and row.identity.group == group.group)
    for row in rows if is_now else _cliques_then(here, group):
        j = row.identity.group_replica
        fine[j] = fine.get(j, True) and not _is_old(here.books, owner, row)
    for pod in pods:
        if pod.identity.group == group.group:
            j = pod.identity.group_replica
            fine[j] = fine.get(j, True) and not _is_old(here.books, owner, pod)
    return sum(is_fine for j, is_fine in fine.items() if j < group.replicas)


# Sizes.


def check_size(books: Books, before: Resource | None, after: Resource | None, seen: int, first: int) -> Iterator[str]:
    """A live size stays, whatever is recycled or replaced, until somebody sets it or edits the template's."""
    if not isinstance(before, PodClique | PodCliqueScalingGroup):
        return
    name = before.metadata.name
    if isinstance(after, PodClique | PodCliqueScalingGroup):
        if after.replicas != before.replicas and after.template_replicas == before.template_replicas:
            yield f"{name} went from size {before.replicas} to {after.replicas}, and its template did not change"
        if after.replicas != before.replicas and before.scale_owner is ScaleOwner.AUTOSCALER:
            yield f"{name} went from size {before.replicas} to {after.replicas}, which an autoscaler owns"
        return
    set_uid = before.identity.set_uid if isinstance(before, PodClique) else before.set_uid
    copy = before.identity.copy if isinstance(before, PodClique) else before.copy
    owner = books.set_of(set_uid)
    if owner is None or owner.metadata.deleted_at is not None or copy >= (owner.spec.replicas or 0):
        return
    if books.was_edited(set_uid, seen, first):
        return
    if isinstance(before, PodCliqueScalingGroup) or not before.identity.group:
        yield f"{name} of copy {copy} was removed, and the copy is wanted"
        return
    group = books.rows.get(Key(Kind.POD_CLIQUE_SCALING_GROUP, before.metadata.namespace, before.identity.group_name))
    if isinstance(group, PodCliqueScalingGroup) and before.identity.group_replica < group.replicas:
        yield f"{name} was removed, and its group has size {group.replicas}"
