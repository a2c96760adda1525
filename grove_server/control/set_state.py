"""What the workload loop remembers of one set between passes. All of it can be computed again from the store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from grove_server.control.indexes import CLIQUES_BY_COPY, PODS_BY_COPY, TEMPLATES_BY_SET
from grove_server.lifecycle.blueprint import Blueprint, draw_blueprint
from grove_server.lifecycle.copy_totals import CopyTotals
from grove_server.lifecycle.set_pass import pod_template, stale_templates
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.manifest import PodCliqueSetTemplate, TopologyLevel
from grove_server.resources.meta import Key, key_of
from grove_server.resources.priority import PriorityClass
from grove_server.resources.replacing import replace
from grove_server.resources.workload import PodCliqueSet, PodTemplate
from grove_server.store.interface import Change, Delete, Outcome, Put, Reader, Store

# Templates that an update may keep beside the present ones before it is looked which of them nobody uses any more:
# what each clique ran before, and one revision in between.
_SURPLUS_PER_CLIQUE_MAX: Final = 2

NOT_RESIZED: Final = (-1, -1)


@dataclass(slots=True)
class SetState:
    """Blueprint and totals of one set.

    ``unvisited`` are copies whose summary is not known yet, ``adopting`` those of them that were there at the start,
    ``leaving`` those beyond the size that were told so, ``turns`` those told that they have their turn in an update,
    ``is_resting`` whether its updates were paused then;
    ``plans_in_flight`` counts the copies' plans that wait for the disk. ``is_spread``: all copies were queued since the
    blueprint was drawn. ``templates`` are the current templates by clique; ``creating`` and ``removing`` count, by
    name, commits on their way to the disk. ``pass_s`` is how long the last pass over one of its copies took;
    ``resized_for`` the size and the members that copies were last queued for.
    """

    totals: CopyTotals = field(default_factory=CopyTotals)
    unvisited: set[int] = field(default_factory=set)
    adopting: set[int] = field(default_factory=set)
    leaving: set[int] = field(default_factory=set)
    turns: frozenset[int] = frozenset()
    is_resting: bool = False
    plans_in_flight: int = 0
    blueprint: Blueprint | None = None
    topology_epoch: int = -1
    is_spread: bool = True
    templates: dict[str, PodTemplate] = field(default_factory=dict)
    may_hold_stale_templates: bool = False
    creating: Counter[str] = field(default_factory=Counter)
    removing: Counter[str] = field(default_factory=Counter)
    removal_started: bool = False
    status_not_before: float = 0.0
    pass_s: float = 0.0
    resized_for: tuple[int, int] = NOT_RESIZED

    def is_current(self, owner: PodCliqueSet, topology_epoch: int) -> bool:
        """Return whether the blueprint still describes *owner*."""
        drawn = self.blueprint
        return (
            drawn is not None
            and topology_epoch == self.topology_epoch
            and _same(drawn.pod_clique_set.spec.template, owner.spec.template)
            and drawn.pod_clique_set.spec.update_strategy == owner.spec.update_strategy
            and drawn.pod_clique_set.revision == owner.revision
            and drawn.pod_clique_set.metadata.labels == owner.metadata.labels
            and drawn.pod_clique_set.metadata.annotations == owner.metadata.annotations
        )

    def blueprint_of(self, owner: PodCliqueSet) -> Blueprint:
        """Return the blueprint, which is current, with *owner* as it is now.

        Where its update stands, and whether it rests, changes too often to draw anew, and passes ask for it.
        """
        drawn = self.blueprint
        assert drawn is not None, "a blueprint is drawn before it is followed"
        if drawn.pod_clique_set is not owner:
            self.blueprint = drawn = replace(drawn, pod_clique_set=owner)
        return drawn

    def draw(self, store: Store, owner: PodCliqueSet, topology_epoch: int, now: float) -> Blueprint:
        """Draw the blueprint anew; missing templates are committed ahead of everything that refers to them.

        Raises StoreUnavailableError when the store takes no templates: then nothing may refer to them either.
        """
        reader = store.read()
        created: list[PodTemplate] = []
        templates: dict[str, PodTemplate] = {}
        for clique in owner.spec.template.cliques:
            template = pod_template(owner, clique, now)
            name = template.metadata.name
            known = self.templates.get(clique.name)
            if known is None or known.metadata.name != name:
                known = None if name in self.removing else reader.get(PodTemplate, owner.metadata.namespace, name)
            if known is None:
                created.append(template)
                known = template
            templates[clique.name] = known
        # Not atomic: a template that is there already (its removal was overtaken) must not take the others with it.
        self._commit(store, [Put(template) for template in created], self.creating)
        self.templates = templates
        self.may_hold_stale_templates = True
        self.blueprint = draw_blueprint(owner, templates, topology_levels(reader), priority_classes(reader))
        self.topology_epoch = topology_epoch
        self.is_spread = False
        return self.blueprint

    def remove_stale_templates(self, store: Store, owner: PodCliqueSet, *, is_updating: bool) -> None:
        """Remove templates that neither a clique, a pod nor the current revision needs.

        Only while no plan is in flight: what it makes is not visible yet, and may need a template that looks unused.
        During an update the one before is in use, so nothing is looked for until more than that has gathered.
        """
        if not self.may_hold_stale_templates or self.plans_in_flight:
            return
        reader = store.read()
        current = {template.metadata.name for template in self.templates.values()}
        held = {t.metadata.name: t for t in reader.indexed(TEMPLATES_BY_SET, owner.metadata.uid)}
        surplus = (held.keys() | self.creating.keys()) - current
        if not surplus:
            self.may_hold_stale_templates = False
            return
        if is_updating and len(surplus) <= _SURPLUS_PER_CLIQUE_MAX * len(self.templates):
            return
        used = self._used(reader, owner, surplus)
        stale = stale_templates(held, used, current)
        # Those still in use become stale later: by the end of pods that are stopping, or of an update.
        self.may_hold_stale_templates = len(surplus) > len(stale)
        self._commit(store, [Delete(key_of(t)) for t in stale], self.removing)

    def _used(self, reader: Reader, owner: PodCliqueSet, names: set[str]) -> set[str]:
        """Return those of *names* that a clique or pod refers to; looks no further than it has to."""
        unused = set(names)
        for copy in sorted(self.totals.copies.keys() | self.unvisited):
            for index in (CLIQUES_BY_COPY, PODS_BY_COPY):
                for item in reader.indexed(index, (owner.metadata.uid, copy)):
                    unused.discard(item.template.metadata.name)
                if not unused:
                    return names
        return names - unused

    def templates_of(self, store: Store, owner: PodCliqueSet) -> set[Key]:
        """Return the keys of all templates of the set, those on their way to the disk included."""
        held = {key_of(template) for template in store.read().indexed(TEMPLATES_BY_SET, owner.metadata.uid)}
        return held | {Key(PodTemplate.kind, owner.metadata.namespace, name) for name in self.creating}

    def _commit(self, store: Store, changes: Sequence[Change], counter: Counter[str]) -> None:
        if not changes:
            return
        names = [change.key.name if isinstance(change, Delete) else change.resource.metadata.name for change in changes]
        future = store.commit_soon(changes, atomic=False, cause="workload")
        if future.done() and (error := future.exception()) is not None:
            raise error
        counter.update(names)

        def settle(done: asyncio.Future[tuple[Outcome, ...]]) -> None:
            counter.subtract(names)
            for name in names:
                if not counter[name]:
                    del counter[name]
            if done.exception() is not None:
                # Start over with what the store holds: what was queued behind a failed commit has failed with it.
                self.blueprint = None
                self.templates = {}

        future.add_done_callback(settle)


def topology_levels(reader: Reader) -> dict[str, tuple[TopologyLevel, ...]]:
    """Return the levels of every topology binding by name."""
    return {b.metadata.name: b.spec.levels for b in reader.list(ClusterTopologyBinding)}


def priority_classes(reader: Reader) -> dict[str, PriorityClass]:
    """Return every priority class by name."""
    return {each.metadata.name: each for each in reader.list(PriorityClass)}


def _same(one: PodCliqueSetTemplate, other: PodCliqueSetTemplate) -> bool:
    """Compare templates; mostly they are one object, since a status change keeps the spec."""
    return one is other or one == other
