"""What the workload loop remembers of one set between passes. All of it can be computed again from the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from grove_server.control.indexes import CLIQUES_BY_COPY, PODS_BY_COPY, TEMPLATES_BY_SET
from grove_server.lifecycle.blueprint import Blueprint, draw_blueprint
from grove_server.lifecycle.set_pass import CopyTotals, pod_template, stale_templates
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.manifest import PodCliqueSetTemplate, TopologyLevel
from grove_server.resources.meta import key_of
from grove_server.resources.workload import PodCliqueSet, PodTemplate
from grove_server.store.interface import Change, Delete, Outcome, Put, Reader, Store


@dataclass(slots=True)
class SetState:
    """Blueprint and totals of one set.

    ``unvisited`` are copies whose summary is not known yet, ``adopting`` those of them that were there at the start;
    ``templates`` are the current templates by clique, including
    those still on their way to the disk; ``removed_templates`` are on their way out.
    """

    totals: CopyTotals = field(default_factory=CopyTotals)
    unvisited: set[int] = field(default_factory=set)
    adopting: set[int] = field(default_factory=set)
    blueprint: Blueprint | None = None
    topology_epoch: int = -1
    templates: dict[str, PodTemplate] = field(default_factory=dict)
    removed_templates: set[str] = field(default_factory=set)
    removal_started: bool = False
    status_not_before: float = 0.0

    def is_current(self, owner: PodCliqueSet, topology_epoch: int) -> bool:
        """Return whether the blueprint still describes *owner*."""
        drawn = self.blueprint
        return (
            drawn is not None
            and topology_epoch == self.topology_epoch
            and _same(drawn.pod_clique_set.spec.template, owner.spec.template)
            and drawn.pod_clique_set.revision == owner.revision
            and drawn.pod_clique_set.metadata.labels == owner.metadata.labels
            and drawn.pod_clique_set.metadata.annotations == owner.metadata.annotations
        )

    def draw(self, store: Store, owner: PodCliqueSet, topology_epoch: int, now: float) -> Blueprint:
        """Draw the blueprint anew; missing templates are committed ahead of everything that refers to them."""
        reader = store.read()
        created: list[Change] = []
        templates: dict[str, PodTemplate] = {}
        for clique in owner.spec.template.cliques:
            template = pod_template(owner, clique, now)
            name = template.metadata.name
            known = self.templates.get(clique.name)
            if known is None or known.metadata.name != name:
                known = (
                    None if name in self.removed_templates else reader.get(PodTemplate, owner.metadata.namespace, name)
                )
            if known is None:
                created.append(Put(template))
                self.removed_templates.discard(name)
                known = template
            templates[clique.name] = known
        if created:
            store.commit_soon(created, cause="workload").add_done_callback(self._forget_if_failed)
        self.templates = templates
        self.blueprint = draw_blueprint(owner, templates, topology_levels(reader))
        self.topology_epoch = topology_epoch
        return self.blueprint

    def remove_stale_templates(self, store: Store, owner: PodCliqueSet) -> None:
        """Remove templates that neither a clique, a pod nor the current revision needs."""
        reader = store.read()
        held = {t.metadata.name: t for t in reader.indexed(TEMPLATES_BY_SET, owner.metadata.uid)}
        if len(held) <= len(self.templates):
            return
        used: set[str] = set()
        for copy in self.totals.copies.keys() | self.unvisited:
            for index in (CLIQUES_BY_COPY, PODS_BY_COPY):
                used.update(item.template.metadata.name for item in reader.indexed(index, (owner.metadata.uid, copy)))
        current = {template.metadata.name for template in self.templates.values()}
        stale = stale_templates(held, used, current)
        if stale:
            self.removed_templates.update(template.metadata.name for template in stale)
            store.commit_soon([Delete(key_of(t)) for t in stale], cause="workload").add_done_callback(
                self._forget_if_failed
            )

    def _forget_if_failed(self, future: asyncio.Future[tuple[Outcome, ...]]) -> None:
        """Start over with what the store holds: what was queued behind a failed commit has failed with it."""
        if future.cancelled() or future.exception() is not None:
            self.blueprint = None
            self.templates = {}
            self.removed_templates = set()


def topology_levels(reader: Reader) -> dict[str, tuple[TopologyLevel, ...]]:
    """Return the levels of every topology binding by name."""
    return {b.metadata.name: b.spec.levels for b in reader.list(ClusterTopologyBinding)}


def _same(one: PodCliqueSetTemplate, other: PodCliqueSetTemplate) -> bool:
    """Compare templates; mostly they are one object, since a status change keeps the spec."""
    return one is other or one == other
