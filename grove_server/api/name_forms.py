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
from grove_server.control.indexes import SETS_BY_NAME_PATTERN
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
    """

    def __init__(self) -> None:
        self._forms = NameForms()
        self._arriving: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def taken(self, reader: Reader, namespace: str) -> Callable[[str], Iterator[tuple[str, str]]]:
        """Return the function that admission asks: from a normal form to (set name, pattern)."""

        def taken(form: str) -> Iterator[tuple[str, str]]:
            for other in reader.indexed(SETS_BY_NAME_PATTERN, (namespace, form)):
                for pattern, other_form in self._forms.of(other):
                    if other_form == form:
                        yield other.metadata.name, pattern
            yield from self._arriving.get((namespace, form), ())

        return taken

    @contextmanager
    def announcing(self) -> Iterator[Callable[[PodCliqueSet], None]]:
        """Give a function that announces a set; what it announced is forgotten at the end."""
        announced: list[PodCliqueSet] = []

        def announce(resource: PodCliqueSet) -> None:
            announced.append(resource)
            for pattern, form in self._forms.of(resource):
                entries = self._arriving.setdefault((resource.metadata.namespace, form), [])
                entries.append((resource.metadata.name, pattern))

        try:
            yield announce
        finally:
            for resource in announced:
                for pattern, form in self._forms.of(resource):
                    entries = self._arriving[resource.metadata.namespace, form]
                    entries.remove((resource.metadata.name, pattern))
                    if not entries:
                        del self._arriving[resource.metadata.namespace, form]
