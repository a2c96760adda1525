"""From exceptions to the wire: which refusal an exception is, and its `google.rpc.Status`.

The table is closed: what it does not know is a fault of ours and leaves as INTERNAL with a fixed text and the request
id, because an exception's text may hold paths or secrets. Sizes are bounded: details travel in response metadata, of
which clients take 8 KiB, base64 and percent-encoding included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # no stubs published

from grove_server.admission.findings import InvalidResourceError
from grove_server.api.reasons import DOMAIN, ApiError, Reason, invalid_request
from grove_server.resources.schema import SchemaError
from grove_server.resources.selector import SelectorError
from grove_server.resources.violations import Violation, bounded
from grove_server.runtime.containers import ContainerRefusedError, Refused
from grove_server.store.errors import (
    StoreOverloadedError,
    StoreUnavailableError,
    TokenExpiredError,
    TokenInvalidError,
    WatchTooSlowError,
)

VIOLATIONS_MAX: Final = 20
# Of one text, in bytes of UTF-8; the status message travels twice, once percent-encoded.
_TEXT_BYTES_MAX: Final = 400
_MESSAGE_BYTES_MAX: Final = 700
# Base64 makes 5.2 KiB of this; with the message's second copy it stays below 8 KiB.
_STATUS_BYTES_MAX: Final = 4_000

_DOCUMENT: Final = re.compile(r"document\[(\d{1,9})\]")

INTERNAL_MESSAGE: Final = "internal error; the server's log has the details under the request id"


def classify(error: BaseException) -> ApiError | None:
    """Return the refusal that *error* is, or None if it is a fault of the server."""
    match error:
        case ApiError():
            return error
        case InvalidResourceError() | SchemaError():
            return invalid_manifest(error.violations, error.count)
        case SelectorError():
            return ApiError(reason=Reason.INVALID_SELECTOR, message=f"labelSelector: {error}")
        case TokenInvalidError():
            return ApiError(
                reason=Reason.INVALID_RESUME_TOKEN, message="resumeToken: not a token that this server gave out"
            )
        case TokenExpiredError():
            return ApiError(
                reason=Reason.RESUME_TOKEN_EXPIRED,
                message="the resume token is too old or of another history of the store; list again",
                metadata={"oldest_resource_version": str(error.oldest_version)},
            )
        case WatchTooSlowError():
            return ApiError(
                reason=Reason.WATCH_TOO_SLOW,
                message="the reader fell too far behind; resume from the token",
                metadata={"resume_token": error.token},
                retry_after_s=1.0,
            )
        case StoreOverloadedError():
            return ApiError(
                reason=Reason.STORE_OVERLOADED, message="too many changes wait for the disk", retry_after_s=1.0
            )
        case StoreUnavailableError():
            return ApiError(
                reason=Reason.STORE_UNAVAILABLE,
                message="the store takes no changes now; nothing was changed",
                retry_after_s=2.0,
            )
        case ContainerRefusedError():
            return container_refused(error)
        case TimeoutError():
            return ApiError(
                reason=Reason.DEADLINE_EXCEEDED,
                message="the server's own deadline for this method passed; a change may still have been made",
            )
        case _:
            return None


def invalid_manifest(violations: Sequence[Violation], count: int | None = None) -> ApiError:
    """Return the refusal of manifests, all violations at once; *count* is their number where not all are given."""
    count = len(violations) if count is None else count
    # The last one of a single document says how many more there are, and has no path.
    violations = sorted(violations, key=_document_number)
    first = violations[0]
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ApiError(
        reason=Reason.INVALID_MANIFEST,
        message=f"{first}{more}",
        violations=bounded(violations) if count == len(violations) else violations,
        violation_count=count,
    )


_CONTAINER_REASONS: Final = {
    Refused.NO_PROCESSES: Reason.NO_PROCESSES,
    Refused.NOT_RUNNING: Reason.CONTAINER_NOT_RUNNING,
    Refused.NO_OUTPUT: Reason.NO_OUTPUT,
    Refused.CANNOT_START: Reason.COMMAND_NOT_STARTED,
    Refused.TOO_MANY: Reason.TOO_MANY_CALLS,
}


def container_refused(error: ContainerRefusedError) -> ApiError:
    """Return the refusal of a question about a container."""
    if error.why is Refused.NO_CONTAINER:
        return invalid_request("container", str(error))
    return ApiError(
        reason=_CONTAINER_REASONS[error.why],
        message=str(error),
        retry_after_s=1.0 if error.why is Refused.TOO_MANY else None,
    )


def _document_number(violation: Violation) -> int:
    """Return the number in "document[12].spec", 0 if there is none: violations come in the order of the text."""
    found = _DOCUMENT.match(violation.path)
    return int(found.group(1)) if found is not None else 0


def to_status(error: ApiError, request_id: str) -> status_pb2.Status:
    """Return the wire form of *error*, within the bounds."""
    text = _cut(error.message, _MESSAGE_BYTES_MAX)
    status = status_pb2.Status(code=error.code.value[0], message=text)
    metadata = {key: _cut(value, _TEXT_BYTES_MAX) for key, value in error.metadata.items()}
    if error.violation_count > VIOLATIONS_MAX:
        metadata["violation_count"] = str(error.violation_count)
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata))
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    if error.retry_after_s is not None:
        seconds = math.floor(error.retry_after_s)
        delay = duration_pb2.Duration(seconds=seconds, nanos=int((error.retry_after_s - seconds) * 1e9))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if error.subject is not None:
        _add(
            status,
            error_details_pb2.ResourceInfo(
                resource_type=error.subject.kind, resource_name=_cut(error.subject.name, _TEXT_BYTES_MAX)
            ),
        )
    if error.preconditions:
        failure = error_details_pb2.PreconditionFailure()
        for type_, subject, description in error.preconditions[:VIOLATIONS_MAX]:
            failure.violations.add(type=type_, subject=subject, description=_cut(description, _TEXT_BYTES_MAX))
        _add(status, failure)
    if error.violations:
        _add_violations(status, error.violations)
    return status


def internal_status(request_id: str) -> status_pb2.Status:
    """Return what a caller learns of a fault of ours: nothing but where to look it up."""
    return to_status(ApiError(reason=Reason.INTERNAL, message=INTERNAL_MESSAGE), request_id)


def _add(status: status_pb2.Status, detail: message.Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _add_violations(status: status_pb2.Status, violations: Sequence[Violation]) -> None:
    """Add as many violations as fit, the first ones first."""
    request = error_details_pb2.BadRequest()
    room = _STATUS_BYTES_MAX - status.ByteSize()
    for violation in violations[:VIOLATIONS_MAX]:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.path, _TEXT_BYTES_MAX),
            description=_cut(violation.message, _TEXT_BYTES_MAX),
            reason=violation.reason.value,
        )
        room -= entry.ByteSize() + 4
        if room < 0:
            break
        request.field_violations.append(entry)
    _add(status, request)


def _cut(text: str, bytes_max: int) -> str:
    """Return *text* shortened to a number of bytes, counting what percent-encoding makes of other alphabets."""
    if len(text) * 3 <= bytes_max:
        return text
    cost = 0
    for position, character in enumerate(text):
        cost += 1 if character.isascii() and character.isprintable() else 3 * len(character.encode("utf-8", "replace"))
        if cost > bytes_max:
            return f"{text[: max(0, position - 3)]}..."
    return text


def code_of(error: BaseException) -> grpc.StatusCode:
    """Return the status code *error* leaves with."""
    known = classify(error)
    return known.code if known is not None else grpc.StatusCode.INTERNAL
