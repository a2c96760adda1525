"""Refusals become typed exceptions with everything the server said."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # stubs without py.typed
from small_server import Refusal, SmallServer, invalid

import grove_client


async def _refused(server: SmallServer) -> grove_client.GroveError:
    with pytest.raises(grove_client.GroveError) as caught:
        async with grove_client.connect(server.address) as grove:
            await grove.pod_gangs.get("x")
    return caught.value


async def test_violations_and_reason(server: SmallServer) -> None:
    """Every field violation, the stable reason and its values are on the exception."""
    server.refusal = invalid(("spec.replicas", "must be 0 or more"), ("spec.template", "is required"))
    error = await _refused(server)
    assert isinstance(error, grove_client.InvalidArgumentError)
    assert error.reason == "INVALID_MANIFEST"
    assert error.metadata == {"violation_count": "22"}
    assert error.violations == (
        grove_client.FieldViolation("spec.replicas", "must be 0 or more", "FIELD_INVALID"),
        grove_client.FieldViolation("spec.template", "is required", "FIELD_INVALID"),
    )


async def test_retry_info(server: SmallServer) -> None:
    """How long the server asks to wait is on the exception, in seconds."""
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    server.refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches", (retry,))
    error = await _refused(server)
    assert isinstance(error, grove_client.ResourceExhaustedError)
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, grove_client.NotFoundError),
        (grpc.StatusCode.ABORTED, grove_client.ConflictError),
        (grpc.StatusCode.ALREADY_EXISTS, grove_client.AlreadyExistsError),
        (grpc.StatusCode.OUT_OF_RANGE, grove_client.TokenExpiredError),
        (grpc.StatusCode.PERMISSION_DENIED, grove_client.PermissionDeniedError),
        (grpc.StatusCode.DATA_LOSS, grove_client.GroveError),
    ],
)
async def test_class_follows_code(server: SmallServer, code: grpc.StatusCode, kind: type[Exception]) -> None:
    """Each code has its class; a code without one is a plain GroveError with the code on it."""
    server.refusal = Refusal(code, "no")
    error = await _refused(server)
    assert type(error) is kind
    assert error.code is code
    assert error.message == "no"


async def test_unavailable_is_retried(server: SmallServer) -> None:
    """An idempotent call is sent again while the server is away, at most four times; Create is not."""
    server.refusal = Refusal(grpc.StatusCode.UNAVAILABLE, "starting")
    assert isinstance(await _refused(server), grove_client.UnavailableError)
    assert 1 < len(server.calls) <= 4
    server.calls.clear()
    async with grove_client.connect(server.address) as grove:
        with pytest.raises(grove_client.UnavailableError):
            await grove.pod_clique_sets.delete(["x"])
    assert len(server.calls) == 1
