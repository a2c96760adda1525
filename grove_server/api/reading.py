"""Get, List and Watch, the same for every kind.

All messages of the contract number the fields that matter here alike (a test compares them with the descriptors): a
list response has its items in 1, its version in 2, its tokens in 3 and 4; a watch response has type, object and token
in 1, 2 and 3. So answers are put together from serialized resources.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from grove_server.api.conversions.wire import nested, text
from grove_server.api.pages import Listing, Listings
from grove_server.api.pipeline import Awaited, Call, Method, Ready, Streamed
from grove_server.api.reasons import invalid_request, not_found
from grove_server.api.streams import Streams
from grove_server.api.views import Views
from grove_server.resources.meta import CLUSTER_SCOPED, Kind, Resource
from grove_server.resources.selector import EVERYTHING, Selector, parse_selector
from grove_server.resources.violations import Reason as FieldReason
from grove_server.store.interface import Store

DEFAULT_NAMESPACE: Final = "default"
PAGE_SIZE_DEFAULT: Final = 500
PAGE_SIZE_MAX: Final = 5_000
PAGE_BYTES_MAX: Final = 2 << 20
# A page is made in steps of this length, with the event loop free in between.
STEP_S_MAX: Final = 0.004
_NAME_LENGTH_MAX: Final = 253

ITEMS_FIELD: Final = 1
VERSION_FIELD: Final = 2
NEXT_PAGE_FIELD: Final = 3
RESUME_FIELD: Final = 4

Filter = Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The request messages of one kind."""

    get: type[Message] | None
    list: type[Message]
    watch: type[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which resources: the common part of List and Watch. ``namespace`` None means all."""

    namespace: str | None
    selector: Selector
    extra: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all services read from."""

    store: Store
    views: Views
    listings: Listings
    streams: Streams


class Reading:
    """Get, List and Watch of one kind."""

    def __init__(
        self,
        shared: Shared,
        kind: Kind,
        requests: Requests,
        *,
        sort_key: Callable[[Any], Any] | None = None,
        extra_filter: Callable[[Any], tuple[Hashable, Filter | None]] | None = None,
    ) -> None:
        self._shared = shared
        self._kind = kind
        self._requests = requests
        self._sort_key = sort_key
        self._extra_filter = extra_filter
        self._is_cluster_scoped = kind in CLUSTER_SCOPED

    def methods(self) -> dict[str, Method]:
        """Return the three methods by name."""
        methods: dict[str, Method] = {
            "List": Awaited(self._requests.list, self.list),
            "Watch": Streamed(self._requests.watch, self.watch),
        }
        if self._requests.get is not None:
            methods["Get"] = Ready(self._requests.get, self.get)
        return methods

    def get(self, request: Any) -> bytes:  # noqa: ANN401 -- one of several request messages of the same shape
        """Return one resource."""
        namespace = "" if self._is_cluster_scoped else request.namespace or DEFAULT_NAMESPACE
        resource = self._shared.store.read().get(self._kind, namespace, request.name)
        if resource is None:
            demand_name(request.name)
            raise not_found(self._kind.value, namespace, [request.name])
        return self._shared.views.of(resource)

    async def list(self, request: Any, _call: Call) -> bytes:  # noqa: ANN401 -- as above
        """Return one page."""
        if request.page_size < 0:
            raise invalid_request("pageSize", f"must be 0 or more, got {request.page_size}")
        page_size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        query, wanted = self._query(request)
        listing_id, listing, position = "", None, 0
        if request.page_token:
            listing_id, listing, position = self._shared.listings.resume(request.page_token, (self._kind, query))
        if listing is None:
            listing = await self._begin(query, wanted)
        return await self._page(listing_id, listing, position, page_size)

    async def watch(self, request: Any, call: Call) -> None:  # noqa: ANN401 -- as above
        """Stream until the client, the store or the server ends it."""
        query, wanted = self._query(request)
        name = getattr(request, "name", "") or None
        if name is not None:
            demand_name(name)
        watch = self._shared.store.watch(
            self._kind,
            namespace="" if self._is_cluster_scoped else query.namespace,
            name=name,
            labels=None if query.selector == EVERYTHING else query.selector,
            token=request.resume_token or None,
        )
        await self._shared.streams.serve(watch, call, wanted)

    def _query(self, request: Any) -> tuple[Query, Filter | None]:  # noqa: ANN401 -- as above
        namespace: str | None = None
        if not self._is_cluster_scoped:
            if not request.all_namespaces:
                namespace = request.namespace or DEFAULT_NAMESPACE
            elif request.namespace:
                raise invalid_request("namespace", "must be empty with allNamespaces", reason=FieldReason.FORBIDDEN)
        selector = parse_selector(request.label_selector) if request.label_selector else EVERYTHING
        extra: Hashable = None
        wanted: Filter | None = None
        if self._extra_filter is not None:
            extra, wanted = self._extra_filter(request)
        return Query(namespace=namespace, selector=selector, extra=extra), wanted

    async def _begin(self, query: Query, wanted: Filter | None) -> Listing:
        """Take the list of this moment, then filter and sort it without holding the loop for long."""
        store = self._shared.store
        reader = store.read()
        version, token = reader.version, store.token()
        found = reader.list(self._kind, query.namespace)
        if query.selector != EVERYTHING or wanted is not None:
            found = await _filtered(found, query.selector, wanted)
        items = sorted(found, key=self._sort_key or _by_name)
        return self._shared.listings.begin((self._kind, query), items, version, token)

    async def _page(self, listing_id: str, listing: Listing, position: int, page_size: int) -> bytes:
        views = self._shared.views
        parts: list[bytes] = []
        size = 0
        items = listing.items
        end = min(position + page_size, len(items))
        step_ends_s = time.perf_counter() + STEP_S_MAX
        while position < end:
            part = nested(ITEMS_FIELD, views.of(items[position]))
            if parts and size + len(part) > PAGE_BYTES_MAX:
                break
            parts.append(part)
            size += len(part)
            position += 1
            if time.perf_counter() >= step_ends_s:
                await asyncio.sleep(0)
                step_ends_s = time.perf_counter() + STEP_S_MAX
        parts.append(text(VERSION_FIELD, str(listing.resource_version)))
        if position < len(items):
            listing_id = listing_id or self._shared.listings.keep(listing)
            parts.append(text(NEXT_PAGE_FIELD, self._shared.listings.token(listing_id, position)))
        parts.append(text(RESUME_FIELD, listing.resume_token))
        return b"".join(parts)


async def _filtered(found: Any, selector: Selector, wanted: Filter | None) -> list[Resource]:  # noqa: ANN401 -- a list
    kept: list[Resource] = []
    step_ends_s = time.perf_counter() + STEP_S_MAX
    for position, resource in enumerate(found):
        if selector.matches(resource.metadata.labels) and (wanted is None or wanted(resource)):
            kept.append(resource)
        if position % 256 == 0 and time.perf_counter() >= step_ends_s:
            await asyncio.sleep(0)
            step_ends_s = time.perf_counter() + STEP_S_MAX
    return kept


def _by_name(resource: Resource) -> tuple[str, str]:
    metadata = resource.metadata
    return (metadata.namespace, metadata.name)


def demand_name(name: str) -> None:
    """Raise the refusal of a request that names nothing, or something no resource can be called."""
    if not name:
        raise invalid_request("name", "is required", reason=FieldReason.REQUIRED)
    if len(name) > _NAME_LENGTH_MAX:
        raise invalid_request(
            "name", f"must have at most {_NAME_LENGTH_MAX} characters, has {len(name)}", reason=FieldReason.TOO_LONG
        )


def field_numbers() -> Mapping[str, int]:
    """Return the numbering that this module relies on, for the test that compares it with the descriptors."""
    return {
        "items": ITEMS_FIELD,
        "resource_version": VERSION_FIELD,
        "next_page_token": NEXT_PAGE_FIELD,
        "resume_token": RESUME_FIELD,
    }
