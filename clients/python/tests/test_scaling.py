"""Scaling policies in grovectl: columns, the screen of explain, pauses and sizes by hand, on a small real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from samples import table
from small_server import Grovectl, SmallServer

import grove_client
from grove.v1 import autoscaler_pb2
from grove.v1 import scaling_policy_pb2 as pb

SERVICE = "/grove.v1.ScalingPolicyService"
POLICY: dict[str, Any] = {
    "apiVersion": "grove.io/v1alpha1",
    "kind": "ScalingPolicy",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {
        "podCliqueSet": "chat",
        "mode": "apply",
        "paused": "in",
        "engine": "vllm",
        "roles": [{"name": "prefill", "role": "prefill"}, {"name": "decode", "role": "decode"}],
        "budget": {"gpus": 64},
    },
    "status": {
        "autoscaler": "a",
        "roles": [
            {"copy": 0, "role": "decode", "current": 4, "desired": 6, "reason": "WORK"},
            {"copy": 0, "role": "prefill", "current": 2, "desired": 2, "reason": "NO_CHANGE"},
            {"copy": 1, "role": "decode", "current": 4, "desired": 4, "reason": "NO_CHANGE"},
        ],
        "pauses": [{"direction": "out", "until": "2026-01-02T16:00:00.000Z"}],
    },
}
DECISION: dict[str, Any] = {
    "id": "d-1",
    "policy": "chat",
    "podCliqueSet": "chat",
    "copy": 0,
    "decidedAt": "2026-01-02T15:04:05.000Z",
    "mode": "apply",
    "outcome": "Applied",
    "gpusHeld": 40,
    "gpusMax": 64,
    "ratio": 0.5,
    "demand": {"decode_tokens": 5400},
    "readings": [{"name": "arrival_tokens", "status": "MISSING", "message": "no series", "age": "50s"}],
    "roles": [
        {
            "name": "decode",
            "role": "decode",
            "currentReplicas": 4,
            "desiredReplicas": 6,
            "readyReplicas": 3,
            "pendingReplicas": 1,
            "reason": "RATE_LIMIT",
            "message": "two more",
            "proposals": [
                {"policy": "work", "replicas": 9, "reason": "WORK", "formula": "5400 / 700 = 8", "trusted": True},
                {"policy": "kv", "reason": "COVERAGE_LOW"},
            ],
            "clamps": [{"reason": "RATE_LIMIT", "before": 9, "after": 6, "message": "50% in 60s"}],
            "readings": [
                {"name": "kv_usage", "value": 0.5, "unit": "ratio", "status": "FRESH", "age": "3s", "coverage": 0.75}
            ],
            "parameters": [{"name": "kvTokens", "value": 100000, "unit": "tokens", "source": "profile"}],
            "wouldChangeIf": ["decode +1 if demand > 5600 tokens/s"],
        }
    ],
}


def test_columns(server: SmallServer, grovectl: Grovectl) -> None:
    """Sizes are those of all copies, in the order of the policy; a pause shows beside the mode."""
    server.put(POLICY)
    (row,) = table(grovectl("get", "sp", "--no-headers").out)
    assert row[:6] == [
        "chat",
        "chat",
        "apply,paused=in+out",
        "prefill=2,decode=8",
        "prefill=2,decode=10",
        "WORK,NO_CHANGE",
    ]
    wide = grovectl("get", "scalingpolicy", "chat", "-o", "wide").out
    assert "prefill,decode" in wide
    assert "64" in wide


def test_columns_of_a_policy_that_nobody_follows(server: SmallServer, grovectl: Grovectl) -> None:
    """Without a status there are no sizes, and no zeros either."""
    server.put({**POLICY, "spec": {"podCliqueSet": "chat", "mode": "recommend", "roles": []}, "status": {}})
    (row,) = table(grovectl("get", "scalingpolicies", "--no-headers").out)
    assert row[:6] == ["chat", "chat", "recommend", "<none>", "<none>", "<none>"]


def test_explain_is_one_screen(server: SmallServer, grovectl: Grovectl) -> None:
    """Inputs with age and coverage, every proposal, every clamp, what would change it; unknown is not zero."""
    answer = {"decisions": [DECISION], "notes": ["not live: nobody answers"], "live": False}
    server.answers[f"{SERVICE}/Explain"] = json_format.ParseDict(answer, pb.ScalingPolicyServiceExplainResponse())
    out = grovectl("explain", "sp", "chat", "--copy", "0").out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "scalingpolicy/chat: not live: nobody answers",
        "GPUs 40 of 64 held",
        "ratio 0.50 prefill for each decode",
        "demand decode_tokens: 5400",
        "arrival_tokens unknown MISSING 50s - no series",
        "decode (decode): 4 -> 6: RATE_LIMIT (3 ready, 1 pending, 0 draining)",
        "proposal work: 9 WORK 5400 / 700 = 8",
        "proposal kv: unknown COVERAGE_LOW (not fresh: may only ask for more)",
        "then RATE_LIMIT: 9 -> 6 50% in 60s",
        "kv_usage 0.5 ratio FRESH 3s 75% -",
        "model kvTokens = 100000 tokens (profile)",
        "changes if decode +1 if demand > 5600 tokens/s",
    ):
        assert line in rows
    _, request = server.calls[-1]
    assert (request.name, request.HasField("copy"), request.copy) == ("chat", True, 0)
    assert json.loads(grovectl("explain", "sp/chat", "-o", "json").out)["decisions"][0]["id"] == "d-1"
    assert grovectl("explain", "pg", "x", "--copy", "0").code == 2


def test_a_policy_rests_for_a_time(server: SmallServer, grovectl: Grovectl) -> None:
    """A pause says until when; resuming is a pause of no length."""
    pause = f"{SERVICE}/Pause"
    server.answers[pause] = pb.ScalingPolicyServicePauseResponse(until="2026-01-02T16:00:00Z", changed=True)
    out = grovectl("autoscale", "pause", "chat", "--for", "30m", "--direction", "in", "--reason", "load test").out
    assert out == "scalingpolicy/chat paused until 2026-01-02T16:00:00Z\n"
    _, request = server.calls[-1]
    assert (request.duration, request.direction, request.reason) == ("30m", "in", "load test")
    server.answers[pause] = pb.ScalingPolicyServicePauseResponse(changed=True)
    assert grovectl("autoscale", "resume", "sp/chat").out == "scalingpolicy/chat resumed\n"
    assert server.calls[-1][1].duration == "0s"
    assert grovectl("autoscale", "pause", "chat").code == 2
    assert grovectl("autoscale", "pause", "pod/chat", "--for", "1m").code == 2


def test_a_role_gets_a_size_by_hand(server: SmallServer, grovectl: Grovectl) -> None:
    """A size needs an end; without both the override ends."""
    override = f"{SERVICE}/Override"
    server.answers[override] = pb.ScalingPolicyServiceOverrideResponse(until="2026-01-02T16:00:00Z")
    out = grovectl("autoscale", "override", "chat", "--role", "decode", "--replicas", "0", "--for", "1h").out
    assert out == "scalingpolicy/chat decode: 0 replicas until 2026-01-02T16:00:00Z\n"
    _, request = server.calls[-1]
    assert (request.role, request.HasField("replicas"), request.replicas) == ("decode", True, 0)
    assert not request.HasField("copy")
    server.answers[override] = pb.ScalingPolicyServiceOverrideResponse()
    assert "by its policy again" in grovectl("autoscale", "override", "chat", "--role", "decode").out
    assert (server.calls[-1][1].duration, server.calls[-1][1].HasField("replicas")) == ("0s", False)


@pytest.mark.parametrize("more", [("--replicas", "3"), ("--for", "1h")])
def test_half_an_override_is_a_mistake(grovectl: Grovectl, more: tuple[str, str]) -> None:
    """A size without an end, or an end without a size, is refused before anything is asked."""
    assert grovectl("autoscale", "override", "chat", "--role", "decode", *more).code == 2


async def test_an_autoscaler_registers_and_writes_through_the_client(server: SmallServer) -> None:
    """Register, list, write a status as the one that leads, leave."""
    registry = "/grove.v1.AutoscalerRegistryService"
    server.answers[f"{registry}/Register"] = autoscaler_pb2.AutoscalerRegistryServiceRegisterResponse(
        leads=True, leader="a", term=3, lease="15s"
    )
    server.answers[f"{registry}/List"] = autoscaler_pb2.AutoscalerRegistryServiceListResponse(
        autoscalers=[autoscaler_pb2.RegisteredAutoscaler(name="a", leads=True)]
    )
    server.answers[f"{registry}/Deregister"] = autoscaler_pb2.AutoscalerRegistryServiceDeregisterResponse(existed=True)
    stored = pb.ScalingPolicy(status=pb.ScalingPolicyStatus(decision_id="d"))
    server.answers[f"{SERVICE}/UpdateStatus"] = pb.ScalingPolicyServiceUpdateStatusResponse(scaling_policy=stored)
    async with grove_client.connect(server.address) as grove:
        standing = await grove.autoscalers.register("a", "127.0.0.1:5", version="1", timeout_s=5)
        assert (standing.leads, standing.term) == (True, 3)
        assert [(each.name, each.leads) for each in await grove.autoscalers.list()] == [("a", True)]
        written = await grove.scaling_policies.update_status("chat", stored.status, autoscaler="a", term=standing.term)
        assert written.status.decision_id == "d"
        _, request = server.calls[-1]
        assert (request.name, request.autoscaler, request.term) == ("chat", "a", 3)
        assert await grove.autoscalers.deregister("a")
