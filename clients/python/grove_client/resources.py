"""Typed access to the resources of one kind: get, list, watch, and what else its service offers.

Everything here is the same for all kinds because the services have the same shape; a test walks the descriptors and
holds them to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack, cast

from google.protobuf.message import Message

from grove_client.calls import METHODS, Caller
from grove_client.watching import R, Resource, Stream, WatchEvent, WatchPolicy, watch

R_co = TypeVar("R_co", bound=Resource, covariant=True)


class Scope(TypedDict, total=False):
    """Where a resource is; absent for cluster-scoped kinds, "default" if left out."""

    namespace: str


class ListQuery(Scope, total=False):
    """Which resources; the last two are for events only."""

    all_namespaces: bool
    label_selector: str
    involved_kind: str
    involved_name: str


class WatchQuery(ListQuery, total=False):
    """Which resources; `name` means a single one."""

    name: str


class Page(Protocol[R_co]):
    """One page of a listing; all pages show the store at `resource_version`."""

    @property
    def items(self) -> Sequence[R_co]:
        """The resources of the page."""

    resource_version: str
    next_page_token: str
    resume_token: str


class Applied(NamedTuple, Generic[R]):
    """What Apply did: the resource as stored, "created", "configured" or "unchanged", and warnings."""

    resource: R
    action: str
    warnings: tuple[str, ...]


class Scaled(NamedTuple, Generic[R]):
    """What Scale did: size before and now, who owns the size, the resource."""

    previous: int
    replicas: int
    scale_owner: str
    resource: R


class _ScaleAnswer(Protocol[R]):
    previous: int
    replicas: int
    scale_owner: str
    resource: R


class Listed(Generic[R]):
    """Resources of one kind that can be listed and watched. Namespaces do not exist for cluster-scoped kinds."""

    def __init__(self, caller: Caller, resource: type[R]) -> None:
        self._caller = caller
        self._resource = resource
        self._service = f"/grove.v1.{resource.__name__}Service/"

    async def page(self, *, page_size: int = 0, page_token: str = "", **query: Unpack[ListQuery]) -> Page[R]:
        """Read one page of what matches *query*."""
        answer = await self._caller.call(
            f"{self._service}List", {"page_size": page_size, "page_token": page_token, **query}
        )
        return cast("Page[R]", answer)

    async def list(self, *, page_size: int = 0, **query: Unpack[ListQuery]) -> AsyncIterator[R]:
        """Yield all resources that match, sorted by name, page by page, all from one moment."""
        token = ""
        while True:
            page = await self.page(page_size=page_size, page_token=token, **query)
            for resource in page.items:
                yield resource
            token = page.next_page_token
            if not token:
                return

    def watch(
        self, *, resume_token: str = "", policy: WatchPolicy | None = None, **query: Unpack[WatchQuery]
    ) -> AsyncGenerator[WatchEvent[R], None]:
        """Yield changes for ever, over restarts of the server; see `grove_client.watching` for the exact promise.

        *query*: namespace, all_namespaces, name, label_selector and what the kind has besides.
        """

        def open_stream(token: str) -> Stream:
            return self._caller.stream(f"{self._service}Watch", {"resume_token": token, **query})

        return watch(open_stream, self._resource, resume_token=resume_token, policy=policy)

    def has(self, verb: str) -> bool:
        """Return whether the kind's service has *verb*, for example "Scale"."""
        return f"{self._service}{verb}" in METHODS


class Collection(Listed[R]):
    """Resources of one kind that can be read by name."""

    async def get(self, name: str, *, timeout_s: float | None = None, **scope: Unpack[Scope]) -> R:
        """Read one; NotFoundError. *scope*: namespace, where the kind has one."""
        return cast("R", await self._caller.call(f"{self._service}Get", {"name": name, **scope}, timeout_s))


class Deletable(Collection[R]):
    """Resources that a user may delete."""

    async def delete(
        self, names: Iterable[str], *, resource_version: str = "", validate_only: bool = False, **scope: Unpack[Scope]
    ) -> None:
        """Delete all of *names* in one change, or none; NotFoundError, ConflictError."""
        await self._caller.call(
            f"{self._service}Delete",
            {"names": list(names), "resource_version": resource_version, "validate_only": validate_only, **scope},
        )


class Scalable(Collection[R]):
    """Resources that have a size."""

    async def scale(
        self,
        name: str,
        replicas: int,
        *,
        namespace: str = "",
        requested_by: str = "user",
        expected_replicas: int | None = None,
        timeout_s: float | None = None,
    ) -> Scaled[R]:
        """Set the size; *requested_by* ("user" or "autoscaler") becomes its owner.

        ConflictError if the size is neither *expected_replicas* (None: any) nor *replicas*.
        """
        fields = {
            "name": name,
            "replicas": replicas,
            "namespace": namespace,
            "requested_by": requested_by,
            "expected_replicas": expected_replicas,
        }
        message = await self._caller.call(f"{self._service}Scale", fields, timeout_s)
        answer = cast("_ScaleAnswer[R]", message)
        return Scaled(answer.previous, answer.replicas, answer.scale_owner, answer.resource)


class Applicable(Deletable[R]):
    """Resources that a user writes."""

    async def apply(self, resource: R, *, validate_only: bool = False) -> Applied[R]:
        """Create *resource* or replace spec, labels and annotations of the one that exists."""
        answer = await self._write("Apply", resource, validate_only=validate_only)
        return self._applied(answer, getattr(answer, "action", ""))

    async def create(self, resource: R, *, validate_only: bool = False) -> Applied[R]:
        """Create *resource*; AlreadyExistsError."""
        return self._applied(await self._write("Create", resource, validate_only=validate_only), "created")

    async def update(self, resource: R, *, validate_only: bool = False) -> Applied[R]:
        """Replace what was read before; ConflictError when it changed since."""
        return self._applied(await self._write("Update", resource, validate_only=validate_only), "configured")

    async def _write(self, verb: str, resource: R, *, validate_only: bool) -> Message:
        method = f"{self._service}{verb}"
        return await self._caller.call(method, {self._field(verb): resource, "validate_only": validate_only})

    def _field(self, verb: str) -> str:
        """Return the name of the request's field that holds the resource; the response calls it the same."""
        return METHODS[f"{self._service}{verb}"].response.DESCRIPTOR.fields_by_number[1].name

    def _applied(self, answer: Message, action: str) -> Applied[R]:
        name = answer.DESCRIPTOR.fields_by_number[1].name
        return Applied(getattr(answer, name), action, tuple(getattr(answer, "warnings", ())))


class ScalableApplicable(Applicable[R], Scalable[R]):
    """Resources that a user writes and that have a size."""
