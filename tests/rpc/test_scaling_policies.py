"""Scaling policies through a real server: the kind, its status, who leads, and what is handed on to an autoscaler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from pydantic.alias_generators import to_camel

from grove.v1 import autoscaler_pb2, autoscaler_pb2_grpc, pod_clique_set_pb2, story_pb2, story_pb2_grpc
from grove.v1 import scaling_policy_pb2 as pb
from grove_server.api.forwarding import FORWARDED_MAX, Forwarder, Trust, callable_address
from grove_server.api.reasons import ApiError
from grove_server.resources.scaling_policy import ScalingPolicySpec, ScalingPolicyStatus
from grove_server.telemetry import metrics
from tests.rpc.harness import TIMEOUT_S, Harness, refused, sample_set, serving
from tests.rpc.test_transport import Authority, tls_flags
from tests.waiting import until

POLICY: Final = """
apiVersion: grove.io/v1alpha1
kind: ScalingPolicy
metadata: {name: chat, labels: {team: a}}
spec:
  podCliqueSet: demo
  paused: in
  slo: {ttft: 1s, itl: 50ms, ttftPer1kTokens: 200ms}
  ratio: {fixed: 2}
  roles:
  - {name: prefill, role: prefill, podClique: router, minReplicas: 2, maxReplicas: 8, gpusPerReplica: 4}
  - name: decode
    role: decode
    podClique: worker
    minReplicas: 2
    maxReplicas: 8
    profile: {decodeStep: {base: 12ms, perKvToken: 2.6ns}, onlineUpdate: false}
  signals:
    kv_usage: {query: 'x{namespace="default"}', unit: ratio, role: decode, minCoverage: 0.5}
"""


def named(name: str = "chat") -> pb.ScalingPolicyServiceGetRequest:
    """Return the request for one policy."""
    return pb.ScalingPolicyServiceGetRequest(name=name)


def registration(name: str, address: str) -> autoscaler_pb2.AutoscalerRegistryServiceRegisterRequest:
    """Return the request to register."""
    return autoscaler_pb2.AutoscalerRegistryServiceRegisterRequest(name=name, address=address, version="1")


async def next_type(watch: Any) -> str:  # noqa: ANN401 -- a call that streams
    """Return what the next step of a watch is, bookmarks left out."""
    while True:
        step = await asyncio.wait_for(watch.read(), TIMEOUT_S)
        if step.type != "BOOKMARK":
            return str(step.type)


async def with_policy(rpc: Harness) -> None:
    """Apply the set and its policy."""
    await rpc.apply()
    await rpc.apply_text(POLICY)


async def test_a_policy_is_a_kind_like_others(rpc: Harness) -> None:
    """Apply, get, list, watch, update, delete; what comes back can be applied again and is then unchanged."""
    await rpc.apply()
    applied = await rpc.apply_text(POLICY)
    assert [(each.kind, each.namespace, each.action) for each in applied.results] == [
        ("ScalingPolicy", "default", "created")
    ]
    assert list(applied.results[0].warnings) == []
    stored = await rpc.scaling_policies.Get(named())
    shown = json_format.MessageToDict(stored)
    assert (shown["apiVersion"], shown["kind"], shown["spec"]["mode"]) == (
        "grove.io/v1alpha1",
        "ScalingPolicy",
        "recommend",
    )
    assert (shown["spec"]["paused"], shown["spec"]["slo"]["ttftPer1kTokens"]) == ("in", "200ms")
    assert [each["gpusPerReplica"] for each in shown["spec"]["roles"]] == [4, "auto"]
    assert shown["spec"]["roles"][1]["profile"]["decodeStep"]["perKvToken"] == "2.6ns"
    assert shown["spec"]["roles"][1]["profile"]["onlineUpdate"] is False
    again = await rpc.scaling_policies.Apply(pb.ScalingPolicyServiceApplyRequest(scaling_policy=stored))
    assert again.action == "unchanged"
    stored.spec.mode = "apply"
    await rpc.scaling_policies.Update(pb.ScalingPolicyServiceUpdateRequest(scaling_policy=stored))
    refusal = await refused(rpc.scaling_policies.Update(pb.ScalingPolicyServiceUpdateRequest(scaling_policy=stored)))
    assert refusal.code is grpc.StatusCode.ABORTED
    listed = await rpc.scaling_policies.List(pb.ScalingPolicyServiceListRequest(label_selector="team=a"))
    assert [each.spec.mode for each in listed.items] == ["apply"]
    stories = story_pb2_grpc.StoryServiceStub(rpc.channel)
    await stories.Get(story_pb2.StoryServiceGetRequest(kind="ScalingPolicy", namespace="default", name="chat"))
    watch = rpc.scaling_policies.Watch(pb.ScalingPolicyServiceWatchRequest(resume_token=listed.resume_token))
    assert await next_type(watch) == "SYNCED"
    await rpc.scaling_policies.Delete(pb.ScalingPolicyServiceDeleteRequest(names=["chat"]))
    assert await next_type(watch) == "DELETED"
    watch.cancel()
    assert (await refused(rpc.scaling_policies.Get(named()))).code is grpc.StatusCode.NOT_FOUND


async def test_a_text_brings_the_set_with_its_policy(rpc: Harness) -> None:
    """A policy before its set in one text is checked against that set, and two for one clique are refused."""
    text = json_format.MessageToJson(sample_set()).replace("45.0", "45")
    applied = await rpc.apply_text(f"{POLICY}---\n{text}")
    assert [list(each.warnings) for each in applied.results] == [[], []]
    second = POLICY.replace("name: chat", "name: other")
    refusal = await refused(rpc.apply_text(second))
    assert refusal.fields == ["document[1].spec.roles[0].podClique", "document[1].spec.roles[1].podClique"]
    below = POLICY.replace("minReplicas: 2", "minReplicas: 1")
    assert (await refused(rpc.apply_text(below))).fields == [
        "document[1].spec.roles[0].minReplicas",
        "document[1].spec.roles[1].minReplicas",
    ]


async def test_a_set_that_its_policy_does_not_fit_is_warned_of(rpc: Harness) -> None:
    """A policy that was there first is compared with the set when that comes."""
    await rpc.apply_text(POLICY)
    larger = sample_set()
    larger.spec.template.cliques[0].spec.replicas = 3
    request = pod_clique_set_pb2.PodCliqueSetServiceApplyRequest(pod_clique_set=larger, validate_only=True)
    (warning,) = (await rpc.sets.Apply(request)).warnings
    assert warning.startswith("ScalingPolicy chat does not fit: spec.roles[0].minReplicas: must be at least")
    assert list((await rpc.apply()).warnings) == []


async def test_the_status_is_the_autoscaler_s(rpc: Harness) -> None:
    """Apply leaves the status alone; UpdateStatus changes nothing else, is idempotent, and is the leader's."""
    await with_policy(rpc)
    status = pb.ScalingPolicyStatus(
        observed_generation=1,
        autoscaler="a",
        decision_id="d1",
        decided_at="2026-01-02T15:04:05.678Z",
        roles=[pb.ScalingRoleStatus(copy=0, role="decode", current=2, desired=3, reason="WORK")],
        pauses=[pb.ScalingPause(direction="in", until="2026-01-02T16:00:00.000Z", actor="me")],
        overrides=[pb.ScalingOverride(role="decode", replicas=4, until="2026-01-02T16:00:00.000Z")],
    )
    request = pb.ScalingPolicyServiceUpdateStatusRequest(name="chat", status=status, autoscaler="a", term=1)
    written = (await rpc.scaling_policies.UpdateStatus(request)).scaling_policy
    assert (written.status.decided_at, written.status.roles[0].desired) == ("2026-01-02T15:04:05.678Z", 3)
    assert not written.status.overrides[0].HasField("copy")
    assert written.metadata.generation == 1
    again = (await rpc.scaling_policies.UpdateStatus(request)).scaling_policy
    assert again.metadata.resource_version == written.metadata.resource_version
    await rpc.apply_text(POLICY.replace("paused: in", "paused: false"))
    assert (await rpc.scaling_policies.Get(named())).status == written.status
    await rpc.autoscalers.Register(registration("a", "127.0.0.1:1"))
    await rpc.scaling_policies.UpdateStatus(request)
    for wrong in ({"autoscaler": "b"}, {"term": 2}):
        other = pb.ScalingPolicyServiceUpdateStatusRequest(name="chat", status=status, autoscaler="a", term=1)
        for field, value in wrong.items():
            setattr(other, field, value)
        assert (await refused(rpc.scaling_policies.UpdateStatus(other))).reason == "AUTOSCALER_DOES_NOT_LEAD"
    request.status.decided_at = "yesterday"
    assert (await refused(rpc.scaling_policies.UpdateStatus(request))).reason == "INVALID_REQUEST"


class Autoscaler(autoscaler_pb2_grpc.AutoscalerServiceServicer):
    """What is handed on to an autoscaler: it remembers what it was asked and answers or refuses as the test says."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def Explain(self, request: Any, context: Any) -> Any:  # noqa: ANN401 -- the servicer's signature
        """Answer with one decision."""
        await self._take(request, context)
        decision = autoscaler_pb2.AutoscalerServiceExplainResponse()
        decision.decisions.add(id="d1", policy=request.name, copy=0)
        decision.notes.append("fresh")
        return decision

    async def Pause(self, request: Any, context: Any) -> Any:  # noqa: ANN401 -- the servicer's signature
        """Answer with an end."""
        await self._take(request, context)
        return autoscaler_pb2.AutoscalerServicePauseResponse(until="2026-01-02T15:04:05Z", changed=True)

    async def Override(self, request: Any, context: Any) -> Any:  # noqa: ANN401 -- the servicer's signature
        """Answer with an end."""
        await self._take(request, context)
        return autoscaler_pb2.AutoscalerServiceOverrideResponse(until="2026-01-02T15:04:05Z", changed=True)

    async def GetRecommendation(self, request: Any, _context: Any) -> Any:  # noqa: ANN401 -- the servicer's signature
        """Never handed on."""
        raise AssertionError(request)

    def WatchDecisions(self, request: Any, _context: Any) -> Any:  # noqa: ANN401 -- the servicer's signature
        """Never handed on."""
        raise AssertionError(request)

    async def Simulate(self, request: Any, _context: Any) -> Any:  # noqa: ANN401 -- the servicer's signature
        """Never handed on."""
        raise AssertionError(request)

    async def _take(self, request: Any, context: Any) -> None:  # noqa: ANN401 -- the servicer's signature
        self.asked.append(request)
        await self.gate.wait()
        if self.refusal is not None:
            await context.abort(*self.refusal)


@asynccontextmanager
async def autoscaler(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[tuple[Autoscaler, int]]:
    """Run an autoscaler on a port of loopback."""
    server, servicer = grpc.aio.server(), Autoscaler()
    autoscaler_pb2_grpc.add_AutoscalerServiceServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield servicer, port
    finally:
        servicer.gate.set()
        await server.stop(None)


async def test_three_calls_are_handed_on_to_the_leader(rpc: Harness) -> None:
    """The autoscaler gets them whole and learns who asks; its refusals come back as such, cut to a line."""
    await with_policy(rpc)
    async with autoscaler() as (servicer, port), autoscaler() as (standby, other_port):
        first = await rpc.autoscalers.Register(registration("a", f"127.0.0.1:{port}"))
        assert (first.leads, first.term, first.lease, first.registered) == (True, 1, "15s", True)
        assert not (await rpc.autoscalers.Register(registration("b", f"127.0.0.1:{other_port}"))).leads
        known = await rpc.autoscalers.List(autoscaler_pb2.AutoscalerRegistryServiceListRequest())
        assert [(each.name, each.leads) for each in known.autoscalers] == [("a", True), ("b", False)]
        explained = await rpc.scaling_policies.Explain(pb.ScalingPolicyServiceExplainRequest(name="chat", copy=0))
        assert (explained.live, explained.autoscaler, list(explained.notes)) == (True, "a", ["fresh"])
        assert [each.id for each in explained.decisions] == ["d1"]
        await rpc.scaling_policies.Pause(
            pb.ScalingPolicyServicePauseRequest(name="chat", duration="15m", reason="load test")
        )
        await rpc.scaling_policies.Override(
            pb.ScalingPolicyServiceOverrideRequest(name="chat", role="decode", replicas=4, duration="1h")
        )
        ask, pause, override = servicer.asked
        assert (ask.namespace, ask.name, ask.HasField("copy"), ask.copy) == ("default", "chat", True, 0)
        assert (pause.direction, pause.duration, pause.reason, pause.actor) == ("both", "15m", "load test", "local")
        assert (override.role, override.replicas, override.HasField("copy")) == ("decode", 4, False)
        servicer.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "over\nthe budget " + "x" * 1000)
        refusal = await refused(
            rpc.scaling_policies.Pause(pb.ScalingPolicyServicePauseRequest(name="chat", duration="1m"))
        )
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AUTOSCALER_REFUSED")
        assert refusal.message.startswith("autoscaler a: over the budget x")
        assert len(refusal.message) < 450
        await rpc.autoscalers.Deregister(autoscaler_pb2.AutoscalerRegistryServiceDeregisterRequest(name="a"))
        await rpc.autoscalers.Register(registration("b", f"127.0.0.1:{other_port}"))
        await rpc.scaling_policies.Explain(pb.ScalingPolicyServiceExplainRequest(name="chat"))
        assert len(standby.asked) == 1


async def test_without_an_autoscaler_explain_tells_what_the_status_holds(rpc: Harness) -> None:
    """Nobody registered, or nobody answering: Explain says so and shows the status; changes are refused."""
    await with_policy(rpc)
    ask = pb.ScalingPolicyServiceExplainRequest(name="chat")
    empty = await rpc.scaling_policies.Explain(ask)
    assert (empty.live, len(empty.decisions)) == (False, 0)
    assert "no autoscaler is registered" in empty.notes[0]
    assert "nothing was decided" in empty.notes[1]
    status = pb.ScalingPolicyStatus(
        autoscaler="a", decision_id="d1", roles=[pb.ScalingRoleStatus(copy=1, role="decode", desired=3)]
    )
    await rpc.scaling_policies.UpdateStatus(pb.ScalingPolicyServiceUpdateStatusRequest(name="chat", status=status))
    pause = pb.ScalingPolicyServicePauseRequest(name="chat", duration="1m")
    assert (await refused(rpc.scaling_policies.Pause(pause))).reason == "AUTOSCALER_NOT_REGISTERED"
    async with autoscaler() as (_, port):
        await rpc.autoscalers.Register(registration("a", f"127.0.0.1:{port}"))
    before = metrics.FORWARDED_CALLS.labels("Explain", "AUTOSCALER_UNREACHABLE")._value.get()
    old = await rpc.scaling_policies.Explain(ask)
    assert metrics.FORWARDED_CALLS.labels("Explain", "AUTOSCALER_UNREACHABLE")._value.get() == before + 1
    assert (old.live, old.autoscaler) == (False, "a")
    assert "does not answer" in old.notes[0]
    assert [(each.copy, each.roles[0].desired_replicas) for each in old.decisions] == [(1, 3)]
    refusal = await refused(rpc.scaling_policies.Pause(pause))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "AUTOSCALER_UNREACHABLE")
    ask.decision_id = "d0"
    assert (await refused(rpc.scaling_policies.Explain(ask))).reason == "AUTOSCALER_UNREACHABLE"


async def test_only_so_many_calls_are_handed_on_at_a_time(rpc: Harness) -> None:
    """An autoscaler that hangs holds a bounded number of calls; one more is refused at once."""
    await with_policy(rpc)
    async with autoscaler() as (servicer, port):
        await rpc.autoscalers.Register(registration("a", f"127.0.0.1:{port}"))
        servicer.gate.clear()
        ask = pb.ScalingPolicyServiceExplainRequest(name="chat")
        calls = [asyncio.ensure_future(rpc.scaling_policies.Explain(ask)) for _ in range(FORWARDED_MAX)]
        await until(lambda: len(servicer.asked) == FORWARDED_MAX, "all calls arrived")
        refusal = await refused(rpc.scaling_policies.Explain(ask))
        assert refusal.reason == "TOO_MANY_CALLS"
        servicer.gate.set()
        assert all(answer.live for answer in await asyncio.gather(*calls))


async def test_an_autoscaler_that_hangs_is_given_up(rpc: Harness) -> None:
    """A call ends with its time, and the next one goes to whoever leads then, elsewhere too."""
    autoscalers = rpc.plane.autoscalers
    forwarder = Forwarder(autoscalers, Trust(), deadline_s=0.1)
    ask = autoscaler_pb2.AutoscalerServiceExplainRequest(name="chat")
    async with autoscaler() as (hanging, port), autoscaler() as (_, other_port):
        hanging.gate.clear()
        await autoscalers.register("a", f"127.0.0.1:{port}")
        with pytest.raises(ApiError, match="does not answer"):
            await forwarder.ask(ask, autoscaler_pb2.AutoscalerServiceExplainResponse)
        await autoscalers.register("a", f"127.0.0.1:{other_port}")
        forwarder = Forwarder(autoscalers, Trust())
        name, answer = await forwarder.ask(ask, autoscaler_pb2.AutoscalerServiceExplainResponse)
        assert (name, list(answer.notes)) == ("a", ["fresh"])
    await forwarder.close()


async def test_what_was_registered_before_the_rules_changed_is_not_called(rpc: Harness) -> None:
    """An address that was stored by a server with other settings is not called in plaintext."""
    await rpc.plane.autoscalers.register("a", "192.0.2.1:5")
    ask = autoscaler_pb2.AutoscalerServiceExplainRequest(name="chat")
    with pytest.raises(ApiError, match="does not answer") as caught:
        await Forwarder(rpc.plane.autoscalers, Trust()).ask(ask, autoscaler_pb2.AutoscalerServiceExplainResponse)
    assert "plaintext" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"duration": ""}, "duration", id="without an end"),
        pytest.param({"duration": "169h"}, "duration", id="too long"),
        pytest.param({"duration": "500ms"}, "duration", id="too short"),
        pytest.param({"duration": "soon"}, "duration", id="no duration"),
        pytest.param({"role": "router"}, "role", id="no such role"),
        pytest.param({"replicas": -1}, "replicas", id="negative"),
        pytest.param({"copy": -1}, "copy", id="negative copy"),
        pytest.param({"reason": "x" * 257}, "reason", id="long reason"),
    ],
)
async def test_what_is_wrong_is_refused_before_it_is_handed_on(rpc: Harness, change: Any, field: str) -> None:  # noqa: ANN401 -- fields of a request
    """The autoscaler is not bothered with what the server can tell is wrong."""
    await with_policy(rpc)
    legal = {"name": "chat", "role": "decode", "replicas": 4, "duration": "1h"}
    refusal = await refused(
        rpc.scaling_policies.Override(pb.ScalingPolicyServiceOverrideRequest(**{**legal, **change}))
    )
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", [field])


@pytest.mark.parametrize(
    ("address", "peer", "is_allowed"),
    [
        ("127.0.0.1:5", "ipv4:127.0.0.1:40000", True),
        ("localhost:5", "unix:", True),
        ("unix:/run/a.sock", "ipv6:%5B::1%5D:4000", True),
        ("127.0.0.1:5", "ipv4:10.0.0.7:40000", False),
        ("unix:/run/a.sock", "ipv4:10.0.0.7:40000", False),
        ("10.0.0.7:5", "ipv4:10.0.0.7:40000", True),
        ("10.0.0.7:5", "ipv6:%5B::ffff:10.0.0.7%5D:40000", True),
        ("[2001:db8::1]:5", "ipv6:%5B2001:db8::1%5D:4000", True),
        ("10.0.0.8:5", "ipv4:10.0.0.7:40000", False),
        ("169.254.169.254:80", "ipv4:10.0.0.7:40000", False),
        ("10.0.0.7:5", "unix:", False),
        ("10.0.0.7:5", "ipv4:127.0.0.1:40000", False),
        ("inside.example:5", "ipv4:10.0.0.7:40000", False),
        ("127.0.0.1:0", "ipv4:127.0.0.1:40000", False),
        ("127.0.0.1", "ipv4:127.0.0.1:40000", False),
        ("dns:///inside:5", "ipv4:127.0.0.1:40000", False),
    ],
)
def test_an_autoscaler_is_called_only_where_it_calls_from(address: str, peer: str, is_allowed: bool) -> None:
    """No registration makes the server call a third machine, look up a name, or its own machine from another."""
    trust = Trust(insecure=True)
    if is_allowed:
        assert callable_address(address, peer, trust).port in (0, 5)
    else:
        with pytest.raises(ApiError):
            callable_address(address, peer, trust)


def test_beyond_this_machine_it_is_tls_or_nothing() -> None:
    """Without authorities an address on the network is refused at its registration."""
    address, peer = "10.0.0.7:5", "ipv4:10.0.0.7:40000"
    with pytest.raises(ApiError, match="TLS"):
        callable_address(address, peer, Trust())
    assert str(callable_address(address, peer, Trust(authorities=Path("x.pem")))) == address


async def test_beyond_this_machine_the_certificate_is_checked(tmp_path: Path) -> None:
    """A channel to another machine takes a certificate of the authority, shows its own, and refuses a stranger's."""
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    own, other = Authority(tmp_path / "own"), Authority(tmp_path / "other", "stranger")
    request = autoscaler_pb2.AutoscalerServiceExplainRequest(name="x")
    trust = Trust(authorities=own.folder / f"{own.name}.pem")
    for authority, is_trusted in ((own, True), (other, False)):
        key, chain = authority.issue("scaler", "IP:127.0.0.1")
        async with autoscaler(grpc.ssl_server_credentials([(key, chain)])) as (_, port):
            # The address of another machine, for this test, is one of this machine that is not treated as such.
            remote = Remote(port)
            channel = trust.channel(remote)  # type: ignore[arg-type]  # an address that says it is remote
            stub = autoscaler_pb2_grpc.AutoscalerServiceStub(channel)
            if is_trusted:
                assert (await stub.Explain(request, timeout=TIMEOUT_S)).notes == ["fresh"]
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Explain(request, timeout=TIMEOUT_S)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await channel.close()


class Remote:
    """A port of loopback that counts as another machine's."""

    is_local = False

    def __init__(self, port: int) -> None:
        self._port = port

    def __str__(self) -> str:
        return f"127.0.0.1:{self._port}"


async def test_a_name_belongs_to_its_certificate(tmp_path: Path) -> None:
    """Another client cannot take over a living autoscaler's name; readers cannot register at all."""
    (tmp_path / "certificates").mkdir()
    authority = Authority(tmp_path / "certificates")
    authority.issue("server", "DNS:localhost,IP:127.0.0.1")
    flags = [*tls_flags(authority, clients=True), "--client-role", "one=write", "--client-role", "two=write"]
    async with serving(tmp_path, *flags) as rpc:

        async def as_caller(name: str, call: Callable[[Any], Any]) -> Any:  # noqa: ANN401 -- any answer
            key, chain = authority.issue(name, f"DNS:{name}")
            credentials = grpc.ssl_channel_credentials(authority.certificate, key, chain)
            async with grpc.aio.secure_channel(str(rpc.api.address), credentials) as channel:
                return await call(autoscaler_pb2_grpc.AutoscalerRegistryServiceStub(channel))

        request = registration("a", "127.0.0.1:1")
        assert (await as_caller("one", lambda stub: stub.Register(request))).leads
        refusal = await as_caller("two", lambda stub: refused(stub.Register(request)))
        assert refusal.reason == "AUTOSCALER_NAME_TAKEN"
        gone = autoscaler_pb2.AutoscalerRegistryServiceDeregisterRequest(name="a")
        assert (await as_caller("two", lambda stub: refused(stub.Deregister(gone)))).reason == "AUTOSCALER_NAME_TAKEN"
        refusal = await as_caller("three", lambda stub: refused(stub.Register(request)))
        assert refusal.reason == "PERMISSION_DENIED"


def shapes(schema: type, message: Descriptor, path: str) -> list[str]:
    """Return the paths at which a schema and a message have different fields."""
    hints = get_type_hints(schema)
    names = {_alias(each.name): each.name for each in fields(schema)}
    theirs = {each.json_name: each for each in message.fields}
    different = [f"{path}.{name}" for name in names.keys() ^ theirs.keys()]
    for alias in names.keys() & theirs.keys():
        nested = _inside(hints[names[alias]])
        inner = theirs[alias].message_type
        if nested is not None and inner is not None:
            if inner.GetOptions().map_entry:
                inner = inner.fields_by_name["value"].message_type
            assert inner is not None, "a map of messages"
            different += shapes(nested, inner, f"{path}.{alias}")
    return different


def _alias(name: str) -> str:
    return {"ttft_per_1k_tokens": "ttftPer1kTokens"}.get(name) or to_camel(name)


def _inside(hint: Any) -> type | None:  # noqa: ANN401 -- an annotation
    """Return the dataclass of ours in an annotation, if there is one."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    if get_origin(hint) in (Union, UnionType, tuple) or get_args(hint):
        return next((found for part in get_args(hint) if (found := _inside(part)) is not None), None)
    return None


def test_messages_mirror_the_schema() -> None:
    """Spec and status have the same fields as their messages, at every depth; a condition's time has another name."""
    assert shapes(ScalingPolicySpec, pb.ScalingPolicySpec.DESCRIPTOR, "spec") == []
    assert sorted(shapes(ScalingPolicyStatus, pb.ScalingPolicyStatus.DESCRIPTOR, "status")) == [
        "status.conditions.lastTransitionAt",
        "status.conditions.lastTransitionTime",
    ]
