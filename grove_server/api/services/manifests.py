"""ManifestService: texts as people write them; the server parses, so every client says the same about a mistake.

All documents of a call are one change. A document that cannot be read does not hide what is wrong with the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from grove.v1 import manifest_pb2 as pb
from grove_server.api.access import demand
from grove_server.api.backend import Backend
from grove_server.api.changes import STEP_S_MAX, Wanted
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.errors import invalid_manifest
from grove_server.api.named import change_named
from grove_server.api.node_manifests import NodeManifest
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE
from grove_server.api.removal import removal
from grove_server.api.services.nodes import demand_simulated_nodes
from grove_server.api.tables import Access
from grove_server.api.writable import BY_NAME, ORDER, Arriving, key_of_manifest
from grove_server.resources.document import Document, Documents, read_documents
from grove_server.resources.meta import API_VERSIONS, CLUSTER_SCOPED, Key, Kind
from grove_server.resources.schema import SchemaError
from grove_server.resources.violations import Reason, Violation, quoted

# Longer texts are read in a thread, because the reading alone would hold the event loop.
_INLINE_BYTES_MAX: Final = 16 << 10
_MADE_BY_SETS: Final = frozenset({"PodClique", "PodCliqueScalingGroup", "PodGang", "Pod"})
_MADE_BY_SERVER: Final = frozenset({"Event"})


class ManifestService:
    """Manifests: Apply, Delete."""

    name = "grove.v1.ManifestService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            "Apply": Awaited(pb.ManifestServiceApplyRequest, self.apply),
            "Delete": Awaited(pb.ManifestServiceDeleteRequest, self.delete),
        }

    async def apply(self, request: pb.ManifestServiceApplyRequest, call: Call) -> bytes:
        """Apply all documents, or none."""
        refuse_unknown_fields(request)
        changes = self._backend.changes
        default_namespace = request.default_namespace or DEFAULT_NAMESPACE
        wanted, violations = await read_manifests(self._backend, request.manifest, default_namespace)
        if any(key_of_manifest(each.manifest, default_namespace).kind in CLUSTER_SCOPED for each in wanted):
            demand(call.identity, Access.ADMIN)
        if any(isinstance(each.manifest, NodeManifest) for each in wanted):
            demand_simulated_nodes(self._backend)
        results = await changes.apply(
            wanted,
            default_namespace=default_namespace,
            dry_run=request.validate_only,
            known_violations=violations,
        )
        return pb.ManifestServiceApplyResponse(
            results=[
                pb.ManifestResult(
                    document=result.document,
                    api_version=API_VERSIONS[result.resource.kind],
                    kind=result.resource.kind.value,
                    namespace=result.resource.metadata.namespace,
                    name=result.resource.metadata.name,
                    action=result.action.value,
                    resource_version="" if request.validate_only else str(result.resource.resource_version),
                    warnings=result.warnings,
                )
                for result in results
            ]
        ).SerializeToString()

    async def delete(self, request: pb.ManifestServiceDeleteRequest, call: Call) -> bytes:
        """Delete what all documents name, or nothing."""
        refuse_unknown_fields(request)
        default_namespace = request.default_namespace or DEFAULT_NAMESPACE
        named = _keys(await _read(request.manifest), default_namespace)
        if any(key.kind in CLUSTER_SCOPED for _, key in named):
            demand(call.identity, Access.ADMIN)
        if any(key.kind is Kind.NODE for _, key in named):
            demand_simulated_nodes(self._backend)
        reader = self._backend.shared.store.read()
        gone: set[Key] = set()
        if request.ignore_not_found:
            gone = {key for _, key in named if reader.get(key.kind, key.namespace, key.name) is None}
        keys = [key for _, key in named if key not in gone]
        await change_named(
            self._backend.shared.store,
            keys,
            removal(self._backend.shared.store, keys, self._backend.now()),
            dry_run=request.validate_only,
            cause="api.delete",
        )
        return pb.ManifestServiceDeleteResponse(
            results=[
                pb.ManifestResult(
                    document=number,
                    api_version=API_VERSIONS[key.kind],
                    kind=key.kind.value,
                    namespace=key.namespace,
                    name=key.name,
                    action="notfound" if key in gone else "deleted",
                )
                for number, key in named
            ]
        ).SerializeToString()


async def read_manifests(backend: Backend, text: str, default_namespace: str) -> tuple[list[Wanted], list[Violation]]:
    """Return the manifests in *text*, and what is wrong with those that cannot be read."""
    documents = await _read(text)
    violations = _problems(documents)
    wanted: dict[int, Wanted] = {}
    arriving = Arriving()
    ordered: list[tuple[int, int, Document]] = []
    for position, document in enumerate(documents.documents):
        row = BY_NAME.get(_type_of(document.content))
        ordered.append((-1 if row is None else ORDER[row.kind], position, document))
        if row is not None:
            arriving.note_unread(row.kind, document.content)
    ordered.sort(key=lambda each: each[:2])
    step_ends_s = time.perf_counter() + STEP_S_MAX
    # What others refer to first: a set may refer to a binding of the same text, whatever else is wrong with the set.
    for _, position, document in ordered:
        try:
            kind = _kind(document.content)
            manifest = backend.changes.read(kind, document.to_json(), default_namespace, arriving)
            arriving.note(manifest)
        except SchemaError as error:
            violations += (Violation(_path(document, v.path), v.reason, v.message) for v in error.violations)
        else:
            wanted[position] = Wanted(
                manifest=manifest,
                uid=backend.changes.new_uid(),
                document=document.number,
                where=_path(document, ""),
            )
        if time.perf_counter() >= step_ends_s:
            await asyncio.sleep(0)
            step_ends_s = time.perf_counter() + STEP_S_MAX
    if not wanted and not violations:
        violations.append(Violation("manifest", Reason.REQUIRED, "holds no documents"))
    return [wanted[position] for position in sorted(wanted)], violations


async def _read(text: str) -> Documents:
    data = text.encode()
    if len(data) > _INLINE_BYTES_MAX:
        return await asyncio.to_thread(read_documents, data)
    return read_documents(data)


def _problems(documents: Documents) -> list[Violation]:
    return [
        Violation(
            f"document[{problem.number}]" if problem.number else "manifest",
            Reason.INVALID,
            f"line {problem.line}: {problem.message}" if problem.number else problem.message,
        )
        for problem in documents.problems
    ]


def _path(document: Document, path: str) -> str:
    item = "" if document.item is None else f".items[{document.item}]"
    return f"document[{document.number}]{item}{'.' if path else ''}{path}"


def _type_of(content: Mapping[str, Any]) -> tuple[str, str]:
    """Return apiVersion and kind, empty where they are no strings."""
    api_version, kind = content.get("apiVersion"), content.get("kind")
    return api_version if isinstance(api_version, str) else "", kind if isinstance(kind, str) else ""


def _kind(content: Mapping[str, Any]) -> Kind:
    """Return the kind of a document. Raises SchemaError for those that nobody writes."""
    api_version, kind = content.get("apiVersion"), content.get("kind")
    found = BY_NAME.get(_type_of(content))
    if found is not None:
        return found.kind
    if kind in _MADE_BY_SETS:
        violation = Violation("kind", Reason.FORBIDDEN, f"{kind}s are made by their PodCliqueSet; apply that")
    elif kind in _MADE_BY_SERVER:
        violation = Violation("kind", Reason.FORBIDDEN, f"{kind}s are made by the server")
    elif kind in {each for _, each in BY_NAME}:
        expected = next(version for version, each in BY_NAME if each == kind)
        violation = Violation("apiVersion", Reason.NOT_SUPPORTED, f"must be {expected}, got {quoted(api_version)}")
    else:
        known = ", ".join(sorted(each for _, each in BY_NAME))
        violation = Violation("kind", Reason.NOT_SUPPORTED, f"must be one of {known}, got {quoted(kind)}")
    raise SchemaError((violation,))


def _keys(documents: Documents, default_namespace: str) -> list[tuple[int, Key]]:
    """Return number and key of what each document names, each key once. Raises ApiError."""
    violations = _problems(documents)
    keys: dict[Key, int] = {}
    for document in documents.documents:
        try:
            kind = _kind(document.content)
        except SchemaError as error:
            violations += (Violation(_path(document, v.path), v.reason, v.message) for v in error.violations)
            continue
        metadata = document.content.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
        if not isinstance(name, str) or not name or not isinstance(namespace, str | None):
            violations.append(Violation(_path(document, "metadata.name"), Reason.REQUIRED, "is required"))
            continue
        keys.setdefault(
            Key(kind, "" if kind in CLUSTER_SCOPED else namespace or default_namespace, name), document.number
        )
    if not keys and not violations:
        violations.append(Violation("manifest", Reason.REQUIRED, "holds no documents"))
    if violations:
        raise invalid_manifest(violations)
    return [(number, key) for key, number in keys.items()]
