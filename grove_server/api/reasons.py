"""Why a call is refused, as stable words, and the error type that carries them to the wire.

A `Reason` never changes its meaning; programs compare it (`ErrorInfo.reason`, domain `grove.io`). `docs/errors.md`
says for each what users and operators do; a test compares. Not here: the wire form and the mapping of the other rooms'
errors (`errors`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc

from grove_server.resources.meta import Key
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.violations import Violation, bounded

DOMAIN: Final = "grove.io"
# How many names a message lists.
_SHOWN_MAX: Final = 20


class Reason(enum.StrEnum):
    """Every reason the server gives."""

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_MANIFEST = "INVALID_MANIFEST"
    INVALID_SELECTOR = "INVALID_SELECTOR"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 -- a word, not a secret
    INVALID_RESUME_TOKEN = "INVALID_RESUME_TOKEN"  # noqa: S105 -- a word, not a secret
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    BEING_DELETED = "BEING_DELETED"
    BUILT_IN = "BUILT_IN"
    QUEUE_IN_USE = "QUEUE_IN_USE"
    NODES_NOT_SIMULATED = "NODES_NOT_SIMULATED"
    GANG_NOT_WAITING = "GANG_NOT_WAITING"
    NO_PROCESSES = "NO_PROCESSES"
    CONTAINER_NOT_RUNNING = "CONTAINER_NOT_RUNNING"
    NO_OUTPUT = "NO_OUTPUT"
    COMMAND_NOT_STARTED = "COMMAND_NOT_STARTED"
    EXEC_OFF = "EXEC_OFF"
    PAGE_TOKEN_EXPIRED = "PAGE_TOKEN_EXPIRED"  # noqa: S105 -- a word, not a secret
    RESUME_TOKEN_EXPIRED = "RESUME_TOKEN_EXPIRED"  # noqa: S105 -- a word, not a secret
    WATCH_TOO_SLOW = "WATCH_TOO_SLOW"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    TOO_MANY_WATCHES = "TOO_MANY_WATCHES"
    TOO_MANY_GANGS = "TOO_MANY_GANGS"
    TOO_MANY_ROUTERS = "TOO_MANY_ROUTERS"
    ROUTER_NOT_REGISTERED = "ROUTER_NOT_REGISTERED"
    TOO_MANY_AUTOSCALERS = "TOO_MANY_AUTOSCALERS"
    AUTOSCALER_NAME_TAKEN = "AUTOSCALER_NAME_TAKEN"
    AUTOSCALER_DOES_NOT_LEAD = "AUTOSCALER_DOES_NOT_LEAD"
    AUTOSCALER_NOT_REGISTERED = "AUTOSCALER_NOT_REGISTERED"
    AUTOSCALER_REFUSED = "AUTOSCALER_REFUSED"
    AUTOSCALER_UNREACHABLE = "AUTOSCALER_UNREACHABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_OVERLOADED = "STORE_OVERLOADED"
    SERVER_DRAINING = "SERVER_DRAINING"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


CODES: Final[Mapping[Reason, grpc.StatusCode]] = {
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_MANIFEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_SELECTOR: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_PAGE_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_RESUME_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    # As core answers what is larger still.
    Reason.MESSAGE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.VERSION_CONFLICT: grpc.StatusCode.ABORTED,
    Reason.BEING_DELETED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.BUILT_IN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.QUEUE_IN_USE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NODES_NOT_SIMULATED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.GANG_NOT_WAITING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NO_PROCESSES: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CONTAINER_NOT_RUNNING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NO_OUTPUT: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.COMMAND_NOT_STARTED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EXEC_OFF: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.PAGE_TOKEN_EXPIRED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.RESUME_TOKEN_EXPIRED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.WATCH_TOO_SLOW: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_CALLS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_WATCHES: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_GANGS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_ROUTERS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.ROUTER_NOT_REGISTERED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TOO_MANY_AUTOSCALERS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.AUTOSCALER_NAME_TAKEN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.AUTOSCALER_DOES_NOT_LEAD: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.AUTOSCALER_NOT_REGISTERED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.AUTOSCALER_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.AUTOSCALER_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.STORE_OVERLOADED: grpc.StatusCode.UNAVAILABLE,
    Reason.SERVER_DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The resource an error is about."""

    kind: str
    name: str


@dataclass(slots=True, kw_only=True)
class ApiError(Exception):
    """A refusal with all that the wire needs. Its text may be shown to anybody: no internals in it.

    ``preconditions`` are (type, subject, description); ``retry_after_s`` asks the client to come back later.
    """

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    violation_count: int = 0
    subject: Subject | None = None
    preconditions: Sequence[tuple[str, str, str]] = ()
    retry_after_s: float | None = None

    @property
    def code(self) -> grpc.StatusCode:
        """Return the status code of the reason."""
        return CODES[self.reason]

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def invalid_request(path: str, message: str, *, reason: FieldReason = FieldReason.INVALID) -> ApiError:
    """Return the refusal of one field of a request message (not of a manifest)."""
    return ApiError(
        reason=Reason.INVALID_REQUEST,
        message=f"{path}: {message}",
        violations=(Violation(path, reason, message),),
        violation_count=1,
    )


def invalid_fields(violations: Sequence[Violation]) -> ApiError:
    """Return the refusal of several fields of a request message, all at once."""
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return ApiError(
        reason=Reason.INVALID_REQUEST,
        message=f"{violations[0]}{more}",
        violations=bounded(violations),
        violation_count=len(violations),
    )


def not_found(kind: str, namespace: str, names: Sequence[str]) -> ApiError:
    """Return the refusal because resources do not exist; it names all of them, up to a bound."""
    shown = [f"{namespace}/{name}" if namespace else name for name in names[:_SHOWN_MAX]]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ApiError(
        reason=Reason.NOT_FOUND,
        message=f"{kind} {', '.join(shown)}{more} not found",
        metadata={"kind": kind, "namespace": namespace, "name": ",".join(names[:_SHOWN_MAX])},
        subject=Subject(kind, shown[0]),
    )


def not_found_keys(keys: Sequence[Key]) -> ApiError:
    """Return the same for resources that may be of several kinds and namespaces."""
    first = keys[0]
    if all((key.kind, key.namespace) == (first.kind, first.namespace) for key in keys):
        return not_found(first.kind.value, first.namespace, [key.name for key in keys])
    shown = [f"{key.kind} {key.namespace}/{key.name}" if key.namespace else f"{key.kind} {key.name}" for key in keys]
    more = f" and {len(keys) - _SHOWN_MAX} more" if len(keys) > _SHOWN_MAX else ""
    return ApiError(
        reason=Reason.NOT_FOUND,
        message=f"{', '.join(shown[:_SHOWN_MAX])}{more} not found",
        metadata={"kind": first.kind.value, "namespace": first.namespace, "name": first.name},
        subject=Subject(first.kind.value, first.name),
    )


def already_exists(kind: str, namespace: str, name: str) -> ApiError:
    """Return the refusal because a resource of that name exists."""
    shown = f"{namespace}/{name}" if namespace else name
    return ApiError(
        reason=Reason.ALREADY_EXISTS,
        message=f"{kind} {shown} already exists",
        metadata={"kind": kind, "namespace": namespace, "name": name},
        subject=Subject(kind, shown),
    )


def version_conflict(kind: str, namespace: str, name: str, current_version: int) -> ApiError:
    """Return the refusal because the resource is at another version than the caller's; 0: there is none (any more)."""
    shown = f"{namespace}/{name}" if namespace else name
    state = "does not exist (any more), so it is at no resource version"
    if current_version:
        state = f"was changed by somebody else: it is at resource version {current_version}"
    return ApiError(
        reason=Reason.VERSION_CONFLICT,
        message=f"{kind} {shown} {state}",
        metadata={"kind": kind, "namespace": namespace, "name": name, "current_resource_version": str(current_version)},
        subject=Subject(kind, shown),
    )


def size_conflict(kind: str, namespace: str, name: str, expected: int, size: int) -> ApiError:
    """Return the refusal of a size that was decided on another one."""
    return ApiError(
        reason=Reason.VERSION_CONFLICT,
        message=f"{kind} {namespace}/{name} has size {size}, not {expected}",
        metadata={"kind": kind, "namespace": namespace, "name": name, "current_replicas": str(size)},
        subject=Subject(kind, f"{namespace}/{name}"),
    )


def being_deleted(kind: str, namespace: str, name: str) -> ApiError:
    """Return the refusal to change what is on its way out."""
    shown = f"{namespace}/{name}" if namespace else name
    return ApiError(
        reason=Reason.BEING_DELETED,
        message=f"{kind} {shown} is being deleted; wait until it is gone",
        metadata={"kind": kind, "namespace": namespace, "name": name},
        subject=Subject(kind, shown),
        preconditions=(("BEING_DELETED", shown, "the resource has a deletionTimestamp"),),
    )


def built_in(kind: str, name: str) -> ApiError:
    """Return the refusal to delete what is a part of the server."""
    return ApiError(
        reason=Reason.BUILT_IN,
        message=f"{kind} {name} is built in and cannot be deleted",
        metadata={"kind": kind, "namespace": "", "name": name},
        subject=Subject(kind, name),
        preconditions=(("BUILT_IN", name, "the resource is a part of the server"),),
    )


def queue_in_use(name: str, kind: str, users: Sequence[str]) -> ApiError:
    """Return the refusal to delete a queue that resources of *kind* are in; it names them, up to a bound."""
    shown = ", ".join(users[:_SHOWN_MAX])
    more = f" and {len(users) - _SHOWN_MAX} more" if len(users) > _SHOWN_MAX else ""
    return ApiError(
        reason=Reason.QUEUE_IN_USE,
        message=f"Queue {name} is in use by {kind} {shown}{more}; move or delete them first",
        metadata={
            "kind": "Queue",
            "namespace": "",
            "name": name,
            "used_by_kind": kind,
            "used_by_count": f"{len(users)}",
        },
        subject=Subject("Queue", name),
        preconditions=(("QUEUE_IN_USE", name, f"used by {kind} {shown}{more}"),),
    )


def gang_not_waiting(namespace: str, name: str) -> ApiError:
    """Return the refusal to plan moves for a gang that asks for no places."""
    return ApiError(
        reason=Reason.GANG_NOT_WAITING,
        message=f"PodGang {namespace}/{name} does not wait for places: it has them, or cannot be asked for yet",
        metadata={"kind": "PodGang", "namespace": namespace, "name": name},
        subject=Subject("PodGang", f"{namespace}/{name}"),
        preconditions=(("GANG_NOT_WAITING", name, "the gang does not wait for places"),),
    )


def nodes_not_simulated(runtime: str) -> ApiError:
    """Return the refusal to say what a real node is like, or to make or remove one."""
    return ApiError(
        reason=Reason.NODES_NOT_SIMULATED,
        message=f"nodes of the runtime {runtime} are real: only simulated ones can be changed by people",
        metadata={"runtime": runtime},
        preconditions=(("NODES_NOT_SIMULATED", runtime, "the runtime does not simulate its nodes"),),
    )


def too_many_routers(limit: int, *, of_set: bool) -> ApiError:
    """Return the refusal to wait for one more router."""
    whose = "the set" if of_set else "the server"
    return ApiError(
        reason=Reason.TOO_MANY_ROUTERS,
        message=f"{whose} has {limit} routers already; those that went without a word are forgotten in a while",
        metadata={"limit": str(limit)},
        retry_after_s=5.0,
    )


def router_not_registered(router: str, set_name: str) -> ApiError:
    """Return the refusal of an answer that nobody waits for, which is most likely a misspelt name."""
    return ApiError(
        reason=Reason.ROUTER_NOT_REGISTERED,
        message=f"router {router} is not registered for PodCliqueSet {set_name}; watch its drains, or renew a lease",
        metadata={"router": router, "pod_clique_set": set_name},
        preconditions=(("ROUTER_NOT_REGISTERED", router, "the router has no lease on the set"),),
    )
