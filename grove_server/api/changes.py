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
from dataclasses import dataclass
from typing import Any, Final

from grove_server.admission.context import AdmissionContext, Limits, Misfit
from grove_server.admission.findings import Admitted, InvalidResourceError
from grove_server.api.attribution import origin
from grove_server.api.conversions.pod_clique_sets import prepare_spec, unreadable_path
from grove_server.api.conversions.wire import NestingError
from grove_server.api.errors import invalid_manifest
from grove_server.api.gathering import Gathering
from grove_server.api.name_forms import Arrivals
from grove_server.api.node_manifests import free_addresses
from grove_server.api.reasons import already_exists, being_deleted, not_found, version_conflict
from grove_server.api.set_sizes import AnnounceEdit, ScalesUnderway, pod_count_grown
from grove_server.api.writable import (
    BY_KIND,
    ORDER,
    Arriving,
    Owned,
    Written,
    key_of_manifest,
    row_of,
    stored_bindings,
    stored_defaults,
    stored_queues,
    stored_scaling_policies,
    stored_sets,
)
from grove_server.placement.allowances import beyond_limits
from grove_server.resources.cluster import Node
from grove_server.resources.manifest import ManifestMetadata
from grove_server.resources.meta import CLUSTER_SCOPED, Key, Kind
from grove_server.resources.queues import Queue, QueueSpec, lineage
from grove_server.resources.replacing import replace
from grove_server.resources.violations import Reason, Violation
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Applied, Conflict, Put, Reader, Store

# Each lost race means that somebody else won one; ten in a row on one object is a fight, not bad luck.
ATTEMPTS_MAX: Final = 10
# Many manifests are admitted in steps of this length, with the event loop free in between.
STEP_S_MAX: Final = 0.004


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

    manifest: Written
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
        misfit: Misfit | None = None,
    ) -> None:
        self._store = store
        self._misfit = misfit
        self._limits = limits
        self._now = now
        self.new_uid = new_uid
        self._gathering = gathering
        self._stopwatch = stopwatch
        self._arrivals = Arrivals()
        self.scales = ScalesUnderway()

    def context(self, default_namespace: str) -> AdmissionContext:
        """Return the world as a request of this moment sees it."""
        reader = self._store.read()
        context = AdmissionContext(
            beyond_limits=beyond_limits,
            now=self._now(),
            uid="",
            bindings=stored_bindings(reader),
            global_defaults=stored_defaults(reader),
            queues=stored_queues(reader),
            sets=stored_sets(reader),
            scaling_policies=stored_scaling_policies(reader),
            limits=self._limits,
            default_namespace=default_namespace,
            node_address=free_addresses(lambda: frozenset(node.address for node in reader.list(Node))),
        )
        return context if self._misfit is None else replace(context, misfit=self._misfit)

    def read(self, kind: Kind, data: bytes, default_namespace: str = "", arriving: Arriving | None = None) -> Written:
        """Return the manifest of *kind* in *data* (JSON). Raises SchemaError with all that is wrong with it.

        *arriving* is what comes in the same call.
        """
        row = BY_KIND[kind]

        def current(metadata: ManifestMetadata) -> Owned | None:
            namespace = "" if kind in CLUSTER_SCOPED else metadata.namespace or default_namespace
            found = self._store.read().get(kind, namespace, metadata.name)
            assert found is None or isinstance(found, row.owned), "the store files by kind"
            return found

        context = self.context(default_namespace)
        return row.read(data, context if arriving is None else arriving.join(context), current)

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
                    context=_with_arriving(self.context(default_namespace), wanted),
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
                puts += _queues_above(results, admission.reader)
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
        order = sorted(range(len(wanted)), key=lambda position: ORDER[row_of(wanted[position].manifest).kind])
        self._step_ends_s = self.stopwatch() + STEP_S_MAX
        for position in order:
            each = wanted[position]
            key = key_of_manifest(each.manifest, self.context.default_namespace)
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
        if key.kind is Kind.POD_CLIQUE_SET:
            context = replace(context, name_patterns_taken=self.arrivals.taken(self.reader, key.namespace, key.name))
        admitted = row_of(manifest).admit(manifest, old, context)
        if isinstance(admitted.resource, PodCliqueSet):
            if old is None:
                self.announce(admitted.resource)
            elif admitted.changed:
                assert isinstance(old, PodCliqueSet), "the store files by kind"
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


def _with_arriving(context: AdmissionContext, wanted: Sequence[Wanted]) -> AdmissionContext:
    """Return *context* with what the manifests of the call bring."""
    arriving = Arriving()
    for each in wanted:
        arriving.note(each.manifest)
    return arriving.join(context)


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
    assert isinstance(old, Owned), "only these kinds have manifests"
    if mode is Mode.CREATE:
        raise already_exists(key.kind.value, key.namespace, key.name)
    if expected_version and expected_version != str(old.resource_version):
        raise version_conflict(key.kind.value, key.namespace, key.name, old.resource_version)
    if old.metadata.deleted_at is not None:
        raise being_deleted(key.kind.value, key.namespace, key.name)


def _path(where: str, path: str) -> str:
    return f"{where}.{path}" if where and path else where or path


def _result(admitted: Admitted[Any], document: int, *, is_new: bool) -> Result:
    action = Action.CREATED if is_new else Action.CONFIGURED if admitted.changed else Action.UNCHANGED
    return Result(resource=admitted.resource, action=action, warnings=admitted.warnings, document=document)


def _version_before(result: Result) -> int:
    return 0 if result.action is Action.CREATED else result.resource.resource_version


def _queues_above(results: Sequence[Result], reader: Reader) -> list[Put]:
    """Return the queues above those that move, as they are, on the version that admission saw.

    So of two moves at the same moment that would make a circle together the second one is admitted anew.
    """
    specs = {queue.metadata.name: queue.spec for queue in reader.list(Queue)}
    changed = {each.resource.metadata.name for each in results if isinstance(each.resource, Queue)}
    above: dict[str, None] = {}
    for each in results:
        queue = each.resource
        if isinstance(queue, Queue) and each.action is Action.CONFIGURED and _moves(queue, specs):
            above.update(dict.fromkeys(lineage(queue.spec.parent, specs) or ()))
    rows = (reader.get(Queue, "", name) for name in above if name not in changed)
    return [Put(row, expected=row.resource_version) for row in rows if row is not None]


def _moves(queue: Queue, specs: Mapping[str, QueueSpec]) -> bool:
    before = specs.get(queue.metadata.name)
    return before is not None and before.parent != queue.spec.parent


def _as_stored(result: Result, stored: Mapping[Key, object]) -> Result:
    metadata = result.resource.metadata
    resource = stored.get(Key(result.resource.kind, metadata.namespace, metadata.name))
    if not isinstance(resource, Owned):
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
