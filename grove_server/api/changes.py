"""Changing what people own: manifests become resources, all of a call in one commit or none.

Every change is decided on the state that is read, and committed under the condition that it still is: a lost race is
decided anew, a bounded number of times, unless the caller named the version it wants to replace. So two callers never
overwrite each other unseen, and a caller who does not care never sees a race.

Not here: parsing of requests (services), rules (admission), what follows from a change (the loops, by themselves).
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from grove_server.admission.admit import admit_pod_clique_set, read_pod_clique_set
from grove_server.admission.binding import admit_cluster_topology_binding, read_cluster_topology_binding
from grove_server.admission.context import AdmissionContext, Limits
from grove_server.admission.findings import Admitted, InvalidResourceError
from grove_server.api.attribution import origin
from grove_server.api.conversions.pod_clique_sets import prepare_spec, unreadable_path
from grove_server.api.conversions.wire import NestingError
from grove_server.api.errors import invalid_manifest
from grove_server.api.gathering import Gathering
from grove_server.api.name_forms import Arrivals
from grove_server.api.reasons import already_exists, being_deleted, not_found, version_conflict
from grove_server.api.set_sizes import AnnounceEdit, ScalesUnderway, pod_count_grown
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.manifest import ClusterTopologyBindingManifest, ManifestMetadata, PodCliqueSetManifest
from grove_server.resources.meta import Key, Kind
from grove_server.resources.violations import Reason, Violation
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Applied, Conflict, Put, Reader, Store

# Each lost race means that somebody else won one; ten in a row on one object is a fight, not bad luck.
ATTEMPTS_MAX: Final = 10
# Many manifests are admitted in steps of this length, with the event loop free in between.
STEP_S_MAX: Final = 0.004

Manifest = PodCliqueSetManifest | ClusterTopologyBindingManifest
Owned = PodCliqueSet | ClusterTopologyBinding


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
    """One manifest of a call.

    ``document`` is its number in a text of several and ``where`` stands before its field paths; 0 and empty for the
    only one of a request.
    """

    manifest: Manifest
    uid: str
    document: int = 0
    where: str = ""


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
        gathering: Gathering,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._limits = limits
        self._now = now
        self.new_uid = new_uid
        self._gathering = gathering
        self._stopwatch = stopwatch
        self._arrivals = Arrivals()
        self.scales = ScalesUnderway()

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

    def read_set(
        self, data: bytes, default_namespace: str, arriving: Mapping[str, tuple[str, ...]] | None = None
    ) -> PodCliqueSetManifest:
        """Return the set manifest in *data* (JSON). Raises SchemaError with all that is wrong with it.

        *arriving* are the domains of topology bindings that come in the same call, by name.
        """

        def current(metadata: ManifestMetadata) -> PodCliqueSet | None:
            return self._store.read().get(PodCliqueSet, metadata.namespace or default_namespace, metadata.name)

        context = self.context(default_namespace)
        if arriving:
            context = replace(context, bindings={**context.bindings, **arriving})
        return read_pod_clique_set(data, context, current)

    def read_binding(self, data: bytes) -> ClusterTopologyBindingManifest:
        """Return the topology binding in *data* (JSON). Raises SchemaError with all that is wrong with it."""

        def current(name: str) -> ClusterTopologyBinding | None:
            return self._store.read().get(ClusterTopologyBinding, "", name)

        return read_cluster_topology_binding(data, self.context(""), current)

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
            with self._arrivals.announcing() as announce, self.scales.editing() as announce_edit:
                admission = _Admission(
                    mode=mode,
                    reader=self._store.read(),
                    context=self.context(default_namespace),
                    arrivals=self._arrivals,
                    announce=announce,
                    scales=self.scales,
                    announce_edit=announce_edit,
                    violations=list(known_violations),
                    stopwatch=self._stopwatch,
                )
                results = await admission.admit_all(wanted)
                puts = [
                    Put(result.resource, expected=_version_before(result))
                    for result in results
                    if result.action is not Action.UNCHANGED
                ]
                if dry_run or not puts:
                    return results
                await self._gathering.wait()
                outcomes = await self._store.commit(puts, cause="api.apply", origin=origin())
            if all(isinstance(outcome, Applied) for outcome in outcomes):
                stored = {outcome.key: outcome.resource for outcome in outcomes if isinstance(outcome, Applied)}
                return [_as_stored(result, stored) for result in results]
            # The next look also says what is wrong where the caller named a version or wanted to create.
            lost = _race(outcomes)
        assert lost is not None, "the loop ran"
        raise lost


@dataclass(slots=True, kw_only=True)
class _Admission:
    """One attempt at admitting all manifests of a call."""

    mode: Mode
    reader: Reader
    context: AdmissionContext
    arrivals: Arrivals
    announce: Callable[[PodCliqueSet], None]
    scales: ScalesUnderway
    announce_edit: AnnounceEdit
    violations: list[Violation]
    stopwatch: Callable[[], float]
    _step_ends_s: float = 0.0

    async def admit_all(self, wanted: Sequence[Wanted]) -> list[Result]:
        """Admit every manifest, in steps. Raises ApiError with the violations of all of them.

        What is read may change between steps; the commit's conditions then fail, and the next attempt sees it.
        """
        results: dict[int, Result] = {}
        seen: dict[Key, str] = {}
        # Bindings first: a set in the same call may refer to one.
        order = sorted(range(len(wanted)), key=lambda i: isinstance(wanted[i].manifest, PodCliqueSetManifest))
        self._step_ends_s = self.stopwatch() + STEP_S_MAX
        for position in order:
            each = wanted[position]
            key = _key(each.manifest, self.context.default_namespace)
            if key in seen:
                message = f"{key.kind} {key.name} is in {seen[key]} already"
                self.violations.append(Violation(_path(each.where, "metadata.name"), Reason.DUPLICATE, message))
                continue
            seen[key] = each.where
            try:
                results[position] = self._admit(each, key)
                # Together with admission, this would hold the loop too long for a set of a hundred KiB.
                await self._breathe_if_due()
                _check_readable(results[position].resource)
            except InvalidResourceError as error:
                self.violations += (Violation(_path(each.where, v.path), v.reason, v.message) for v in error.violations)
            await self._breathe_if_due()
        if self.violations:
            raise invalid_manifest(self.violations)
        return [results[position] for position in sorted(results)]

    async def _breathe_if_due(self) -> None:
        if self.stopwatch() >= self._step_ends_s:
            await asyncio.sleep(0)
            self._step_ends_s = self.stopwatch() + STEP_S_MAX

    def _admit(self, wanted: Wanted, key: Key) -> Result:
        manifest = wanted.manifest
        old = self.reader.get(key.kind, key.namespace, key.name)
        _check_expectation(old, key, self.mode, manifest.metadata.resource_version)
        context = replace(self.context, uid=wanted.uid)
        if isinstance(manifest, ClusterTopologyBindingManifest):
            assert old is None or isinstance(old, ClusterTopologyBinding), "the store files by kind"
            binding = admit_cluster_topology_binding(manifest, old, context)
            name = binding.resource.metadata.name
            self.context = replace(self.context, bindings={**self.context.bindings, name: _domains(binding.resource)})
            return _result(binding, wanted.document, is_new=old is None)
        assert old is None or isinstance(old, PodCliqueSet), "the store files by kind"
        context = replace(context, name_patterns_taken=self.arrivals.taken(self.reader, key.namespace, key.name))
        admitted = admit_pod_clique_set(manifest, old, context)
        if old is None:
            self.announce(admitted.resource)
        elif admitted.changed:
            self._demand_room(old, admitted.resource)
        return _result(admitted, wanted.document, is_new=old is None)

    def _demand_room(self, old: PodCliqueSet, edited: PodCliqueSet) -> None:
        """Refuse an edit that makes a set larger than it may be, with the live sizes of what was scaled."""
        limit = self.context.limits.pods_per_set_max
        count = pod_count_grown(self.reader, self.scales.of_set(old.metadata.uid), old, edited)
        if count > limit:
            message = f"would give the set {count} pods with what was scaled, more than the {limit} a set may have"
            violation = Violation("spec", Reason.TOO_MANY, message)
            raise InvalidResourceError(edited.kind, edited.metadata.name, (violation,))
        self.announce_edit(edited)


def _check_readable(resource: Owned) -> None:
    """Refuse what could be stored and then never be shown. The work is not lost: the answer is made of it."""
    if not isinstance(resource, PodCliqueSet):
        return
    try:
        prepare_spec(resource)
    except NestingError as error:
        violation = Violation(unreadable_path(resource), Reason.INVALID, f"must not be {error}")
        raise InvalidResourceError(resource.kind, resource.metadata.name, (violation,)) from error


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


def _path(where: str, path: str) -> str:
    return f"{where}.{path}" if where and path else where or path


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
