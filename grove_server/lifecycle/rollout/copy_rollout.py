"""What the update's turn means for one copy in this pass: which pods stop, what replacements are made of.

A copy has its turn when its orders say so; otherwise all of it stays at the revision it has. Inside a copy everything
moves at once (RollingRecreate) or in step (Coherent). A group replica is one unit: when it goes, all its pods go, and
its cliques take the current template; until then its replacements are made from the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from grove_server.lifecycle.blueprint import Blueprint, CliqueBlueprint, GroupBlueprint
from grove_server.lifecycle.copy import CopyView
from grove_server.lifecycle.orders import UpdateOrder
from grove_server.lifecycle.rollout.budget import Budget, budget_of
from grove_server.lifecycle.rollout.coherent import Component, Move, plan_moves
from grove_server.lifecycle.rollout.progress import strategy_of
from grove_server.lifecycle.rollout.units import Unit, UnitPlan, plan_pods, plan_replicas
from grove_server.lifecycle.victims import victim_order
from grove_server.resources.labels import SET_REVISION
from grove_server.resources.manifest import ROLLING_RECREATE
from grove_server.resources.names import member_clique, scaling_group, standalone_clique
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, ScaleOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueRollout:
    """What the update asks of one clique.

    ``stop`` are names of pods that go, ``surplus`` of those that scale-in takes because the update counts on it.
    ``surge`` is how many pods there are above the size. ``old_template``, if given, is for replacements beyond the
    ``new_target``-th pod of the new revision, and ``old_revision`` the set's revision that they belong to.
    """

    stop: frozenset[str] = frozenset()
    surplus: frozenset[str] = frozenset()
    surge: int = 0
    new_target: int = 0
    old_template: SharedTemplate | None = None
    old_revision: str = ""


_NO_LOADS: Final[Mapping[str, float]] = {}
NO_ROLLOUT: Final = CliqueRollout()


class Source(NamedTuple):
    """What new pods of a clique are made from, and the set's revision that they belong to."""

    template: SharedTemplate
    revision: str


@dataclass(slots=True, kw_only=True)
class CopyRollout:
    """What the update asks of a copy; ``surge`` is how many replicas of a group there are above its size.

    ``chosen`` are the replicas of a group that serve and go.
    """

    order: UpdateOrder | None = None
    cliques: dict[str, CliqueRollout] = field(default_factory=dict)
    surge: dict[str, int] = field(default_factory=dict)
    held: dict[str, Source] = field(default_factory=dict)
    goes_on: bool = False
    chosen: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def of(self, clique_name: str) -> CliqueRollout:
        """Return what is asked of a clique, by the name of its object."""
        return self.cliques.get(clique_name, NO_ROLLOUT)

    @property
    def is_over_at_once(self) -> bool:
        """Whether the copy takes the current template and nothing is stopped for it."""
        return self.order is not None and not self.order.rolls

    def is_updating(self, clique: str) -> bool:
        """Whether a clique, by the name of its template, is being updated here."""
        return self.order is not None and self.order.rolls and clique in self.order.changed


def is_outdated(running: SharedTemplate, template: SharedTemplate) -> bool:
    """Return whether what was made from *running* has to be replaced to run what *template* says.

    Labels and annotations alone do not ask for it.
    """
    if running.hash == template.hash:
        return False
    return not running.restart_hash or running.restart_hash != template.restart_hash


def source_of(rollout: CopyRollout, view: CopyView, name: str, clique: CliqueBlueprint, revision: str) -> Source:
    """Return what new pods of the clique called *name* are made from; *revision* is the set's present one."""
    current = Source(clique.pod_template, revision)
    if rollout.order is not None:
        return rollout.held.get(name, current)
    source = view.cliques.get(name) or _sibling(view, clique)
    if source is None:
        return current
    own = source.metadata.labels.get(SET_REVISION, "")
    # A row from before there was the label says it as soon as there is no doubt.
    return Source(source.template, own or (revision if source.template.hash == clique.pod_template.hash else ""))


def plan_rollout(
    blueprint: Blueprint, view: CopyView, order: UpdateOrder | None, loads: Mapping[str, float] = _NO_LOADS
) -> CopyRollout:
    """Return what *order* asks of the copy in this pass; *loads* are requests in flight by pod (see scale-in)."""
    rollout = CopyRollout(order=order)
    if order is None:
        _keep_surge(rollout, blueprint, view)
        return rollout
    if not order.rolls:
        _keep_standing(rollout, blueprint, view, order)
        return rollout
    parts: list[_Standalone | _Group] = [
        *_standalone_parts(blueprint, view, order, loads),
        *_group_parts(blueprint, view, order),
    ]
    moves: dict[str, Move] = {}
    if order.is_coherent:
        moves = plan_moves([part.component for part in parts if part.changed and not part.component.is_empty])
    for part in parts:
        part.plan(rollout, view, moves.get(part.component.name))
    if order.is_coherent:
        _keep_standing(rollout, blueprint, view, order)
    return rollout


def _keep_surge(rollout: CopyRollout, blueprint: Blueprint, view: CopyView) -> None:
    """Let extra replicas of a paused copy stay as long as they serve in place of others: a pause takes nothing away."""
    owner = blueprint.pod_clique_set
    progress = owner.status.update_progress
    if owner.paused_at is None or progress is None:
        return
    if all(turn.replica_index != view.copy for turn in progress.currently_updating):
        return
    strategy = strategy_of(owner)
    order = UpdateOrder(strategy=strategy.type or ROLLING_RECREATE, budget=strategy.rolling_update)
    for part in _group_parts(blueprint, view, order):
        _keep(rollout, part, part.budget.max_surge)


def _keep_standing(rollout: CopyRollout, blueprint: Blueprint, view: CopyView, order: UpdateOrder) -> None:
    """Let extra replicas of an earlier strategy, which the present one does not add, stay until the others serve.

    How many there are is what the group's status counts above its size. A size that has changed since says nothing of
    the kind: then they may as well be those that scale-in is to take.
    """
    for part in _group_parts(blueprint, view, replace(order, strategy=ROLLING_RECREATE)):
        group = view.groups.get(part.blueprint.name)
        if group is not None and group.status.observed_generation == group.metadata.generation:
            _keep(rollout, part, group.status.replicas - group.replicas)


def _keep(rollout: CopyRollout, part: _Group, surge_max: int) -> None:
    """Let at most *surge_max* replicas above the size stay, one for each below it that does not serve."""
    size = part.component.size
    units = [unit for unit in part.component.units if unit.index < size + surge_max]
    extra = max((unit.index + 1 - size for unit in units), default=0)
    lacking = size - sum(unit.is_available for unit in units if unit.index < size)
    if kept := max(0, min(extra, lacking)):
        rollout.surge[part.blueprint.name] = kept


def wanted_size(observed: PodClique | PodCliqueScalingGroup | None, template_size: int) -> int:
    """Return the size after this pass has followed an edit of the template's size."""
    if observed is None:
        return template_size
    if template_size != observed.template_replicas and observed.scale_owner is not ScaleOwner.AUTOSCALER:
        return template_size
    return observed.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standalone:
    """A standalone clique: its units are pods; ``surplus`` are those that are none, as scale-in takes them."""

    blueprint: CliqueBlueprint
    name: str
    component: Component
    budget: Budget
    changed: bool
    surplus: frozenset[str] = frozenset()

    def plan(self, rollout: CopyRollout, view: CopyView, move: Move | None) -> None:
        component = self.component
        if move is None:
            plan = plan_pods(component.units, component.size, self.budget)
            asked = CliqueRollout(stop=_names(plan), surge=plan.surge)
        else:
            old = self._newest_old(view)
            asked = CliqueRollout(
                stop=_names(move),
                surplus=self.surplus,
                new_target=move.new_target,
                old_template=old.template if old is not None else None,
                old_revision=old.metadata.labels.get(SET_REVISION, "") if old is not None else "",
            )
        if asked != NO_ROLLOUT:
            rollout.cliques[self.name] = asked

    def _newest_old(self, view: CopyView) -> Pod | None:
        """Return the newest old pod, those on their way out included."""
        old = [pod for pod in view.pods.get(self.name, ()) if is_outdated(pod.template, self.blueprint.pod_template)]
        return max(old, key=lambda pod: (pod.metadata.created_at, pod.index)) if old else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A scaling group: its units are group replicas."""

    blueprint: GroupBlueprint
    name: str
    component: Component
    budget: Budget
    changed: bool

    def plan(self, rollout: CopyRollout, view: CopyView, move: Move | None) -> None:
        component = self.component
        missing = [j for j in range(component.size) if j not in {unit.index for unit in component.units}]
        if move is None:
            plan = plan_replicas(component.units, component.size, self.budget)
            stop, held = {unit.index for unit in plan.stop}, set[int]()
            if plan.surge:
                rollout.surge[self.blueprint.name] = plan.surge
        else:
            stop = {unit.index for unit in move.stop}
            held = set(missing[max(0, move.new_target - component.new_count - len(stop)) :])
        rollout.chosen[self.blueprint.name] = tuple(
            unit.index for unit in component.units if unit.index in stop and unit.is_available
        )
        held |= {unit.index for unit in component.units if unit.is_old and unit.index not in stop}
        for replica in sorted(stop):
            found = False
            for clique in self.blueprint.cliques:
                name = member_clique(self.name, replica, clique.name)
                pods = frozenset(pod.metadata.name for pod in view.pods.get(name, ()) if pod.is_active)
                rollout.cliques[name] = CliqueRollout(stop=pods)
                found = found or bool(pods)
            rollout.goes_on = rollout.goes_on or (move is not None and not found)
        for replica in sorted(held):
            for clique in self.blueprint.cliques:
                name = member_clique(self.name, replica, clique.name)
                observed = view.cliques.get(name)
                source = observed or _sibling(view, clique)
                if source is not None:
                    rollout.held[name] = Source(source.template, source.metadata.labels.get(SET_REVISION, ""))


def _standalone_parts(
    blueprint: Blueprint, view: CopyView, order: UpdateOrder, loads: Mapping[str, float]
) -> Iterable[_Standalone]:
    set_name = blueprint.pod_clique_set.metadata.name
    for clique in blueprint.standalone:
        name = standalone_clique(set_name, view.copy, clique.name)
        size = wanted_size(view.cliques.get(name), clique.replicas)
        budget = budget_of(clique.template.rolling_update, order, size=size, minimum=clique.min_available)
        active = [pod for pod in view.pods.get(name, ()) if pod.is_active]
        changed = clique.name in order.changed or any(is_outdated(pod.template, clique.pod_template) for pod in active)
        surplus = _surplus(active, size, clique, loads) if order.is_coherent and changed else frozenset()
        units = tuple(_pod_unit(pod, clique.pod_template) for pod in active if pod.metadata.name not in surplus)
        component = _component(f"clique/{clique.name}", size, clique.min_available, budget, units)
        yield _Standalone(
            blueprint=clique, name=name, component=component, budget=budget, changed=changed, surplus=surplus
        )


def _surplus(active: list[Pod], size: int, clique: CliqueBlueprint, loads: Mapping[str, float]) -> frozenset[str]:
    """Return whom scale-in takes. A ratio can be kept only between pods that stay."""
    excess = max(0, len(active) - size)
    victims = sorted(active, key=lambda pod: victim_order(pod, clique.pod_template.hash, loads))[:excess]
    return frozenset(pod.metadata.name for pod in victims)


def _group_parts(blueprint: Blueprint, view: CopyView, order: UpdateOrder) -> Iterable[_Group]:
    set_name = blueprint.pod_clique_set.metadata.name
    for group in blueprint.groups:
        name = scaling_group(set_name, view.copy, group.name)
        size = wanted_size(view.groups.get(group.name), group.replicas)
        budget = budget_of(group.template.rolling_update, order, size=size, minimum=group.min_available)
        units = tuple(_replica_units(group, name, view, size))
        if order.is_coherent:
            # Without surge those above the size are on their way out, and no part of the ratio.
            units = tuple(unit for unit in units if unit.index < size)
        changed = any(c.name in order.changed for c in group.cliques) or any(unit.is_old for unit in units)
        component = _component(f"group/{group.name}", size, group.min_available, budget, units)
        yield _Group(blueprint=group, name=name, component=component, budget=budget, changed=changed)


def _component(name: str, size: int, minimum: int, budget: Budget, units: tuple[Unit, ...]) -> Component:
    return Component(name=name, size=size, minimum=minimum, max_unavailable=budget.max_unavailable, units=units)


def _pod_unit(pod: Pod, template: SharedTemplate) -> Unit:
    return Unit(
        name=pod.metadata.name,
        index=pod.index,
        created_at=pod.metadata.created_at,
        is_old=is_outdated(pod.template, template),
        is_available=pod.is_ready,
    )


def _replica_units(group: GroupBlueprint, group_name: str, view: CopyView, size: int) -> Iterable[Unit]:
    """Return the replicas that exist. One that is not whole, or whose pods are not all of one revision, is old."""
    first = group.cliques[0].name
    highest = size + _extra(view, group_name, first, size)
    for replica in range(highest):
        names = [member_clique(group_name, replica, clique.name) for clique in group.cliques]
        cliques = [view.cliques.get(name) for name in names]
        if not any(cliques):
            continue
        old, available, empty = False, True, True
        for drawn, clique, name in zip(group.cliques, cliques, names, strict=True):
            pods = [pod for pod in view.pods.get(name, ()) if pod.is_active]
            old = old or (clique is not None and is_outdated(clique.template, drawn.pod_template))
            old = old or any(is_outdated(pod.template, drawn.pod_template) for pod in pods)
            available = available and clique is not None and _serves(clique, pods)
            empty = empty and clique is not None and not clique.replicas and not pods
        yield Unit(index=replica, is_old=old, is_available=available, is_empty=empty)


def _extra(view: CopyView, group_name: str, first: str, size: int) -> int:
    """Return how many replicas follow the size without a hole; surge makes no others."""
    count = 0
    while member_clique(group_name, size + count, first) in view.cliques:
        count += 1
    return count


def _serves(clique: PodClique, pods: Sequence[Pod]) -> bool:
    return sum(pod.is_ready for pod in pods) >= min(clique.min_available, clique.replicas)


def _sibling(view: CopyView, clique: CliqueBlueprint) -> PodClique | None:
    """Return the same clique of another group replica, one of the oldest revision first."""
    found = [c for c in view.cliques.values() if c.identity.clique == clique.name]
    found.sort(key=lambda c: (not is_outdated(c.template, clique.pod_template), c.metadata.name))
    return found[0] if found else None


def _names(plan: UnitPlan | Move) -> frozenset[str]:
    return frozenset(unit.name for unit in plan.stop)
