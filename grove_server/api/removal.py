"""Deleting what people own: what goes at once, what is asked to go, and what has to stay.

A set is marked and taken down by its loop. Bindings and priority classes go at once: what uses them waits or runs on. A
queue that sets or other queues are in stays, since its gangs would wait without anybody having meant it; queues and
sets that go in the same call do not count. What is built in stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from grove_server.api.named import Decide, mark_deleted, remove_at_once
from grove_server.api.reasons import built_in, queue_in_use
from grove_server.resources.meta import Key, Kind
from grove_server.resources.priority import is_built_in_class
from grove_server.resources.queues import DEFAULT_QUEUE, Queue, queue_of
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Reader, Store


def removal(store: Store, keys: Sequence[Key], now: float) -> Decide:
    """Return the decision about each resource of *keys*, which go together; it raises ApiError for what has to stay."""
    mark = mark_deleted(now)

    def decide(resource: Any) -> Any:  # noqa: ANN401 -- any kind that people own
        kind, name = resource.kind, resource.metadata.name
        if kind is Kind.POD_CLIQUE_SET:
            return mark(resource)
        if kind is Kind.PRIORITY_CLASS and is_built_in_class(name):
            raise built_in(kind.value, name)
        if kind is Kind.QUEUE:
            if name == DEFAULT_QUEUE:
                raise built_in(kind.value, name)
            _check_unused(name, store.read(), keys)
        return remove_at_once(resource)

    return decide


def _check_unused(name: str, reader: Reader, keys: Sequence[Key]) -> None:
    """Raise ApiError if queues or sets that stay are in the queue *name*."""
    leaving = set(keys)
    children = _staying((q for q in reader.list(Queue) if q.spec.parent == name), leaving)
    if children:
        raise queue_in_use(name, "Queue", children)
    sets = (each for each in reader.list(PodCliqueSet) if each.metadata.deleted_at is None and queue_of(each) == name)
    users = _staying(sets, leaving)
    if users:
        raise queue_in_use(name, "PodCliqueSet", users)


def _staying(resources: Iterable[Queue | PodCliqueSet], leaving: set[Key]) -> list[str]:
    """Return the names of those that do not go in the same call, sorted."""
    names = []
    for each in resources:
        metadata = each.metadata
        if Key(each.kind, metadata.namespace, metadata.name) not in leaving:
            names.append(f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name)
    return sorted(names)
