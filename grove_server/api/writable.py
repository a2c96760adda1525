"""The kinds that people write, one row each: how a manifest is read and admitted, and in which order.

What others refer to comes first. References within one text are seen whatever the order of its documents: ``Arriving``
collects what a text brings, and admission looks at the world with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeVar

from grove_server.admission.admit import admit_pod_clique_set, read_pod_clique_set
from grove_server.admission.binding import admit_cluster_topology_binding, read_cluster_topology_binding
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted
from grove_server.admission.priority_class import admit_priority_class, read_priority_class
from grove_server.admission.queue import admit_queue, queue_spec, read_queue
from grove_server.admission.scaling_policy import admit_scaling_policy, read_scaling_policy
from grove_server.api.node_manifests import NodeManifest, admit_node, read_node_manifest
from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.manifest import (
    ClusterTopologyBindingManifest,
    ManifestMetadata,
    PodCliqueSetManifest,
    PodCliqueSetSpec,
)
from grove_server.resources.meta import API_VERSIONS, CLUSTER_SCOPED, Key, Kind
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue, QueueSpec
from grove_server.resources.scaling_policy import ScalingPolicy, ScalingPolicyManifest, ScalingPolicySpec
from grove_server.resources.scheduling import PriorityClassManifest, QueueManifest
from grove_server.resources.schema import Manifest
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Reader

Owned = PodCliqueSet | ClusterTopologyBinding | PriorityClass | Queue | Node | ScalingPolicy
Written = Manifest | NodeManifest

V = TypeVar("V")


class WritableKind(NamedTuple):
    """One kind; the functions are those of admission for it."""

    kind: Kind
    manifest: type[Written]
    owned: type[Owned]
    read: Callable[[bytes, AdmissionContext, Callable[[ManifestMetadata], Any]], Written]
    admit: Callable[[Any, Any, AdmissionContext], Admitted[Any]]


WRITABLE: Final[Sequence[WritableKind]] = (
    WritableKind(Kind.NODE, NodeManifest, Node, read_node_manifest, admit_node),
    WritableKind(
        Kind.CLUSTER_TOPOLOGY_BINDING,
        ClusterTopologyBindingManifest,
        ClusterTopologyBinding,
        read_cluster_topology_binding,
        admit_cluster_topology_binding,
    ),
    WritableKind(Kind.PRIORITY_CLASS, PriorityClassManifest, PriorityClass, read_priority_class, admit_priority_class),
    WritableKind(Kind.QUEUE, QueueManifest, Queue, read_queue, admit_queue),
    WritableKind(Kind.POD_CLIQUE_SET, PodCliqueSetManifest, PodCliqueSet, read_pod_clique_set, admit_pod_clique_set),
    WritableKind(Kind.SCALING_POLICY, ScalingPolicyManifest, ScalingPolicy, read_scaling_policy, admit_scaling_policy),
)
BY_KIND: Final[Mapping[Kind, WritableKind]] = {row.kind: row for row in WRITABLE}
BY_NAME: Final[Mapping[tuple[str, str], WritableKind]] = {
    (API_VERSIONS[row.kind], row.kind.value): row for row in WRITABLE
}
ORDER: Final[Mapping[Kind, int]] = {row.kind: number for number, row in enumerate(WRITABLE)}
_BY_MANIFEST: Final[Mapping[type, WritableKind]] = {row.manifest: row for row in WRITABLE}


def row_of(manifest: Written) -> WritableKind:
    """Return the row of a manifest's kind."""
    return _BY_MANIFEST[type(manifest)]


def key_of_manifest(manifest: Written, default_namespace: str) -> Key:
    """Return the key of what *manifest* describes."""
    kind = row_of(manifest).kind
    metadata = manifest.metadata
    return Key(kind, "" if kind in CLUSTER_SCOPED else metadata.namespace or default_namespace, metadata.name)


@dataclass(slots=True)
class Arriving:
    """What a text brings that other documents of it may refer to."""

    bindings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    global_defaults: dict[str, bool] = field(default_factory=dict)
    queues: dict[str, QueueSpec] = field(default_factory=dict)
    sets: dict[tuple[str, str], PodCliqueSetSpec] = field(default_factory=dict)
    scaling_policies: dict[tuple[str, str], ScalingPolicySpec] = field(default_factory=dict)

    def note(self, manifest: Written) -> None:
        """Take a manifest into account."""
        name = manifest.metadata.name
        match manifest:
            case ClusterTopologyBindingManifest():
                self.bindings[name] = tuple(level.domain for level in manifest.spec.levels)
            case PriorityClassManifest():
                self.global_defaults[name] = manifest.global_default
            case QueueManifest():
                self.queues[name] = queue_spec(manifest.spec)
            case PodCliqueSetManifest():
                self.sets[manifest.metadata.namespace or "", name] = manifest.spec
            case ScalingPolicyManifest():
                self.scaling_policies[manifest.metadata.namespace or "", name] = manifest.spec
            case NodeManifest():
                return

    def note_unread(self, kind: Kind, content: Mapping[str, Any]) -> None:
        """Take a document into account before it is read: queues refer to each other in any order."""
        metadata, spec = content.get("metadata"), content.get("spec")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if kind is Kind.QUEUE and isinstance(name, str):
            parent = spec.get("parent") if isinstance(spec, dict) else None
            self.queues[name] = QueueSpec(parent=parent if isinstance(parent, str) else "")

    def join(self, context: AdmissionContext) -> AdmissionContext:
        """Return *context* with what arrives."""
        return replace(
            context,
            bindings=_Joined(context.bindings, self.bindings),
            global_defaults=_Joined(context.global_defaults, self.global_defaults),
            queues=_Joined(context.queues, self.queues),
            sets=_Joined(context.sets, _by_path(self.sets, context.default_namespace)),
            scaling_policies=_Joined(
                context.scaling_policies, _by_path(self.scaling_policies, context.default_namespace)
            ),
        )


def _by_path(specs: Mapping[tuple[str, str], V], default_namespace: str) -> Mapping[str, V]:
    return {f"{namespace or default_namespace}/{name}": spec for (namespace, name), spec in specs.items()}


def stored_bindings(reader: Reader) -> Mapping[str, tuple[str, ...]]:
    """Return the domains of each ClusterTopologyBinding, by name."""
    return _Lazy(
        lambda: {
            each.metadata.name: tuple(level.domain for level in each.spec.levels)
            for each in reader.list(ClusterTopologyBinding)
        }
    )


def stored_defaults(reader: Reader) -> Mapping[str, bool]:
    """Return of each PriorityClass whether it is the default, by name."""
    return _Lazy(lambda: {each.metadata.name: each.global_default for each in reader.list(PriorityClass)})


def stored_queues(reader: Reader) -> Mapping[str, QueueSpec]:
    """Return what is asked of each Queue, by name."""
    return _Lazy(lambda: {each.metadata.name: each.spec for each in reader.list(Queue)})


def stored_sets(reader: Reader) -> Mapping[str, PodCliqueSetSpec]:
    """Return what is asked of each PodCliqueSet, by namespace/name."""
    return _Lazy(
        lambda: {f"{each.metadata.namespace}/{each.metadata.name}": each.spec for each in reader.list(PodCliqueSet)}
    )


def stored_scaling_policies(reader: Reader) -> Mapping[str, ScalingPolicySpec]:
    """Return what is asked of each ScalingPolicy, by namespace/name."""
    return _Lazy(
        lambda: {f"{each.metadata.namespace}/{each.metadata.name}": each.spec for each in reader.list(ScalingPolicy)}
    )


class _Lazy(Mapping[str, V]):
    """A mapping that is made when it is first looked at: most requests look at none of these."""

    def __init__(self, make: Callable[[], dict[str, V]]) -> None:
        self._make = make
        self._made: dict[str, V] | None = None

    @property
    def made(self) -> dict[str, V]:
        """The mapping."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> V:
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


class _Joined(_Lazy[V]):
    """A mapping over another one."""

    def __init__(self, below: Mapping[str, V], above: Mapping[str, V]) -> None:
        super().__init__(lambda: {**below, **above})
