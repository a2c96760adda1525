"""The live state in memory: resources by kind, namespace and name, and the secondary indexes over them.

Rules: only ``apply`` changes it, one change at a time, and it knows nothing of disks, queues or watches. What the
reading methods return is a copy, so a caller may keep it across an await (it is then old, never torn).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from grove_server.resources.meta import Key, Kind, Resource
from grove_server.resources.replacing import replace
from grove_server.store.interface import ChangeType, Index, Notice


class Write(NamedTuple):
    """One decided change: the resource at its new version, or None for a deletion."""

    key: Key
    resource: Resource | None
    version: int


class _IndexTable:
    """One secondary index. Buckets map the shared Key objects, so an entry costs no allocation of its own."""

    __slots__ = ("buckets", "values_of")

    def __init__(self, values_of: Callable[[Any], Iterable[Hashable]]) -> None:
        self.values_of = values_of
        self.buckets: dict[Hashable, dict[Key, Resource]] = {}

    def replace(self, key: Key, previous: Resource | None, resource: Resource | None) -> None:
        old = () if previous is None else tuple(self.values_of(previous))
        new = () if resource is None else tuple(self.values_of(resource))
        buckets = self.buckets
        if old != new:
            for value in old:
                bucket = buckets[value]
                bucket.pop(key, None)
                if not bucket:
                    del buckets[value]
        if resource is not None:
            for value in new:
                found = buckets.get(value)
                if found is None:
                    buckets[value] = {key: resource}
                else:
                    found[key] = resource


class State:
    """The live state; satisfies Reader."""

    def __init__(self, indexes: Mapping[str, Index] | None = None) -> None:
        """Start empty, with the declared indexes."""
        self.version = 0
        self._kinds: dict[Kind, dict[str, dict[str, Resource]]] = {kind: {} for kind in Kind}
        self._counts: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self._indexes: dict[str, _IndexTable] = {}
        self._indexes_of: dict[Kind, list[_IndexTable]] = {kind: [] for kind in Kind}
        for name, (kind, values_of) in (indexes or {}).items():
            table = _IndexTable(values_of)
            self._indexes[name] = table
            self._indexes_of[kind].append(table)

    def find(self, key: Key) -> Resource | None:
        """Return the resource of *key*."""
        names = self._kinds[key[0]].get(key[1])
        return None if names is None else names.get(key[2])

    # The overloads of Reader type the answers; here one untyped body serves them all.
    def get(self, kind: Any, namespace: str, name: str) -> Any:  # noqa: ANN401 -- typed by Reader's overloads
        """Return one resource, or None."""
        names = self._kinds[kind if type(kind) is Kind else kind.kind].get(namespace)
        return None if names is None else names.get(name)

    def list(self, kind: Any, namespace: str | None = None) -> Sequence[Any]:  # noqa: ANN401 -- as above
        """Return the resources of a kind (in a namespace), in no particular order."""
        spaces = self._kinds[kind if type(kind) is Kind else kind.kind]
        if namespace is not None:
            names = spaces.get(namespace)
            return [] if names is None else [*names.values()]
        return [resource for names in spaces.values() for resource in names.values()]

    def sorted_list(self, kind: Any, namespace: str | None = None) -> Sequence[Any]:  # noqa: ANN401 -- as above
        """Return the resources of a kind (in a namespace), by namespace and name."""
        return sorted(self.list(kind, namespace), key=_order)

    def indexed(self, index: str, value: Hashable) -> Collection[Any]:
        """Return what the index holds under *value*. Raises KeyError for an index that was not declared."""
        bucket = self._indexes[index].buckets.get(value)
        return () if bucket is None else [*bucket.values()]

    def count(self, kind: Kind) -> int:
        """Return how many resources of the kind there are."""
        return self._counts[kind]

    def load(self, resource: Resource) -> None:
        """Take in one resource of a database; its version is set already."""
        metadata = resource.metadata
        self.apply(
            Write(
                Key(resource.kind, metadata.namespace, metadata.name),
                resource,
                max(self.version, resource.resource_version),
            )
        )

    def apply(self, write: Write) -> Notice | None:
        """Make one change visible; None for the deletion of what is not there."""
        key, resource, version = write
        kind, namespace, name = key
        self.version = version
        spaces = self._kinds[kind]
        names = spaces.get(namespace)
        previous = None if names is None else names.get(name)
        if resource is not None:
            if names is None:
                spaces[namespace] = {name: resource}
            else:
                names[name] = resource
            if previous is None:
                self._counts[kind] += 1
        elif previous is None or names is None:
            return None
        else:
            del names[name]
            self._counts[kind] -= 1
            if not names:
                del spaces[namespace]
        for table in self._indexes_of[kind]:
            table.replace(key, previous, resource)
        if resource is None:
            # Not None: a deletion of nothing returned above.
            return Notice(ChangeType.DELETED, cast("Resource", previous), previous, version)
        return Notice(ChangeType.ADDED if previous is None else ChangeType.MODIFIED, resource, previous, version)


def _order(resource: Resource) -> tuple[str, str]:
    metadata = resource.metadata
    return (metadata.namespace, metadata.name)


def versioned(resource: Resource, version: int) -> Resource:
    """Return *resource* at *version*."""
    return replace(resource, resource_version=version)  # type: ignore[type-var]  # every resource is a dataclass
