"""Changing what people own: manifests become resources, all of a call in one commit or none.

Every change is decided on the state that is read, and committed under the condition that it still is: a lost race is
decided anew, a bounded number of times, unless the caller named the version it wants to replace. So two callers never
overwrite each other unseen, and a caller who does not care never sees a race.

Not here: parsing of requests (services), rules (admission), what follows from a change (the loops, by themselves).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from grove_server.admission.admit import admit_pod_clique_set
from grove_server.admission.binding import admit_cluster_topology_binding
from grove_server.admission.context import AdmissionContext, Limits
from grove_server.admission.findings import Admitted, InvalidResourceError
from grove_server.api.errors import invalid_manifest
from grove_server.api.name_forms import NameForms
from grove_server.api.reasons import already_exists, being_deleted, not_found, version_conflict
from grove_server.control.indexes import SETS_BY_NAME_PATTERN
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.manifest import ClusterTopologyBindingManifest, PodCliqueSetManifest
from grove_server.resources.meta import Key, Kind
from grove_server.resources.violations import Reason, Violation
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Applied, Conflict, Put, Reader, Store

# Each lost race means that somebody else won one; ten in a row on one object is a fight, not bad luck.
ATTEMPTS_MAX: Final = 10

Manifest = PodCliqueSetManifest | ClusterTopologyBindingManifest
Owned = PodCliqueSet | ClusterTopologyBinding
# (set name, pattern) by namespace and normal form.
_Arriving = dict[tuple[str, str], list[tuple[str, str]]]


class Mode(enum.Enum):
    """What a caller expects to be there."""

    APPLY = enum.auto()
    CREATE = enum.auto()
    UPDATE = enum.auto()


class Action(enum.StrEnum):
    """What was done, in kubectl's words."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One manifest of a call. ``document`` is its number in a text of several, 0 for the only one of a request."""

    manifest: Manifest
    uid: str
    document: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one manifest."""

    resource: Owned
    action: Action
    warnings: tuple[str, ...]
    document: int = 0


class Changes:
    """Admits and commits manifests."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        now: Callable[[], float],
        new_uid: Callable[[], str],
    ) -> None:
        self._store = store
        self._limits = limits
        self._now = now
        self.new_uid = new_uid
        # Patterns of sets on their way into the store: two colliding sets at the same time must not both get in.
        self._arriving: _Arriving = {}
        self._forms = NameForms()

    def context(self, default_namespace: str) -> AdmissionContext:
        """Return the world as a request of this moment sees it."""
        bindings = {each.metadata.name: _domains(each) for each in self._store.read().list(ClusterTopologyBinding)}
        return AdmissionContext(
            now=self._now(),
            uid="",
            bindings=bindings,
            limits=self._limits,
            default_namespace=default_namespace,
        )

    async def apply(
        self,
        wanted: Sequence[Wanted],
        *,
        mode: Mode = Mode.APPLY,
        default_namespace: str,
        dry_run: bool = False,
        known_violations: Sequence[Violation] = (),
    ) -> list[Result]:
        """Make all manifests true in one commit, or nothing.

        *known_violations* were found before (documents that cannot be read); they refuse the call together with what is
        found here. Raises ApiError.
        """
        lost: Exception | None = None
        for _ in range(ATTEMPTS_MAX):
            results = self._admit_all(wanted, mode, default_namespace, known_violations)
            puts = [
                Put(result.resource, expected=_version_before(result))
                for result in results
                if result.action is not Action.UNCHANGED
            ]
            if dry_run or not puts:
                return results
            with self._announced(results):
                outcomes = await self._store.commit(puts, cause="api.apply")
            if all(isinstance(outcome, Applied) for outcome in outcomes):
                stored = {outcome.key: outcome.resource for outcome in outcomes if isinstance(outcome, Applied)}
                return [_as_stored(result, stored) for result in results]
            # The next look also says what is wrong where the caller named a version or wanted to create.
            lost = _race(outcomes)
        assert lost is not None, "the loop ran"
        raise lost

    def _admit_all(
        self, wanted: Sequence[Wanted], mode: Mode, default_namespace: str, known_violations: Sequence[Violation]
    ) -> list[Result]:
        """Admit every manifest on the state of this moment. Raises ApiError with the violations of all of them."""
        reader = self._store.read()
        violations = list(known_violations)
        results: dict[int, Result] = {}
        seen: dict[Key, int] = {}
        bindings: list[ClusterTopologyBinding] = []
        # Bindings first: a set in the same call may refer to one.
        order = sorted(range(len(wanted)), key=lambda i: isinstance(wanted[i].manifest, PodCliqueSetManifest))
        context = self.context(default_namespace)
        arriving: _Arriving = {}
        for position in order:
            each = wanted[position]
            key = _key(each.manifest, default_namespace)
            if key in seen:
                violations.append(
                    Violation(
                        _path(each.document, "metadata.name"),
                        Reason.DUPLICATE,
                        f"{key.kind} {key.name} is already in document {seen[key]}",
                    )
                )
                continue
            seen[key] = each.document
            try:
                result = self._admit(each, key, mode, reader, context, bindings, arriving)
            except InvalidResourceError as error:
                violations += (Violation(_path(each.document, v.path), v.reason, v.message) for v in error.violations)
                continue
            results[position] = result
            if isinstance(result.resource, ClusterTopologyBinding):
                bindings.append(result.resource)
            else:
                self._note(arriving, result.resource)
        if violations:
            raise invalid_manifest(violations)
        return [results[position] for position in sorted(results)]

    def _admit(
        self,
        wanted: Wanted,
        key: Key,
        mode: Mode,
        reader: Reader,
        context: AdmissionContext,
        bindings: Sequence[ClusterTopologyBinding],
        arriving: _Arriving,
    ) -> Result:
        manifest = wanted.manifest
        old = reader.get(key.kind, key.namespace, key.name)
        _check_expectation(old, key, mode, manifest.metadata.resource_version)
        if isinstance(manifest, ClusterTopologyBindingManifest):
            assert old is None or isinstance(old, ClusterTopologyBinding), "the store files by kind"
            binding = admit_cluster_topology_binding(manifest, old, replace(context, uid=wanted.uid))
            return _result(binding, wanted.document, is_new=old is None)
        assert old is None or isinstance(old, PodCliqueSet), "the store files by kind"
        own = replace(
            context,
            uid=wanted.uid,
            bindings={**context.bindings, **{each.metadata.name: _domains(each) for each in bindings}},
            name_patterns_taken=self._taken(reader, key, arriving),
        )
        admitted = admit_pod_clique_set(manifest, old, own)
        return _result(admitted, wanted.document, is_new=old is None)

    def _taken(self, reader: Reader, key: Key, arriving: _Arriving) -> Callable[[str], Iterator[tuple[str, str]]]:
        namespace = key.namespace

        def taken(form: str) -> Iterator[tuple[str, str]]:
            for other in reader.indexed(SETS_BY_NAME_PATTERN, (namespace, form)):
                for pattern, other_form in self._forms.of(other):
                    if other_form == form:
                        yield other.metadata.name, pattern
            yield from self._arriving.get((namespace, form), ())
            yield from arriving.get((namespace, form), ())

        return taken

    @contextmanager
    def _announced(self, results: Sequence[Result]) -> Iterator[None]:
        """Let other calls see the names of sets that are being created, until the store has them."""
        created = [
            result.resource
            for result in results
            if result.action is Action.CREATED and isinstance(result.resource, PodCliqueSet)
        ]
        for resource in created:
            self._note(self._arriving, resource)
        try:
            yield
        finally:
            for resource in created:
                for pattern, form in self._forms.of(resource):
                    entries = self._arriving[resource.metadata.namespace, form]
                    entries.remove((resource.metadata.name, pattern))
                    if not entries:
                        del self._arriving[resource.metadata.namespace, form]

    def _note(self, arriving: _Arriving, resource: PodCliqueSet) -> None:
        for pattern, form in self._forms.of(resource):
            arriving.setdefault((resource.metadata.namespace, form), []).append((resource.metadata.name, pattern))


def _check_expectation(old: object, key: Key, mode: Mode, expected_version: str | None) -> None:
    """Raise ApiError unless what is stored is what the caller expects."""
    if old is None:
        if mode is Mode.UPDATE:
            raise not_found(key.kind.value, key.namespace, [key.name])
        if expected_version and mode is Mode.APPLY:
            raise version_conflict(key.kind.value, key.namespace, key.name, 0)
        return
    assert isinstance(old, PodCliqueSet | ClusterTopologyBinding), "only these kinds have manifests"
    if mode is Mode.CREATE:
        raise already_exists(key.kind.value, key.namespace, key.name)
    if expected_version and expected_version != str(old.resource_version):
        raise version_conflict(key.kind.value, key.namespace, key.name, old.resource_version)
    if old.metadata.deleted_at is not None:
        raise being_deleted(key.kind.value, key.namespace, key.name)


def _domains(binding: ClusterTopologyBinding) -> tuple[str, ...]:
    return tuple(level.domain for level in binding.spec.levels)


def _key(manifest: Manifest, default_namespace: str) -> Key:
    if isinstance(manifest, ClusterTopologyBindingManifest):
        return Key(Kind.CLUSTER_TOPOLOGY_BINDING, "", manifest.metadata.name)
    return Key(Kind.POD_CLIQUE_SET, manifest.metadata.namespace or default_namespace, manifest.metadata.name)


def _path(document: int, path: str) -> str:
    if document == 0:
        return path
    return f"document[{document}].{path}" if path else f"document[{document}]"


def _result(
    admitted: Admitted[PodCliqueSet] | Admitted[ClusterTopologyBinding], document: int, *, is_new: bool
) -> Result:
    action = Action.CREATED if is_new else Action.CONFIGURED if admitted.changed else Action.UNCHANGED
    return Result(resource=admitted.resource, action=action, warnings=admitted.warnings, document=document)


def _version_before(result: Result) -> int:
    return 0 if result.action is Action.CREATED else result.resource.resource_version


def _as_stored(result: Result, stored: Mapping[Key, object]) -> Result:
    metadata = result.resource.metadata
    resource = stored.get(Key(result.resource.kind, metadata.namespace, metadata.name))
    if not isinstance(resource, PodCliqueSet | ClusterTopologyBinding):
        return result
    return Result(resource=resource, action=result.action, warnings=result.warnings, document=result.document)


def _race(outcomes: Sequence[object]) -> Exception:
    """Return the refusal for the first change that lost its race."""
    for outcome in outcomes:
        if isinstance(outcome, Conflict):
            return version_conflict(
                outcome.key.kind.value, outcome.key.namespace, outcome.key.name, outcome.current_version
            )
    key: Key = next(outcome.key for outcome in outcomes if hasattr(outcome, "key"))
    return version_conflict(key.kind.value, key.namespace, key.name, 0)
