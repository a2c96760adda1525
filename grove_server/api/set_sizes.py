"""How many pods a set has once everything that is decided is done: what scale calls hold against the limit.

The count does not look at what was made so far, but at what is wanted: all copies at the template's sizes, plus what
cliques and groups were scaled to. Only those that differ from their template are looked at (the store files them), so a
call costs no more in a set of 20,000 copies than in a small one. Sizes of what is leaving count as soon as a call would
bring it back.

Scale calls of one set depend on different objects, so the conditions of their commits do not see each other, nor an
edit of the set itself. Each therefore announces what it asks for in the step of the event loop in which it is decided,
and the next one counts it. An edit whose template is on its way counts as if it were there, and as if it were not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from grove_server.admission.validation_sizes import pods_per_copy
from grove_server.control.indexes import RESIZED_CLIQUES_BY_SET, RESIZED_GROUPS_BY_SET
from grove_server.resources.manifest import PodCliqueSetTemplate
from grove_server.resources.meta import Key, key_of
from grove_server.resources.workload import (
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    ScaleOwner,
)
from grove_server.store.interface import Reader

# A caller that gives up does not take its change back: the change may still be on its way to the disk.
_ABANDONED_S: Final = 10.0

Announce = Callable[[str, Key, int], None]
AnnounceEdit = Callable[[PodCliqueSet], None]

_Entry = tuple[Key, int] | PodCliqueSet


class ScalesUnderway:
    """The sizes and edits that calls asked for and that may not be visible yet, by the uid of their set."""

    def __init__(self) -> None:
        self._by_set: dict[str, list[_Entry]] = {}

    def of_set(self, set_uid: str) -> Mapping[Key, int]:
        """Return the largest size asked for, by what is scaled."""
        sizes: dict[Key, int] = {}
        for entry in self._by_set.get(set_uid, ()):
            if not isinstance(entry, PodCliqueSet):
                key, replicas = entry
                sizes[key] = max(replicas, sizes.get(key, 0))
        return sizes

    def edits_of_set(self, set_uid: str) -> Sequence[PodCliqueSet]:
        """Return the set as each edit under way would leave it."""
        return [entry for entry in self._by_set.get(set_uid, ()) if isinstance(entry, PodCliqueSet)]

    @contextmanager
    def announcing(self) -> Iterator[Announce]:
        """Give a function that announces (uid of the set, what is scaled, its size) until the end of the call."""
        with self._entering() as enter:
            yield lambda set_uid, key, replicas: enter(set_uid, (key, replicas))

    @contextmanager
    def editing(self) -> Iterator[AnnounceEdit]:
        """Give a function that announces a set as the call would leave it until the end of the call."""
        with self._entering() as enter:
            yield lambda edited: enter(edited.metadata.uid, edited)

    @contextmanager
    def _entering(self) -> Iterator[Callable[[str, _Entry], None]]:
        announced: list[tuple[str, _Entry]] = []

        def enter(set_uid: str, entry: _Entry) -> None:
            announced.append((set_uid, entry))
            self._by_set.setdefault(set_uid, []).append(entry)

        try:
            yield enter
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_ABANDONED_S, self._forget, announced)
            raise
        except BaseException:
            self._forget(announced)
            raise
        self._forget(announced)

    def _forget(self, announced: list[tuple[str, _Entry]]) -> None:
        for set_uid, entry in announced:
            entries = self._by_set[set_uid]
            # The very same entry: comparing sets field by field would cost more than all the rest.
            del entries[next(i for i, each in enumerate(entries) if each is entry)]
            if not entries:
                del self._by_set[set_uid]


def pod_count(reader: Reader, owner: PodCliqueSet, underway: Mapping[Key, int], target: Key, replicas: int) -> int:
    """Return how many pods *owner* will have without the change of *target* to *replicas* that is to be judged.

    *underway* are sizes that others asked for. What *target* would bring back at its new size is counted.
    """
    return _Count(reader, owner, underway, target, replicas).total()


def pod_count_grown(reader: Reader, underway: Mapping[Key, int], before: PodCliqueSet, after: PodCliqueSet) -> int:
    """Return how many pods a set will have after an edit with what others asked for; 0 if the edit adds none."""
    if before.spec is after.spec:
        return 0
    key = key_of(after)
    was, becomes = (pod_count(reader, each, underway, key, each.spec.replicas or 0) for each in (before, after))
    return becomes if becomes > was else 0


class _Count:
    """One count; used once."""

    def __init__(
        self, reader: Reader, owner: PodCliqueSet, underway: Mapping[Key, int], target: Key, replicas: int
    ) -> None:
        self._reader = reader
        self._owner = owner
        self._template = owner.spec.template
        self._target = target
        self._replicas = replicas
        self._others = {key: size for key, size in underway.items() if key != target}
        self._sizes = {clique.name: clique.spec.replicas or 0 for clique in self._template.cliques}
        self._group_sizes = {group.name: group.replicas or 0 for group in self._template.pod_clique_scaling_groups}
        # Up to which copy, and up to which replica of a (copy, group) with a size of its own, cliques count.
        self._copies, counted = self._range(key_of(owner), owner.spec.replicas or 0)
        self._group_ranges: dict[tuple[int, str], int] = {}
        self._count = counted * pods_per_copy(self._template)

    def total(self) -> int:
        uid = self._owner.metadata.uid
        pods = _pods_per_group_replica(self._template, self._sizes)
        groups = {key_of(each): each for each in self._reader.indexed(RESIZED_GROUPS_BY_SET, uid)}
        groups.update((key, found) for key in self._scaled(PodCliqueScalingGroup) if (found := self._group(key)))
        for key, group in groups.items():
            size = self._group_sizes[group.group]
            reached, counted = self._range(key, _kept(group, size))
            self._group_ranges[group.copy, group.group] = reached
            if group.copy < self._copies:
                self._count += (counted - size) * pods[group.group]
        count, copies, sizes = self._count, self._copies, self._sizes
        for clique in self._reader.indexed(RESIZED_CLIQUES_BY_SET, uid):
            identity = clique.identity
            if identity.copy < copies and (not identity.group or self._is_wanted(clique)):
                size = sizes[identity.clique]
                count += _kept(clique, size) - size
        return count + sum(self._more(key) for key in self._scaled(PodClique))

    def _range(self, key: Key, size: int) -> tuple[int, int]:
        """Return the largest size that *key* may come to, and the one to count: the judged change is added later."""
        if key == self._target:
            return max(size, self._replicas), size
        largest = max(size, self._others.get(key, 0))
        return largest, largest

    def _scaled(self, kind: type[PodClique | PodCliqueScalingGroup]) -> list[Key]:
        return [key for key in (*self._others, self._target) if key.kind is kind.kind]

    def _group(self, key: Key) -> PodCliqueScalingGroup | None:
        group = self._reader.get(PodCliqueScalingGroup, key.namespace, key.name)
        return group if group is not None and group.set_uid == self._owner.metadata.uid else None

    def _more(self, key: Key) -> int:
        """Return how many pods a clique will have above its present size; the judged change is added later."""
        clique = self._reader.get(PodClique, key.namespace, key.name)
        if key == self._target or clique is None or clique.identity.set_uid != self._owner.metadata.uid:
            return 0
        return max(0, self._others[key] - _kept(clique, self._sizes[clique.identity.clique]))

    def _is_wanted(self, clique: PodClique) -> bool:
        identity = clique.identity
        reached = self._group_ranges.get((identity.copy, identity.group), self._group_sizes[identity.group])
        return identity.group_replica < reached


def _pods_per_group_replica(template: PodCliqueSetTemplate, sizes: Mapping[str, int]) -> dict[str, int]:
    return {group.name: sum(sizes[name] for name in group.clique_names) for group in template.pod_clique_scaling_groups}


def _kept(resource: PodClique | PodCliqueScalingGroup, template_size: int) -> int:
    """Return the size that stays: the template's where the template was edited and the loop has yet to follow it."""
    if resource.template_replicas == template_size or resource.scale_owner is ScaleOwner.AUTOSCALER:
        return resource.replicas
    return template_size
