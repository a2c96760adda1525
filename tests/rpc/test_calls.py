"""What surrounds each call: deadlines, faults, limits, the access log, metrics, health."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs installed
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]  # as above

from grove.v1 import pod_clique_set_pb2 as pb
from grove.v1 import server_pb2
from grove_server.api import tables
from grove_server.api.load import CallClass, Load
from grove_server.api.pipeline import Awaited, Call, Method, Pipeline, Ready
from grove_server.api.reasons import CODES, Reason
from grove_server.api.tables import AUTHORIZATION, Deadline
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import set_up_logs
from tests.rpc.harness import TIMEOUT_S, Harness, refused, sample_set, serving
from tests.waiting import until

GET = "/grove.v1.PodCliqueSetService/Get"
APPLY = "/grove.v1.PodCliqueSetService/Apply"


class Faulty:
    """A service whose methods fail in every way; it borrows names of the contract."""

    name = "grove.v1.PodCliqueSetService"

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    def methods(self) -> dict[str, Method]:
        """Return a read that breaks and a change that never ends."""
        return {
            "Get": Ready(pb.PodCliqueSetServiceGetRequest, self.get),
            "Apply": Awaited(pb.PodCliqueSetServiceApplyRequest, self.apply),
            "Create": Awaited(pb.PodCliqueSetServiceCreateRequest, self.create),
        }

    def get(self, _request: pb.PodCliqueSetServiceGetRequest) -> bytes:
        """Break."""
        raise ValueError("secret=/etc/passwd")

    async def create(self, _request: pb.PodCliqueSetServiceCreateRequest, _call: Call) -> bytes:
        """Break later."""
        await asyncio.sleep(0)
        raise KeyError("secret=/etc/passwd")

    async def apply(self, _request: pb.PodCliqueSetServiceApplyRequest, _call: Call) -> bytes:
        """Wait for ever."""
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""


class FaultyServer:
    """The faulty service behind the real pipeline."""

    def __init__(self) -> None:
        self.service = Faulty()
        self.calls = Load({CallClass.READ: 10, CallClass.WRITE: 2, CallClass.WATCH: 1})
        self.server = grpc.aio.server()

    async def __aenter__(self) -> Self:
        self.server.add_generic_rpc_handlers([Pipeline(self.calls).handler(self.service)])
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(0)

    def call(self, method: str, request: bytes = b"", **options: Any) -> Any:  # noqa: ANN401 -- a call of grpc
        """Start a call."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return call(request, **options)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give what is logged, as JSON lines."""
    stream = io.StringIO()
    set_up_logs(log_format="json", stream=stream)
    yield stream
    set_up_logs(log_format="json", stream=io.StringIO())


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines of the access log."""
    parsed = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in parsed if line["event"] == "call_served"]


def handled(method: str, code: str) -> float:
    """Return how many calls of *method* ended with *code*."""
    service, name = method.strip("/").split("/")
    for family in metrics.RPC_HANDLED.collect():
        for sample in family.samples:
            labels = sample.labels
            if sample.name.endswith("_total") and (
                labels["grpc_service"],
                labels["grpc_method"],
                labels["grpc_code"],
            ) == (service, name, code):
                return sample.value
    return 0.0


def test_every_reason_has_a_code() -> None:
    """No reason can be raised without a status code."""
    assert set(CODES) == set(Reason)


@pytest.mark.parametrize("method", [GET, "/grove.v1.PodCliqueSetService/Create"])
async def test_faults_leave_nothing_of_the_inside(log: io.StringIO, method: str) -> None:
    """An unexpected exception reaches the client as a fixed text with a request id, and the log in full."""
    async with FaultyServer() as faulty:
        before = handled(method, "INTERNAL")
        refusal = await refused(faulty.call(method, metadata=(("x-request-id", "my-id"),)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert b"secret" not in refusal.raw
    assert "secret" not in refusal.message
    assert refusal.details["google.rpc.RequestInfo"].request_id == "my-id"
    assert "secret=/etc/passwd" in log.getvalue()
    assert lines(log)[-1]["level"] == "error"
    assert handled(method, "INTERNAL") == before + 1


async def test_the_clients_deadline_ends_the_work() -> None:
    """When the client's time is up the method is cancelled."""
    async with FaultyServer() as faulty:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await faulty.call(APPLY, timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(faulty.service.cancelled.wait(), timeout=20)
        await until(lambda: faulty.calls.total == 0, "the slot is free")


async def test_a_call_without_a_deadline_gets_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sets no deadline cannot hold a slot for ever."""
    monkeypatch.setitem(tables.DEADLINES, APPLY, Deadline(0.05, 0.1))
    async with FaultyServer() as faulty:
        refusal = await refused(faulty.call(APPLY))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert (await refused(faulty.call(APPLY, timeout=60))).reason == "DEADLINE_EXCEEDED"
        assert faulty.service.cancelled.is_set()


async def test_a_cancelled_call_stops_its_method() -> None:
    """When the client goes away the method is cancelled and counted as such."""
    async with FaultyServer() as faulty:
        before = handled(APPLY, "CANCELLED")
        call = faulty.call(APPLY)
        waiting = asyncio.ensure_future(call)
        await asyncio.wait_for(faulty.service.entered.wait(), timeout=20)
        call.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(faulty.service.cancelled.wait(), timeout=20)
        await until(lambda: handled(APPLY, "CANCELLED") == before + 1, "the call is counted")


async def test_one_change_too_many_is_refused_and_reads_go_on() -> None:
    """Classes of calls are limited apart from each other."""
    async with FaultyServer() as faulty:
        held = [faulty.call(APPLY), faulty.call(APPLY)]
        waiting = [asyncio.ensure_future(call) for call in held]
        await until(lambda: faulty.calls.in_flight(CallClass.WRITE) == 2, "both are served")
        assert faulty.calls.busy()
        refusal = await refused(faulty.call(APPLY))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert "google.rpc.RetryInfo" in refusal.details
        assert (await refused(faulty.call(GET))).reason == "INTERNAL"
        for call in held:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_default_log_has_changes_and_failures_but_no_reads(log: io.StringIO, rpc: Harness) -> None:
    """A read that went well is counted and not logged; changes and failures have one line each."""
    before = handled(GET, "OK")
    await rpc.apply()
    await rpc.sets.Get(pb.PodCliqueSetServiceGetRequest(name="demo"))
    await refused(rpc.sets.Get(pb.PodCliqueSetServiceGetRequest(name="none")))
    assert [(line["method"], line["code"]) for line in lines(log)] == [(APPLY, "OK"), (GET, "NOT_FOUND")]
    assert lines(log)[1]["reason"] == "NOT_FOUND"
    assert {"duration_s", "identity", "peer", "request_id", "timestamp"} <= lines(log)[0].keys()
    assert handled(GET, "OK") == before + 1


async def test_a_line_per_call_on_request(log: io.StringIO, tmp_path: Path) -> None:
    """With --access-log all each call has a line, with the caller's request id."""
    async with serving(tmp_path, "--access-log", "all") as rpc:
        await rpc.server.GetInfo(server_pb2.ServerServiceGetInfoRequest(), metadata=(("x-request-id", "abc"),))
    assert [(line["code"], line["request_id"]) for line in lines(log)] == [("OK", "abc")]


async def test_an_unreasonable_request_id_is_replaced(log: io.StringIO, rpc: Harness) -> None:
    """Request ids of clients are taken only if they cannot spoil a log."""
    request = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set())
    await rpc.sets.Apply(request, metadata=(("x-request-id", "x" * 500),))
    assert len(lines(log)[0]["request_id"]) == 16


async def test_health_follows_the_checks_and_the_drain(rpc: Harness) -> None:
    """Each service and the whole are SERVING, and NOT_SERVING from the first moment of the drain on."""
    health = health_pb2_grpc.HealthStub(rpc.channel)
    for service in ("", "grove.v1.PodCliqueSetService", "grove.v1.PodGangService"):
        response = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    watching = health.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.ensure_future(rpc.api.stop())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await stopping
    assert rpc.api.problems() == {"draining": "the server is stopping"}


async def test_reflection_lists_all_services(rpc: Harness) -> None:
    """Grpcurl finds every service, and can do without the proto files."""
    stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    response = await call.read()
    names = {service.name for service in response.list_services_response.service}
    assert {"grove.v1.PodCliqueSetService", "grove.v1.ManifestService", "grpc.health.v1.Health"} <= names
    assert {name for name in names if name.startswith("grove.v1.")} == {name.split("/")[1] for name in AUTHORIZATION}


async def test_reflection_tells_the_names_of_manifests(rpc: Harness) -> None:
    """Tools that learn the contract by reflection print the manifest's names, in error details too."""
    stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
    symbols = ("grove.v1.PodCliqueSetService", "google.rpc.BadRequest", "grpc.health.v1.Health")
    requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols]
    call = stub.ServerReflectionInfo(iter(requests))
    names: dict[str, str] = {}
    for _ in symbols:
        for serialized in (await call.read()).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            for message in [*file.message_type, *(inner for outer in file.message_type for inner in outer.nested_type)]:
                names |= {f"{message.name}.{field.name}": field.json_name for field in message.field}
    assert names["PodCliqueSetServiceApplyRequest.pod_clique_set"] == "podCliqueSet"
    assert names["ObjectMeta.resource_version"] == "resourceVersion"
    assert names["BadRequest.field_violations"] == "fieldViolations"
    assert all(names.values())


async def test_the_server_says_what_it_is(rpc: Harness) -> None:
    """GetInfo tells version, mode and the store's version."""
    await rpc.apply()
    info = await rpc.server.GetInfo(server_pb2.ServerServiceGetInfoRequest())
    assert (info.store, info.runtime, info.resource_version) == ("sqlite", "fake", "1")
    assert info.version


async def test_a_store_that_takes_no_changes_is_unavailable(rpc: Harness) -> None:
    """When the store is closed or failing, changes are UNAVAILABLE with the time to come back, and reads go on."""
    await rpc.apply()
    await rpc.store.close()
    refusal = await refused(rpc.apply(image="image:2"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert "google.rpc.RetryInfo" in refusal.details
    assert (await rpc.sets.Get(pb.PodCliqueSetServiceGetRequest(name="demo"))).metadata.name == "demo"


async def test_a_size_that_was_decided_on_another_one_is_refused(rpc: Harness) -> None:
    """Scale with expectedReplicas is refused at another size, says which, and succeeds where the new size is there."""
    await rpc.apply()
    request = pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=3, expected_replicas=2)
    refusal = await refused(rpc.sets.Scale(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    assert refusal.metadata["current_replicas"] == "1"
    request.expected_replicas = 1
    assert (await rpc.sets.Scale(request)).replicas == 3
    assert (await rpc.sets.Scale(request)).previous == 3
