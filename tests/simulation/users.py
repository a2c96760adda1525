"""Users: they apply, scale, edit and delete, remember what was acknowledged, and hold the server to it.

A call ends in one of three ways: acknowledged, refused, or without an answer because the server went away or its disk
did; then it may have happened or not. What was acknowledged must stay, unless a later edit of a user replaced it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from grove_server.admission.findings import InvalidResourceError
from grove_server.admission.scale import admit_scale_of_clique, admit_scale_of_group, admit_scale_of_set
from grove_server.api.changes import Wanted
from grove_server.api.named import change_named, mark_deleted
from grove_server.api.reasons import ApiError
from grove_server.api.scaling import live_set
from grove_server.api.set_sizes import ScalesUnderway, pod_count
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.schema import SchemaError
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodCliqueSet, ScaleOwner
from grove_server.store.errors import StoreUnavailableError
from tests.simulation.books import Books
from tests.simulation.manifests import NAMESPACES, Author, Json
from tests.simulation.server import SimServer

S = TypeVar("S", PodClique, PodCliqueScalingGroup)

_OWNERS: Final = (ScaleOwner.USER, ScaleOwner.USER, ScaleOwner.AUTOSCALER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the server acknowledged of one set: its state at a version."""

    version: int
    state: PodCliqueSet


class Users:
    """All users. ``problems`` are broken promises."""

    def __init__(self, rng: random.Random, books: Books, now: Callable[[], float], *, sets_max: int) -> None:
        self._rng = rng
        self._books = books
        self._now = now
        self._author = Author(rng)
        self._sets_max = sets_max
        self._documents: dict[tuple[str, str], Json] = {}
        self._promises: dict[str, Promise] = {}
        self._count = 0
        self.answers = {"acknowledged": 0, "refused": 0, "unanswered": 0}
        self.refusals: dict[str, int] = {}

    @property
    def are_restless(self) -> bool:
        """Whether they mostly edit what their sets run."""
        return self._author.is_restless

    # What they do. Each returns what to call it in the log, empty if there was nothing to do.

    def apply_new(self, server: SimServer) -> str:
        """Apply a manifest that nobody has applied."""
        if len(self._books.sets) >= self._sets_max:
            return ""
        self._count += 1
        # Names come back: a set that is being deleted, or was, may be applied again.
        name, namespace = f"s{self._count % (2 * self._sets_max)}", self._rng.choice(NAMESPACES)
        document = self._documents[namespace, name] = self._author.write(name, namespace)
        server.call(partial(self._apply, server, copy.deepcopy(document)))
        return f"{namespace}/{name}"

    def edit(self, server: SimServer) -> str:
        """Edit a manifest and apply it, or apply it as it was."""
        owner = self.some_set()
        if owner is None:
            return ""
        metadata = owner.metadata
        document = self._documents.get((metadata.namespace, metadata.name))
        if document is None:
            return ""
        self._author.edit(document)
        server.call(partial(self._apply, server, copy.deepcopy(document)))
        return f"{metadata.namespace}/{metadata.name}"

    def scale_set(self, server: SimServer) -> str:
        """Set the number of copies."""
        owner = self.some_set()
        if owner is None:
            return ""
        size, by = self._rng.choice((0, 1, 1, 2, 2, 3)), self._rng.choice(_OWNERS)
        key = key_of(owner)
        changes, store = server.changes, server.store

        def decide(target: PodCliqueSet) -> PodCliqueSet | None:
            if target.metadata.deleted_at is not None:
                return None
            count = pod_count(store.read(), target, {}, key, size)
            context = changes.context(key.namespace)
            admitted = admit_scale_of_set(target, size, context, owner=by, pod_count=count)
            return admitted.resource if admitted.changed else None

        server.call(partial(self._change, server, [key], decide, "api.scale"))
        return f"{key.namespace}/{key.name} to {size} by {by}"

    def scale_clique(self, server: SimServer) -> str:
        """Set the size of one clique."""
        target = self._some_scalable(PodClique)
        if target is None:
            return ""
        size = self._rng.choice((0, target.min_available, target.min_available + self._rng.randrange(4)))
        by = self._rng.choice(_OWNERS)
        changes, store = server.changes, server.store

        def decide(clique: PodClique) -> PodClique | None:
            live = live_set(store.read(), ScalesUnderway(), clique, size)
            context = changes.context(clique.metadata.namespace)
            admitted = admit_scale_of_clique(clique, size, context, owner=by, live=live)
            return admitted.resource if admitted.changed else None

        server.call(partial(self._change, server, [key_of(target)], decide, "api.scale"))
        return f"{target.metadata.name} to {size} by {by}"

    def scale_group(self, server: SimServer) -> str:
        """Set the size of one group."""
        target = self._some_scalable(PodCliqueScalingGroup)
        if target is None:
            return ""
        size = self._rng.choice((0, target.min_available, target.min_available + self._rng.randrange(4)))
        by = self._rng.choice(_OWNERS)
        changes, store = server.changes, server.store

        def decide(group: PodCliqueScalingGroup) -> PodCliqueScalingGroup | None:
            live = live_set(store.read(), ScalesUnderway(), group, size)
            context = changes.context(group.metadata.namespace)
            admitted = admit_scale_of_group(group, size, context, owner=by, live=live)
            return admitted.resource if admitted.changed else None

        server.call(partial(self._change, server, [key_of(target)], decide, "api.scale"))
        return f"{target.metadata.name} to {size} by {by}"

    def delete_set(self, server: SimServer) -> str:
        """Ask for the deletion of a set."""
        owner = self.some_set()
        return "" if owner is None else self.delete(server, owner)

    def delete(self, server: SimServer, owner: PodCliqueSet) -> str:
        """Ask for the deletion of this set."""
        server.call(partial(self._change, server, [key_of(owner)], mark_deleted(self._now()), "api.delete"))
        return owner.metadata.name

    def mark(self, server: SimServer, names: list[str], *, is_ready: bool) -> str:
        """Let nodes fail or come back."""
        now = self._now()

        def decide(node: Node) -> Node | None:
            return None if node.ready is is_ready else replace(node, ready=is_ready, ready_changed_at=now)

        return self._change_nodes(server, names, decide, "api.node-failure")

    def some_nodes(self, count_max: int) -> list[str]:
        """Return some nodes that exist, at most so many."""
        names = sorted(key.name for key in self._books.rows if key.kind is Kind.NODE)
        return sorted(self._rng.sample(names, min(len(names), self._rng.randint(1, count_max))))

    # What they hold the server to.

    def broken_promises(self) -> Iterator[str]:
        """Yield what was acknowledged and is gone; for the disk, so at any time."""
        for uid, promise in self._promises.items():
            promised = promise.state
            key = key_of(promised)
            stored = self._books.set_of(uid)
            if stored is None:
                if promised.metadata.deleted_at is None and uid not in self._books.removed_sets:
                    yield f"{key} was acknowledged at version {promise.version} and is nowhere"
                continue
            if stored.resource_version < promise.version:
                yield f"{key} was acknowledged at version {promise.version} and is at {stored.resource_version}"
            elif stored.metadata.generation == promised.metadata.generation and stored.spec != promised.spec:
                yield f"{key} has another spec than was acknowledged at version {promise.version}"
            if promised.metadata.deleted_at is not None and stored.metadata.deleted_at is None:
                yield f"{key} was acknowledged as being deleted, and is not"

    # Calls, on the server's loop.

    async def _apply(self, server: SimServer, document: Json) -> None:
        async def call() -> None:
            namespace = document["metadata"]["namespace"]
            manifest = server.changes.read(Kind.POD_CLIQUE_SET, orjson.dumps(document), namespace)
            wanted = Wanted(manifest=manifest, uid=server.changes.new_uid())
            for result in await server.changes.apply([wanted], default_namespace=namespace):
                if isinstance(result.resource, PodCliqueSet):
                    self._promise(result.resource)

        await self.end(call())

    async def _change(self, server: SimServer, keys: list[Key], decide: Callable[[Any], Any], cause: str) -> None:
        async def call() -> None:
            for _, after in await change_named(server.store, keys, decide, cause=cause):
                if isinstance(after, PodCliqueSet):
                    self._promise(after)

        await self.end(call())

    def _change_nodes(self, server: SimServer, names: list[str], decide: Callable[[Any], Any], cause: str) -> str:
        if not names:
            return ""
        server.call(partial(self._change, server, [Key(Kind.NODE, "", name) for name in names], decide, cause))
        return ", ".join(names)

    async def end(self, call: Coroutine[Any, Any, None]) -> None:
        """Wait for a call and count how it ended."""
        try:
            await call
        except (ApiError, InvalidResourceError, SchemaError) as error:
            self.answers["refused"] += 1
            reason = str(error.reason) if isinstance(error, ApiError) else type(error).__name__
            self.refusals[reason] = self.refusals.get(reason, 0) + 1
        except StoreUnavailableError:
            self.answers["unanswered"] += 1
        else:
            self.answers["acknowledged"] += 1

    def _promise(self, state: PodCliqueSet) -> None:
        uid = state.metadata.uid
        known = self._promises.get(uid)
        if known is None or known.version < state.resource_version:
            self._promises[uid] = Promise(version=state.resource_version, state=state)

    # Choosing.

    def some_set(self) -> PodCliqueSet | None:
        """Return some set."""
        uids: list[str] = [*self._books.sets]
        return self._books.set_of(self._rng.choice(uids)) if uids else None

    def _some_scalable(self, kind: type[S]) -> S | None:
        """Return some clique or group of some set."""
        owner = self.some_set()
        of_set = {} if owner is None else self._books.scalable.get(owner.metadata.uid, {})
        keys = [key for key in of_set if key.kind is kind.kind]
        found = self._books.rows[self._rng.choice(keys)] if keys else None
        return found if isinstance(found, kind) else None

    def some_pod(self) -> Pod | None:
        """Return some pod of some set."""
        owner = self.some_set()
        if owner is None or not owner.spec.replicas:
            return None
        copy_index = self._rng.randrange(owner.spec.replicas)
        pods = [*self._books.pods_of_copy.get((owner.metadata.uid, copy_index), {}).values()]
        return self._rng.choice(pods) if pods else None
