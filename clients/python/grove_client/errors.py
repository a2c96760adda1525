"""What a refused call raises: one exception class per kind of refusal, all of them GroveError.

The class follows the gRPC code and says what a program can do about it; `reason` is the server's stable word for the
cause (google.rpc.ErrorInfo) and is what a program compares. Details that the server did not send are empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # stubs without py.typed

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"


class FieldViolation(NamedTuple):
    """One wrong field: its path in the manifest, what is wrong, and the stable reason (may be empty)."""

    path: str
    description: str
    reason: str


class GroveError(Exception):
    """A call that the server refused or that did not reach it.

    `code` is the gRPC code, `reason` the stable cause ("" if the server gave none), `metadata` its values,
    `violations` every wrong field at once, `retry_after_s` how long the server asks to wait (None if it does not ask).
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations = violations
        self.retry_after_s = retry_after_s


class InvalidArgumentError(GroveError):
    """The request is wrong in itself; `violations` says where."""


class NotFoundError(GroveError):
    """A resource that was named does not exist."""


class AlreadyExistsError(GroveError):
    """A resource of that name exists."""


class ConflictError(GroveError):
    """The resource changed since it was read: read again, then repeat the change."""


class FailedPreconditionError(GroveError):
    """The resource is in a state that does not allow this."""


class TokenExpiredError(GroveError):
    """A resume or page token is too old or of another history: list anew."""


class PermissionDeniedError(GroveError):
    """The caller may not do this, whether the resource exists or not."""


class UnauthenticatedError(GroveError):
    """The server does not know who calls."""


class ResourceExhaustedError(GroveError):
    """A limit is reached: a message too large, a reader too slow, too many watches."""


class DeadlineExceededError(GroveError):
    """No answer in time; whether a change was made is unknown."""


class UnavailableError(GroveError):
    """The server cannot be reached, is starting, is going away, or (with a reason) cannot do this now."""


class CancelledByServerError(GroveError):
    """The server dropped the call before it began, as it does under a burst of new streams."""


class UnimplementedError(GroveError):
    """The server is older (or newer) than this client and has no such call."""


class InternalError(GroveError):
    """A defect of the server; its log has the details."""


_CLASS_BY_CODE: Final[Mapping[grpc.StatusCode, type[GroveError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: TokenExpiredError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: CancelledByServerError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> GroveError:
    """Return the typed exception for a failed call; details that cannot be decoded are left out."""
    kind = _CLASS_BY_CODE.get(error.code(), GroveError)
    message = error.details() or error.code().name
    details = _details_of(error)
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return kind(
        message,
        code=error.code(),
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=tuple(FieldViolation(v.field, v.description, v.reason) for v in bad_request.field_violations),
        retry_after_s=retry_after_s,
    )


def _details_of(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    """Return the details packed into the trailing metadata, none if there are none or they are damaged."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []
