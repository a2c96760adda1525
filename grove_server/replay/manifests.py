"""Manifests to place, admitted as the server would: sets, topology bindings and priority classes.

Rules: all documents of all files are one text, so that they may refer to each other; what is wrong is said document by
document and then nothing is placed. Names need no server, so uids are made from them and equal inputs stay equal.

Not here: what becomes of the sets (`replaying`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import InvalidResourceError
from grove_server.api.node_manifests import NodeManifest
from grove_server.api.writable import BY_KIND, BY_NAME, ORDER, Arriving
from grove_server.replay.objects import ReplayError
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.document import TEXT_SIZE_MAX_BYTES, Document, read_documents
from grove_server.resources.manifest import PodCliqueSetManifest, TopologyLevel
from grove_server.resources.meta import Kind
from grove_server.resources.priority import BUILT_IN_CLASSES, PriorityClass
from grove_server.resources.schema import Manifest, SchemaError
from grove_server.resources.violations import quoted
from grove_server.resources.workload import PodCliqueSet

LINES_MAX: Final = 20
"""Mistakes of one text that are said."""


@dataclass(slots=True)
class Wanted:
    """What the manifests ask for. `levels` by the name of their ClusterTopologyBinding, `classes` by name.

    `guessed` names the bindings that a guess stands for.
    """

    sets: list[PodCliqueSet] = field(default_factory=list)
    levels: dict[str, tuple[TopologyLevel, ...]] = field(default_factory=dict)
    classes: dict[str, PriorityClass] = field(
        default_factory=lambda: {each.metadata.name: each for each in BUILT_IN_CLASSES}
    )
    warnings: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)


def read_wanted(
    paths: Sequence[Path], bindings: Sequence[Path], namespace: str, guessed: tuple[TopologyLevel, ...]
) -> Wanted:
    """Return what the files ask for; ReplayError with all that is wrong with them.

    *guessed* stands for every ClusterTopologyBinding that a set names and no document brings.
    """
    wanted = Wanted()
    mistakes: list[str] = []
    documents = [(path, document) for path in (*bindings, *paths) for document in _documents(path, mistakes)]
    arriving = Arriving()
    named: set[str] = set()
    read: list[tuple[int, Path, Document, Manifest]] = []
    for path, document in documents:
        row = BY_NAME.get((str(document.content.get("apiVersion")), str(document.content.get("kind"))))
        if row is None or row.kind is Kind.NODE:
            mistakes.append(f"{path}: document {document.number}: {quoted(document.content.get('kind'))} is not placed")
            continue
        try:
            manifest = row.read(document.to_json(), AdmissionContext(now=0.0, uid=""), lambda _metadata: None)
        except SchemaError as error:
            mistakes += (f"{path}: document {document.number}: {each}" for each in error.violations)
            continue
        assert not isinstance(manifest, NodeManifest), "nodes are refused above"
        arriving.note(manifest)
        named |= _topology_names(manifest)
        read.append((ORDER[row.kind], path, document, manifest))
    for name in sorted(named - arriving.bindings.keys()):
        arriving.bindings[name] = tuple(level.domain for level in guessed)
        wanted.levels[name] = guessed
        wanted.guessed.append(name)
    for order, path, document, manifest in sorted(read, key=lambda each: each[0]):
        kind = next(kind for kind, place in ORDER.items() if place == order)
        name = manifest.metadata.name
        context = AdmissionContext(now=0.0, uid=f"{kind}/{namespace}/{name}", default_namespace=namespace)
        try:
            admitted = BY_KIND[kind].admit(manifest, None, arriving.join(context))
        except InvalidResourceError as error:
            mistakes += (f"{path}: document {document.number}: {each}" for each in error.violations)
            continue
        wanted.warnings += (f"{name}: {warning}" for warning in admitted.warnings)
        _keep(wanted, admitted.resource)
    if mistakes:
        more = [f"and {len(mistakes) - LINES_MAX} more"] if len(mistakes) > LINES_MAX else []
        raise ReplayError("\n".join([*mistakes[:LINES_MAX], *more]))
    return wanted


def _documents(path: Path, mistakes: list[str]) -> tuple[Document, ...]:
    try:
        if path.stat().st_size > TEXT_SIZE_MAX_BYTES:
            raise ReplayError(f"{path}: larger than {TEXT_SIZE_MAX_BYTES} bytes")
        found = read_documents(path.read_bytes())
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}") from error
    mistakes += (f"{path}: {problem}" for problem in found.problems)
    return found.documents


def _topology_names(manifest: Manifest) -> set[str]:
    """Return the names of the bindings that a set asks for."""
    if not isinstance(manifest, PodCliqueSetManifest):
        return set()
    template = manifest.spec.template
    constraints = [
        template.topology_constraint,
        *(clique.topology_constraint for clique in template.cliques),
        *(group.topology_constraint for group in template.pod_clique_scaling_groups),
    ]
    return {each.topology_name for each in constraints if each is not None and each.topology_name}


def _keep(wanted: Wanted, resource: object) -> None:
    match resource:
        case PodCliqueSet():
            wanted.sets.append(resource)
        case ClusterTopologyBinding():
            wanted.levels[resource.metadata.name] = resource.spec.levels
        case PriorityClass():
            wanted.classes[resource.metadata.name] = resource
        case _:
            # Queues count for admission alone: a file of pods does not say what other queues use.
            return
