"""What is the same for each kind that belongs to the cluster: identity, metadata, and how it is read in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Findings
from grove_server.admission.partial import with_findings
from grove_server.admission.validation_metadata import check_metadata
from grove_server.resources.manifest import ManifestMetadata
from grove_server.resources.meta import EMPTY_MAP, Kind, Metadata
from grove_server.resources.names import dns_subdomain_problem
from grove_server.resources.schema import Rest, SchemaError


class Named(Protocol):
    """A manifest, as far as its identity goes."""

    @property
    def metadata(self) -> ManifestMetadata:
        """What it says about the object itself."""


class Stored(Protocol):
    """A resource, as far as its identity goes."""

    @property
    def metadata(self) -> Metadata:
        """Its identity."""


M = TypeVar("M", bound=Named)
R = TypeVar("R", bound=Stored)
FindOld = Callable[[ManifestMetadata], R | None]


def check_identity(
    metadata: ManifestMetadata, old: Stored | None, kind: Kind, context: AdmissionContext, findings: Findings
) -> None:
    """Check name, labels and annotations, and that the object is the one stored and in no namespace."""
    problem = dns_subdomain_problem(metadata.name)
    if problem is not None:
        findings.invalid("metadata.name", problem)
    if metadata.namespace:
        findings.forbidden("metadata.namespace", f"may not be set: a {kind} belongs to the cluster")
    check_metadata(metadata, context.limits.labels_max, findings)
    if old is not None and metadata.uid and metadata.uid != old.metadata.uid:
        findings.immutable("metadata.uid", f"is that of another object: the one stored has {old.metadata.uid}")


def new_metadata(manifest: ManifestMetadata, context: AdmissionContext) -> Metadata:
    """Return the metadata of what is created."""
    return Metadata(
        name=manifest.name,
        uid=context.uid,
        created_at=context.now,
        labels=manifest.labels or EMPTY_MAP,
        annotations=manifest.annotations or EMPTY_MAP,
    )


def read_in_part(
    parse: Callable[[bytes], M],
    manifest_type: type[M],
    check: Callable[[M, R | None, Findings], None],
    data: bytes,
    find_old: FindOld[R] | None,
) -> M:
    """Parse *data*; if it is wrong in part, report what *check* finds in the rest of it too.

    *find_old* looks up what is stored under a name; without it the rules of a creation are checked. Raises SchemaError
    with everything that is wrong.
    """
    try:
        return parse(data)
    except SchemaError as error:

        def check_rest(rest: Rest, findings: Findings) -> None:
            manifest = rest.manifest
            assert isinstance(manifest, manifest_type), "it was read as one"
            is_named = not rest.gaps.cover("metadata.name")
            old = find_old(manifest.metadata) if find_old is not None and is_named else None
            check(manifest, old, findings)

        raise with_findings(error, check_rest) from error
