"""The names that sets may give their children, remembered per spec.

Collisions are looked up by normal form for each set that is applied, and working out a set's patterns costs about as
much as the rest of its admission, so they are kept as long as the spec is the very same object.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from grove_server.admission.naming import name_patterns, normalised
from grove_server.control.indexes import SETS_BY_NAME_STEM, name_stems
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Reader

_REMEMBERED_MAX: Final = 4_096


class NameForms:
    """Pairs of (pattern, normal form) by the uid of their set."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[str, tuple[object, tuple[tuple[str, str], ...]]] = OrderedDict()

    def of(self, resource: PodCliqueSet) -> tuple[tuple[str, str], ...]:
        """Return each name pattern of *resource* with its normal form."""
        uid = resource.metadata.uid
        known = self._remembered.get(uid)
        if known is not None and known[0] is resource.spec:
            return known[1]
        pairs = tuple((pattern, normalised(pattern)) for pattern in name_patterns(resource))
        self._remembered[uid] = (resource.spec, pairs)
        if len(self._remembered) > _REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return pairs


class Arrivals:
    """Which names are taken in a namespace: those of stored sets, and of sets on their way into the store.

    Two calls at the same time could otherwise create two sets whose children collide, since neither sees the other.
    Only sets whose name is a stem of the other's are looked at (see ``name_stems``), so a thousand sets called x-0 to
    x-999 cost each other nothing.
    """

    def __init__(self) -> None:
        self._forms = NameForms()
        self._by_name: dict[tuple[str, str], list[PodCliqueSet]] = {}
        self._by_stem: dict[tuple[str, str], list[PodCliqueSet]] = {}

    def taken(self, reader: Reader, namespace: str, set_name: str) -> Callable[[str], Iterator[tuple[str, str]]]:
        """Return the function that admission of *set_name* asks: from a normal form to (set name, pattern)."""
        others = [*self._neighbours(reader, namespace, set_name)]

        def taken(form: str) -> Iterator[tuple[str, str]]:
            for other in others:
                for pattern, other_form in self._forms.of(other):
                    if other_form == form:
                        yield other.metadata.name, pattern

        return taken

    def _neighbours(self, reader: Reader, namespace: str, set_name: str) -> Iterator[PodCliqueSet]:
        """Return the sets with which children of *set_name* might collide."""
        yield from reader.indexed(SETS_BY_NAME_STEM, (namespace, set_name))
        yield from self._by_stem.get((namespace, set_name), ())
        for stem in name_stems(set_name):
            stored = reader.get(PodCliqueSet, namespace, stem)
            if stored is not None:
                yield stored
            yield from self._by_name.get((namespace, stem), ())

    @contextmanager
    def announcing(self) -> Iterator[Callable[[PodCliqueSet], None]]:
        """Give a function that announces a set; what it announced is forgotten at the end."""
        announced: list[PodCliqueSet] = []

        def announce(resource: PodCliqueSet) -> None:
            announced.append(resource)
            for table, key in self._places(resource):
                table.setdefault(key, []).append(resource)

        try:
            yield announce
        finally:
            for resource in announced:
                for table, key in self._places(resource):
                    entries = [each for each in table[key] if each is not resource]
                    if entries:
                        table[key] = entries
                    else:
                        del table[key]

    def _places(
        self, resource: PodCliqueSet
    ) -> Iterator[tuple[dict[tuple[str, str], list[PodCliqueSet]], tuple[str, str]]]:
        metadata = resource.metadata
        yield self._by_name, (metadata.namespace, metadata.name)
        for stem in name_stems(metadata.name):
            yield self._by_stem, (metadata.namespace, stem)
