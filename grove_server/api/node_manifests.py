"""Nodes as people write them: how a v1 Node manifest is read and admitted. Pure.

A manifest is read as the cluster file reads it, so what a cluster prints can be applied. What it leaves out stays: the
amounts, the address, and whether the node is cordoned. Labels, annotations and taints are replaced as a whole. Whether
a node is ready counts for a new one only; later, people mark it down and up.

Not here: which runtimes let people write nodes (``services.nodes``), and what a cluster file makes of nodes that were
written by hand (``runtime.cluster_seed``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from grove_server.admission.cluster_scoped import check_identity, new_metadata
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, Findings
from grove_server.resources.cluster import BY_HAND, Node
from grove_server.resources.manifest import ManifestMetadata
from grove_server.resources.meta import Kind
from grove_server.resources.schema import SchemaError
from grove_server.resources.violations import Reason, Violation
from grove_server.runtime.fields import Fields, Problems
from grove_server.runtime.node_source import NODES_MAX, node_address, read_node

_IDENTITY: Final[Mapping[str, str]] = {
    "namespace": "namespace",
    "resourceVersion": "resource_version",
    "uid": "uid",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeManifest:
    """A Node document: the node it describes, and whether it says how much there is, and whether it is cordoned."""

    metadata: ManifestMetadata
    node: Node
    has_amounts: bool
    has_address: bool
    has_cordon: bool


def read_node_manifest(
    data: bytes, _context: AdmissionContext, find_old: Callable[[ManifestMetadata], Node | None]
) -> NodeManifest:
    """Return the manifest in *data* (JSON). Raises SchemaError with all that is wrong with it."""
    try:
        values = json.loads(data)
    except ValueError as error:
        raise SchemaError((Violation("", Reason.INVALID, "must be valid JSON"),)) from error
    if not isinstance(values, dict):
        raise SchemaError((Violation("", Reason.TYPE_INVALID, "must be an object"),))
    problems = Problems()
    document = Fields(values, 1, "", problems)
    metadata = _metadata(document.child("metadata", is_required=True))
    spec, status = document.child("spec"), document.child("status")
    has_amounts = "allocatable" in status.values or "capacity" in status.values
    is_new = not metadata.name or find_old(metadata) is None
    problems.listed.clear()
    problems.count = 0
    node = read_node(document, 0, needs_amounts=has_amounts or is_new)
    if problems.count:
        raise SchemaError([Violation(each.path, Reason.INVALID, each.message) for each in problems.listed])
    return NodeManifest(
        metadata=replace(metadata, labels=node.metadata.labels, annotations=node.metadata.annotations),
        node=node,
        has_amounts=has_amounts,
        has_address=any(each.values.get("type") == "InternalIP" for each in status.children("addresses")),
        has_cordon="unschedulable" in spec.values,
    )


def admit_node(manifest: NodeManifest, old: Node | None, context: AdmissionContext) -> Admitted[Node]:
    """Return the node a manifest makes of *old* (None: there is none yet); raise InvalidResourceError."""
    findings = Findings()
    check_identity(manifest.metadata, old, Kind.NODE, context, findings)
    findings.raise_if_any(Kind.NODE, manifest.metadata.name)
    wanted = manifest.node
    if old is None:
        node = replace(
            wanted,
            metadata=new_metadata(manifest.metadata, context),
            ready_changed_at=context.now,
            address=wanted.address if manifest.has_address else context.node_address(),
            described=BY_HAND,
        )
        return Admitted(resource=node, warnings=findings.warnings, changed=True)
    node = replace(
        old,
        metadata=replace(old.metadata, labels=wanted.metadata.labels, annotations=wanted.metadata.annotations),
        taints=wanted.taints,
        unschedulable=wanted.unschedulable if manifest.has_cordon else old.unschedulable,
        allocatable=wanted.allocatable if manifest.has_amounts else old.allocatable,
        capacity=wanted.capacity if manifest.has_amounts else old.capacity,
        address=wanted.address if manifest.has_address else old.address,
    )
    if not node.unschedulable and old.unschedulable:
        node = replace(node, draining_since=None)
    return Admitted(resource=node, warnings=findings.warnings, changed=node != old)


def free_addresses(taken: Callable[[], frozenset[str]]) -> Callable[[], str]:
    """Return what gives each new node an address that no node has; *taken* is asked once, when the first one is due."""

    def addresses() -> Iterator[str]:
        used = taken()
        yield from (address for address in map(node_address, range(2 * NODES_MAX)) if address not in used)

    source = addresses()
    return lambda: next(source, "")


def _metadata(fields: Fields) -> ManifestMetadata:
    """Return who the document is about; texts that are none count as left out here, and are found when it is read."""
    identity: dict[str, Any] = {
        ours: value for theirs, ours in _IDENTITY.items() if isinstance(value := fields.values.get(theirs), str)
    }
    name = fields.values.get("name")
    return ManifestMetadata(name=name if isinstance(name, str) else "", **identity)
