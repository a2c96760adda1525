"""The commands that explain: tree, describe, events, explain, simulate, on a small real server."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from samples import CLIQUE, fill, table
from small_server import Grovectl, SmallServer

from grove.v1 import placement_pb2, pod_gang_pb2, server_pb2
from grove.v1.debug_pb2 import DebugServiceDumpResponse
from grove.v1.story_pb2 import StoryServiceGetResponse


def test_tree(server: SmallServer, grovectl: Grovectl) -> None:
    """The tree shows copies, groups, group replicas, cliques and pods with readiness, state, node and domain."""
    fill(server)
    rows = table(grovectl("tree", "pcs", "chat", "--no-headers").out)
    names = [" ".join(cell for cell in row if cell not in {"│", "├──", "└──"}) for row in rows]
    assert names[0].startswith("podcliqueset/chat 1/1 Running")
    assert names[1].startswith("copy 0 0/4 Running block=b1")
    assert names[2].startswith("podclique/chat-0-router 0/2 NotReady")
    assert names[3].startswith("pod/chat-0-router-abcde 1/1 Running node-3 0,1")
    assert names[4].startswith("podcliquescalinggroup/chat-0-decode 1/1 Running")
    assert names[5].startswith("replica 0 0/2 Running rack=r7")
    assert names[6].startswith("podclique/chat-0-decode-0-leader 0/2 NotReady")


@pytest.mark.parametrize(
    ("spec", "status", "state"),
    [
        ({"replicas": 3, "minAvailable": 2}, {"readyReplicas": 3, "scheduledReplicas": 3}, "Running"),
        ({"replicas": 3, "minAvailable": 2}, {"readyReplicas": 2, "scheduledReplicas": 2}, "Running"),
        ({"replicas": 3, "minAvailable": 2}, {"readyReplicas": 1, "scheduledReplicas": 3}, "NotReady"),
        ({"replicas": 3, "minAvailable": 2}, {"scheduledReplicas": 1}, "Pending"),
        ({"replicas": 3, "minAvailable": 2}, {}, "Pending"),
        ({"replicas": 0, "minAvailable": 0}, {}, "Idle"),
    ],
)
def test_tree_says_the_state_of_a_clique(
    server: SmallServer, grovectl: Grovectl, spec: dict[str, int], status: dict[str, int], state: str
) -> None:
    """A clique runs when its minimum is ready; before, it waits for places or for readiness."""
    fill(server)
    server.put({**CLIQUE, "spec": spec, "status": status})
    (row,) = [
        row for row in table(grovectl("tree", "pcs", "chat", "--no-pods").out) if "podclique/chat-0-router" in row
    ]
    assert row[-2] == state


def test_describe_and_events(server: SmallServer, grovectl: Grovectl) -> None:
    """Describe shows identity, conditions as a table and the events of the resource; events filters by resource."""
    fill(server)
    out = grovectl("describe", "pclq", "chat-0-router").out
    assert out.startswith("Name:                        chat-0-router\n")
    assert "MinAvailableBreached   False" in out
    assert "created 2 pods" in out
    assert "Events:                      <none>" in grovectl("describe", "no", "node-3").out
    assert table(grovectl("events", "--for", "pclq/chat-0-router", "--no-headers").out)[0][1:5] == [
        "Normal",
        "PodCreateSuccessful",
        "podclique/chat-0-router",
        "2",
    ]
    assert grovectl("events", "--types", "Warning") == (0, "", "No events found in default namespace.\n")


STORY: dict[str, Any] = {
    "transitions": [
        {
            "time": "2026-01-02T15:04:05.000Z",
            "cause": "workload",
            "changes": [{"what": "created"}],
            "reason": "why",
        },
        {
            "time": "2026-01-02T15:05:05.000Z",
            "cause": "api.scale",
            "actor": "alice",
            "requestId": "r-1",
            "changes": [
                {"what": "replicas", "before": "2", "after": "3"},
                {"what": "node", "after": "n1"},
                {"what": "waitingReason", "before": "Unschedulable"},
            ],
        },
    ],
    "forgotten": 7,
    "rememberedSince": "2026-01-01T00:00:00.000Z",
}


def test_describe_tells_the_story(server: SmallServer, grovectl: Grovectl) -> None:
    """Each transition is a line: when, by whom, what, why; and it is said how many are not shown."""
    fill(server)
    server.answers["/grove.v1.StoryService/Get"] = json_format.ParseDict(STORY, StoryServiceGetResponse())
    out = grovectl("describe", "pclq", "chat-0-router").out
    story = out[out.index("Story:\n") : out.index("Events:")].splitlines()
    assert story[1].split() == ["AGE", "BY", "WHAT", "WHY"]
    assert story[2].split()[1:] == ["workload", "created", "why"]
    assert "api.scale (alice)" in story[3]
    assert "replicas 2 → 3; node n1; waitingReason Unschedulable → <none>   request r-1" in story[3]
    assert story[4].endswith("7 earlier not shown)")
    asked = next(request for method, request in server.calls if method == "/grove.v1.StoryService/Get")
    assert (asked.kind, asked.namespace, asked.name) == ("PodClique", "default", "chat-0-router")


def test_a_dump_is_written_for_its_owner_alone(server: SmallServer, grovectl: Grovectl, tmp_path: Path) -> None:
    """The file appears whole or not at all, and only its owner may read it."""
    file = tmp_path / "state.jsonl"
    pieces = ['{"dump":{}}\n{"row":1}\n', '{"end":{"lines":2}}\n']
    server.dumped = [DebugServiceDumpResponse(lines=piece) for piece in pieces]
    assert grovectl("debug", "dump", str(file)) == (0, f"{file} written, 3 lines\n", "")
    assert file.read_text() == "".join(pieces)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert grovectl("debug", "dump", "-").out == "".join(pieces)
    server.dumped = server.dumped[:1]
    cut = grovectl("debug", "dump", str(tmp_path / "other"))
    assert (cut.code, cut.err) == (1, "error: the dump was cut off\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.jsonl"]
    assert grovectl("debug", "dump", str(tmp_path / "none" / "x")).code == 1


EXPLANATION: dict[str, Any] = {
    "state": "Pending",
    "reason": "Fragmented",
    "sentence": "No rack has room for 24 pods; the best, r7, has room for 20.",
    "proof": True,
    "needs": {
        "podCountMin": 24,
        "podCount": 24,
        "requiredLevel": "rack",
        "cliques": [{"name": "chat-0-decode", "podCountMin": 24, "requests": {"nvidia.com/gpu": "8"}}],
    },
    "cluster": {
        "nodeCount": 31,
        "nodeCountFitting": 23,
        "excluded": [{"reason": "Taint", "detail": "dedicated=train:NoSchedule", "nodeCount": 8}],
    },
    "levels": [
        {
            "scope": "chat-0",
            "level": "rack",
            "required": True,
            "domainCount": 4,
            "domainCountFitting": 0,
            "bestDomain": "r7",
            "bestPodCount": 20,
            "neededPodCount": 24,
            "missing": {"nvidia.com/gpu": "32"},
        },
        {"scope": "chat-0", "domainCount": 1, "domainCountFitting": 1},
        {"scope": "chat-0", "domainCount": 1, "bestPodCount": 23, "neededPodCount": 24, "missing": {"cpu": "2"}},
    ],
    "wouldFitIf": ["32 more GPUs were free in r7", "the required level were zone"],
}


def test_explain(server: SmallServer, grovectl: Grovectl) -> None:
    """One screen says what is asked for, what there is, per level, and what would help; pods lead to their gang."""
    fill(server)
    answer = {"namespace": "default", "name": "chat-0", "phase": "Pending", "explanation": EXPLANATION}
    server.answers["/grove.v1.PodGangService/Explain"] = json_format.ParseDict(
        answer, pod_gang_pb2.PodGangServiceExplainResponse()
    )
    out = grovectl("explain", "pg", "chat-0").out
    assert out.splitlines()[0] == "podgang/chat-0 is pending: Fragmented"
    assert "24 pods, all in one rack" in out
    assert "31 nodes: 23 fit, " not in out
    assert "31 nodes: 23 fit\n                8 take no such pod: 8 Taint (dedicated=train:NoSchedule)\n" in out
    assert "0 of 4 fit; best r7 fits 20 of 24 pods, lacks 32 nvidia.com/gpu" in out
    assert "                chat-0: whole cluster: fits\n" in out
    assert "                chat-0: whole cluster: too small, fits 23 of 24 pods, lacks 2 cpu\n" in out
    assert "  would fit if  32 more GPUs were free in r7\n                the required level were zone\n" in out
    assert grovectl("explain", "po/chat-0-router-abcde").out == out
    assert grovectl("explain", "pcs/chat").out == out
    assert json.loads(grovectl("explain", "pg/chat-0", "-o", "json").out) == answer


def test_explain_waiting_surplus(server: SmallServer, grovectl: Grovectl) -> None:
    """A placed gang stays placed on its screen; how many surplus pods wait is on its first line, why is below."""
    surplus = {**EXPLANATION, "needs": {"podCountMin": 0, "podCount": 3, "cliques": [{"name": "a", "podCount": 3}]}}
    told = {"state": "Placed", "placementScore": 1.0, "surplus": [surplus], "surplusPodCountWaiting": 3}
    server.answers["/grove.v1.PodGangService/Explain"] = json_format.ParseDict(
        {"name": "chat-0", "explanation": told}, pod_gang_pb2.PodGangServiceExplainResponse()
    )
    out = grovectl("explain", "pg", "chat-0").out
    assert out.splitlines()[0] == "podgang/chat-0 is placed; 3 surplus pods wait: Fragmented"
    assert "  score         1.00\n\n  surplus is pending: Fragmented\n" in out
    assert "    needs         3 surplus pods\n                  a: 3 pods of nothing\n" in out


def test_simulate(server: SmallServer, grovectl: Grovectl, tmp_path: Path) -> None:
    """A question lists every gang, explains those that do not fit, and is no error."""
    file = tmp_path / "a.yaml"
    file.write_text("kind: PodCliqueSet", encoding="utf-8")
    gangs = [
        {"name": "a-0", "role": "base", "fits": True, "explanation": {"state": "Placed", "placementScore": 0.5}},
        {"name": "b-0", "role": "base", "fits": False, "explanation": EXPLANATION},
    ]
    server.answers["/grove.v1.PlacementService/Simulate"] = json_format.ParseDict(
        {"gangs": gangs, "fits": False}, placement_pb2.PlacementServiceSimulateResponse()
    )
    code, out, _ = grovectl("simulate", "-f", str(file))
    assert code == 0
    assert table(out)[1][:7] == ["a-0", "base", "yes", "0/0", "<none>", "0.50", "<none>"]
    assert "1 of 2 gangs would be placed now; nothing was changed.\n\npodgang/b-0 is pending: Fragmented" in out


def test_version_and_completion(server: SmallServer, grovectl: Grovectl) -> None:
    """Version shows both sides; completion prints a script; the help lists every command."""
    server.answers["/grove.v1.ServerService/GetInfo"] = server_pb2.ServerServiceGetInfoResponse(
        version="9", store="sqlite", runtime="fake"
    )
    assert grovectl("version").out == "client 0.1.0\nserver 9 (store sqlite, runtime fake)\n"
    assert json.loads(grovectl("version", "-o", "json").out)["server"]["runtime"] == "fake"
    assert "_GROVECTL_COMPLETE" in grovectl("completion", "bash").out
    assert "simulate" in grovectl("--help").out
    assert "podcliquesets" in grovectl("api-resources").out
