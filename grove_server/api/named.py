"""Changing resources by name: scaling, cordoning, asking for deletion. Several names in a call are one change.

As with manifests, a change is decided on what is read and committed under the condition that it still is so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from grove_server.api.attribution import origin
from grove_server.api.changes import ATTEMPTS_MAX
from grove_server.api.reading import demand_name
from grove_server.api.reasons import ApiError, invalid_request, not_found_keys, version_conflict
from grove_server.resources.meta import Key, Kind, Resource, key_of
from grove_server.resources.violations import Reason as FieldReason
from grove_server.store.interface import Applied, Change, Conflict, Delete, Put, Store

NAMES_MAX: Final = 1_000

# From the resource to what it should become: another resource, a Delete, or None for no change.
Decide = Callable[[Any], Any]


def check_names(names: Sequence[str], names_max: int = NAMES_MAX, *, field: str = "names") -> None:
    """Raise ApiError unless *names*, a *field* of the request, is a list of 1 to *names_max* different names."""
    if not names:
        raise invalid_request(field, "at least one name is required", reason=FieldReason.REQUIRED)
    if len(names) > names_max:
        raise invalid_request(
            field, f"must have at most {names_max} names, has {len(names)}", reason=FieldReason.TOO_MANY
        )
    seen: set[str] = set()
    for name in names:
        demand_name(name)
        if name in seen:
            raise invalid_request(field, f"{name} is listed more than once", reason=FieldReason.DUPLICATE)
        seen.add(name)


def keys_of(kind: Kind, namespace: str, names: Sequence[str]) -> list[Key]:
    """Return the keys of resources of one kind in one namespace."""
    return [Key(kind, namespace, name) for name in names]


async def change_named(
    store: Store,
    keys: Sequence[Key],
    decide: Decide,
    *,
    expected_version: str = "",
    dry_run: bool = False,
    cause: str,
) -> list[tuple[Any, Any]]:
    """Change the named resources in one commit, or none of them; return (before, after) of each, in order.

    *decide* may raise ApiError. Raises ApiError if some do not exist (naming all of them), are not at
    *expected_version*, or lost their race too often.
    """
    conflict: ApiError | None = None
    for _ in range(ATTEMPTS_MAX):
        pairs = [(before, decide(before)) for before in _find(store, keys, expected_version)]
        changed = [_as_change(before, after) for before, after in pairs if after is not None]
        settled = [(before, before if after is None else after) for before, after in pairs]
        if dry_run or not changed:
            return settled
        outcomes = await store.commit(changed, cause=cause, origin=origin())
        if all(isinstance(outcome, Applied) for outcome in outcomes):
            stored = {outcome.key: outcome.resource for outcome in outcomes if isinstance(outcome, Applied)}
            return [(before, stored.get(key_of(before), after)) for before, after in settled]
        lost = next((each for each in outcomes if isinstance(each, Conflict)), None)
        key, version = (keys[0], 0) if lost is None else (lost.key, lost.current_version)
        conflict = version_conflict(key.kind.value, key.namespace, key.name, version)
    assert conflict is not None, "the loop ran"
    raise conflict


def _find(store: Store, keys: Sequence[Key], expected_version: str) -> list[Resource]:
    """Return the named resources. Raises ApiError naming all that do not exist."""
    reader = store.read()
    found: list[Resource] = []
    missing: list[Key] = []
    for key in keys:
        resource = reader.get(key.kind, key.namespace, key.name)
        if resource is None:
            missing.append(key)
        else:
            found.append(resource)
    if missing:
        raise not_found_keys(missing)
    for resource in found:
        if expected_version and str(resource.resource_version) != expected_version:
            metadata = resource.metadata
            raise version_conflict(resource.kind.value, metadata.namespace, metadata.name, resource.resource_version)
    return found


def _as_change(before: Resource, after: Resource | Delete) -> Change:
    if isinstance(after, Delete):
        return replace(after, expected=before.resource_version)
    return Put(after, expected=before.resource_version)


def mark_deleted(now: float) -> Decide:
    """Return the decision that asks for deletion; what is on its way out already stays as it is."""

    def decide(resource: Any) -> Any:  # noqa: ANN401 -- any kind of resource
        if resource.metadata.deleted_at is not None:
            return None
        return replace(resource, metadata=replace(resource.metadata, deleted_at=now))

    return decide


def remove_at_once(resource: Any) -> Delete:  # noqa: ANN401 -- any kind of resource
    """Decide that a resource which owns nothing goes at once."""
    return Delete(Key(resource.kind, resource.metadata.namespace, resource.metadata.name))
