"""The objects of a cluster file beside its nodes: topology bindings, priority classes and queues. Pure.

They are held to the rules of the API, all of them together: a queue's parent may come after it, and one class of the
file may be the default. Nobody has given them a uid or a time yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from grove_server.admission.binding import admit_cluster_topology_binding
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, InvalidResourceError
from grove_server.admission.priority_class import admit_priority_class
from grove_server.admission.queue import admit_queue, queue_spec
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.resources.scheduling import PriorityClassManifest, QueueManifest
from grove_server.resources.schema import (
    Manifest,
    SchemaError,
    parse_cluster_topology_binding,
    parse_priority_class,
    parse_queue,
)
from grove_server.runtime.fields import Fields

OBJECTS_MAX: Final[Mapping[Kind, int]] = {
    Kind.CLUSTER_TOPOLOGY_BINDING: 100,
    Kind.PRIORITY_CLASS: 1_000,
    Kind.QUEUE: 10_000,
}
VALUES_MAX: Final = 10_000

ClusterObject = ClusterTopologyBinding | PriorityClass | Queue


class _ObjectKind(NamedTuple):
    kind: Kind
    parse: Callable[[bytes], Manifest]
    admit: Callable[[Any, None, AdmissionContext], Admitted[Any]]


_KINDS: Final = {
    (API_VERSIONS[each.kind], each.kind.value): each
    for each in (
        _ObjectKind(Kind.CLUSTER_TOPOLOGY_BINDING, parse_cluster_topology_binding, admit_cluster_topology_binding),
        _ObjectKind(Kind.PRIORITY_CLASS, parse_priority_class, admit_priority_class),
        _ObjectKind(Kind.QUEUE, parse_queue, admit_queue),
    )
}


def object_kind(api_version: object, kind: object) -> Kind | None:
    """Return the kind that a document with these words is of, None if it is none of the three."""
    found = _KINDS.get((api_version, kind)) if isinstance(api_version, str) and isinstance(kind, str) else None
    return None if found is None else found.kind


class ObjectReading:
    """The objects read so far; ``admit`` looks at all of them together."""

    def __init__(self) -> None:
        self._read: list[tuple[Fields, _ObjectKind, Manifest]] = []
        self._counts: dict[Kind, int] = {}

    def take(self, document: Fields) -> str | None:
        """Read one document and return its name; complain and return None if it is not well-formed."""
        row = _KINDS[str(document.values["apiVersion"]), str(document.values["kind"])]
        count = self._counts.get(row.kind, 0)
        if count == OBJECTS_MAX[row.kind]:
            document.complain("", f"the file must have at most {count} documents of kind {row.kind}")
            return None
        self._counts[row.kind] = count + 1
        if not _is_small(document.values):
            document.complain("", f"must have at most {VALUES_MAX} values")
            return None
        try:
            manifest = row.parse(orjson.dumps(document.values))
        except SchemaError as error:
            for violation in error.violations:
                document.complain(violation.path, violation.message)
            return None
        except orjson.JSONEncodeError as error:
            document.complain("", f"cannot be written as JSON: {error}")
            return None
        self._read.append((document, row, manifest))
        return manifest.metadata.name

    def admit(self) -> Sequence[ClusterObject]:
        """Return the objects that keep all rules, in the order of the file, and complain about the others."""
        manifests = [manifest for _, _, manifest in self._read]
        context = AdmissionContext(
            now=0.0,
            uid="",
            global_defaults={
                m.metadata.name: m.global_default for m in manifests if isinstance(m, PriorityClassManifest)
            },
            queues={m.metadata.name: queue_spec(m.spec) for m in manifests if isinstance(m, QueueManifest)},
        )
        admitted: list[ClusterObject] = []
        for document, row, manifest in self._read:
            try:
                admitted.append(row.admit(manifest, None, context).resource)
            except InvalidResourceError as error:
                for violation in error.violations:
                    document.complain(violation.path, violation.message)
        return admitted


def _is_small(value: object) -> bool:
    """Return whether *value* has few parts when it is written out; YAML aliases may repeat parts without end."""
    count = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        count += 1
        if count + len(waiting) > VALUES_MAX:
            return False
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return True
