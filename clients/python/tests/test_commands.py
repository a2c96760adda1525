"""The commands, run in this process against a small real server: output, exit codes, what was asked of the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # the package has no types
from samples import CLIQUE, POD, SET, fill, table
from small_server import Grovectl, Refusal, SmallServer, invalid, meta

from grove.v1.node_pb2 import NodeServiceDrainResponse
from grove.v1.pod_pb2 import PodServiceDeleteResponse
from grovectl.__main__ import main


def test_get_one_kind(server: SmallServer, grovectl: Grovectl) -> None:
    """A kind is a table with Grove's columns, NAME first and AGE last; as kubectl, unknown cells are blank."""
    fill(server)
    lines = grovectl("get", "pcs").out.splitlines()
    head, row = (line.split() for line in lines)
    titles = "NAME REPLICAS AVAILABLE UPDATED PCLQS-UPDATED PCLQS-TOTAL PCSGS-UPDATED PCSGS-TOTAL AGE"
    assert head == titles.split()
    assert row[:4] == ["chat", "1", "1", "1"]
    assert lines[1][lines[0].index("PCLQS-UPDATED") : lines[0].index("AGE")].strip() == ""


def test_get_some_of_several_names(server: SmallServer, grovectl: Grovectl) -> None:
    """What is there is printed, what is missing is named on stderr, one line each, with exit code 3."""
    fill(server)
    code, out, err = grovectl("get", "pcs", "none", "chat", "nobody")
    assert code == 3
    assert [row[0] for row in table(out)] == ["NAME", "chat"]
    assert [line.count("not found") for line in err.splitlines()] == [1, 1]
    assert grovectl("get", "pcs", "none", "chat", "--ignore-not-found").code == 0
    assert grovectl("describe", "pcs", "none", "chat").code == 3


def test_all_is_a_set_and_what_it_is_made_of(server: SmallServer, grovectl: Grovectl) -> None:
    """`get all` shows the five kinds of a set, as kubectl's all shows workloads; it takes no names."""
    fill(server)
    assert grovectl("get", "all").out == grovectl("get", "pcs,pclq,pcsg,pg,po").out
    assert grovectl("get", "all", "chat").code == 2


def test_get_several_kinds(server: SmallServer, grovectl: Grovectl) -> None:
    """Several kinds are blocks with qualified names; kinds without resources are left out."""
    fill(server)
    out = grovectl("get", "pcs,pclq,pcsg,pg,ct,po", "-o", "wide").out
    blocks = [table(block) for block in out.split("\n\n")]
    assert [block[1][0] for block in blocks] == [
        "podcliqueset.grove.io/chat",
        "podclique.grove.io/chat-0-decode-0-leader",
        "podcliquescalinggroup.grove.io/chat-0-decode",
        "podgang.scheduler.grove.io/chat-0",
        "pod/chat-0-router-abcde",
    ]
    assert blocks[1][0] == [
        "NAME",
        "MINAVAIL",
        "REPLICAS",
        "READY",
        "SCHEDULED",
        "UPDATED",
        "GATED",
        "MINBREACHED",
        "AGE",
    ]
    assert blocks[1][2][:8] == ["podclique.grove.io/chat-0-router", "1", "2", "0", "2", "2", "0", "False"]
    assert blocks[3][1][1:7] == ["Running", "<none>", "1", "<none>", "1.00", "block=b1"]
    assert blocks[4][1][1:7] == ["1/1", "Running", "0", "10.0.0.1", "node-3", "0,1"]


def _with_containers(
    name: str, *, initialized: bool, inits: list[dict[str, Any]], mains: list[dict[str, Any]], reason: str = ""
) -> dict[str, Any]:
    spec = {
        "nodeName": "node-3",
        "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
        "containers": [{"name": "main"}],
    }
    status = {
        "phase": "Running" if initialized else "Pending",
        "reason": reason,
        "conditions": [{"type": "Initialized", "status": str(initialized)}],
        "initContainerStatuses": inits,
        "containerStatuses": mains,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name), "spec": spec, "status": status}


_RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-24T12:00:00Z"}}
_WAITING = {"waiting": {"reason": "PodInitializing"}}
_BACKING_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
_DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
_FAILED = {"terminated": {"exitCode": 3, "reason": "Error"}}


@pytest.mark.parametrize(
    ("initialized", "setup", "proxy", "main", "cells"),
    [
        pytest.param(False, (_RUNNING, 0), (_WAITING, 0), (_WAITING, 0), ["0/2", "Init:0/2", "0"], id="first"),
        pytest.param(
            False, (_BACKING_OFF, 3), (_WAITING, 0), (_WAITING, 0), ["0/2", "Init:CrashLoopBackOff", "3"], id="loop"
        ),
        pytest.param(False, (_FAILED, 1), (_WAITING, 0), (_WAITING, 0), ["0/2", "Init:Error", "1"], id="failed"),
        pytest.param(False, (_DONE, 1), (_RUNNING, 2), (_WAITING, 0), ["0/2", "Init:1/2", "3"], id="sidecar-starts"),
        pytest.param(True, (_DONE, 1), (_RUNNING, 2), (_RUNNING, 4), ["2/2", "Running", "6"], id="running"),
        pytest.param(True, (_DONE, 1), (_RUNNING, 2), (_BACKING_OFF, 4), ["1/2", "CrashLoopBackOff", "6"], id="crash"),
    ],
)
def test_init_containers_and_sidecars_are_shown_as_kubectl_does(
    server: SmallServer,
    grovectl: Grovectl,
    *,
    initialized: bool,
    setup: tuple[dict[str, Any], int],
    proxy: tuple[dict[str, Any], int],
    main: tuple[dict[str, Any], int],
    cells: list[str],
) -> None:
    """READY counts sidecars; STATUS and RESTARTS tell of init containers until these are done, then of the rest."""

    def status(name: str, state: tuple[dict[str, Any], int], *, works: bool) -> dict[str, Any]:
        return {"name": name, "state": state[0], "restartCount": state[1], "ready": works, "started": works}

    proxy_works = initialized and proxy[0] is _RUNNING
    inits = [status("setup", setup, works=False), status("proxy", proxy, works=proxy_works)]
    mains = [status("main", main, works=main[0] is _RUNNING)]
    server.put(_with_containers("p", initialized=initialized, inits=inits, mains=mains))
    assert table(grovectl("get", "po", "p").out)[1][1:4] == cells


def test_get_objects(server: SmallServer, grovectl: Grovectl) -> None:
    """A query by kind is a v1 List, with none or one too; by name it is the object; whole numbers stay whole."""
    fill(server)
    assert json.loads(grovectl("get", "ct", "-o", "json").out)["items"] == []
    listed = json.loads(grovectl("get", "po", "-o", "json").out)
    assert (listed["apiVersion"], listed["kind"], len(listed["items"])) == ("v1", "List", 1)
    printed = grovectl("get", "po/chat-0-router-abcde", "-o", "json").out
    assert json.loads(printed) == POD
    assert '"containerPort": 8080\n' in printed
    assert grovectl("get", "po", "-o", "name").out == "pod/chat-0-router-abcde\n"
    assert grovectl("get", "pclq", "-o", "name").out.startswith("podclique.grove.io/")
    assert grovectl("get", "po", "-o", "jsonpath={.items[*].metadata.name}").out == "chat-0-router-abcde"
    assert "containerPort: 8080\n" in grovectl("get", "po", "chat-0-router-abcde", "-o", "yaml").out


def test_get_namespaces_selectors_and_paging(server: SmallServer, grovectl: Grovectl) -> None:
    """-A adds the namespace, -l selects, --sort-by sorts, --no-headers leaves the titles out, all pages are read."""
    for number in range(4500):
        server.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta(f"p{number}", "b", labels={"n": str(number)})})
    server.put(POD)
    assert len(grovectl("get", "po", "-n", "b", "--no-headers").out.splitlines()) == 4500
    assert table(grovectl("get", "po", "-A", "-l", "n=7").out)[1][:2] == ["b", "p7"]
    sorted_names = grovectl("get", "po", "-n", "b", "--sort-by", ".metadata.name", "-o", "name").out.splitlines()
    assert sorted_names[:3] == ["pod/p0", "pod/p1", "pod/p10"]


def test_nothing_found_is_no_error(grovectl: Grovectl) -> None:
    """An empty listing says so on stderr and is no error; a missing name is exit code 3 on one line."""
    assert grovectl("get", "pcs") == (0, "", "No resources found in default namespace.\n")
    assert grovectl("get", "pcs", "x") == (3, "", 'error: PodCliqueSet "x" not found\n')
    assert grovectl("get", "pcs", "x", "--ignore-not-found", "-o", "json") == (0, "", "")


@pytest.mark.parametrize(
    "words",
    [
        ("get", "chairs"),
        ("get", "pcs/a", "b"),
        ("get", "pcs", "a", "-l", "x=y"),
        ("get", "pcs", "-o", "table"),
        ("get", "pcs", "-o", "jsonpath={.a"),
        ("get", "events", "e1"),
        ("get", "pcs,po", "-w"),
        ("delete", "pclq", "x"),
        ("delete", "pcs"),
        ("scale", "po", "x", "--replicas", "1"),
        ("scale", "pcs", "x"),
        ("scale", "pcs", "x", "--replicas", "-1"),
        ("wait", "pcs", "x", "--for", "luck"),
        ("wait", "pcs", "--for", "delete"),
        ("tree", "po", "x"),
        ("explain", "node", "x"),
        ("cordon", "pod/x"),
        ("node", "down"),
        ("node", "down", "pod/x"),
        ("node", "sideways", "x"),
        ("get", "pcs", "--tls-cert", "x"),
        ("get", "pcs", "--tls-ca", __file__),
        ("get", "pcs", "--tls-ca", "/does/not/exist"),
        ("drain",),
        ("drain", "pod/x"),
    ],
)
def test_usage(words: tuple[str, ...], grovectl: Grovectl) -> None:
    """What makes no sense is refused with exit code 2 and one line."""
    code, out, err = grovectl(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.ABORTED, 5),
        (grpc.StatusCode.ALREADY_EXISTS, 5),
        (grpc.StatusCode.NOT_FOUND, 3),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 4),
        (grpc.StatusCode.PERMISSION_DENIED, 1),
        (grpc.StatusCode.INTERNAL, 1),
    ],
)
def test_exit_codes(server: SmallServer, grovectl: Grovectl, code: grpc.StatusCode, exit_code: int) -> None:
    """Each kind of refusal has its exit code."""
    server.refusal = Refusal(code, "no\nway")
    result = grovectl("get", "pcs", "x")
    assert result.code == exit_code
    assert result.err.count("\n") == 1


def test_server_away(capfd: pytest.CaptureFixture[str]) -> None:
    """A server that is not there is named with its address."""
    assert main(["-s", "127.0.0.1:1", "get", "pcs"]) == 1
    assert capfd.readouterr().err == "error: the server at 127.0.0.1:1 cannot be reached: Connection refused\n"


def test_a_server_that_was_reached_is_not_called_away(server: SmallServer, grovectl: Grovectl) -> None:
    """A server that answers why it cannot do it now says so in its own words."""
    why = ErrorInfo(reason="STORE_UNAVAILABLE", domain="grove.io")
    server.refusal = Refusal(grpc.StatusCode.UNAVAILABLE, "the store takes no changes now", (why,))
    err = grovectl("get", "pcs", "x").err
    assert "cannot do this now: the store takes no changes now" in err
    assert "reached" not in err


def test_apply(server: SmallServer, grovectl: Grovectl, tmp_path: Path) -> None:
    """Files and directories are applied, each file as one change; a dry run says so and changes nothing."""
    (tmp_path / "a.yaml").write_text(json.dumps({**SET, "metadata": {"name": "a"}}), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({**SET, "metadata": {"name": "b"}}), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no manifest", encoding="utf-8")
    result = grovectl("apply", "-f", str(tmp_path), "--dry-run=server", "-n", "b")
    assert result.out == "podcliqueset/a created (server dry run)\npodcliqueset/b created (server dry run)\n"
    assert not server.stored
    assert grovectl("apply", "-f", str(tmp_path), "-n", "b").out == "podcliqueset/a created\npodcliqueset/b created\n"
    assert ("PodCliqueSet", "b", "a") in server.stored
    assert grovectl("apply", "-f", str(tmp_path / "a.yaml"), "-n", "b").out == "podcliqueset/a configured\n"


def test_apply_refused(server: SmallServer, grovectl: Grovectl, tmp_path: Path) -> None:
    """Every wrong field is one line with file and path; those that the server left out are counted."""
    file = tmp_path / "a.yaml"
    file.write_text("a: b", encoding="utf-8")
    server.refusal = invalid(("document[1].spec.replicas", "must be 0 or more"), ("document[2].kind", "is unknown"))
    assert grovectl("apply", "-f", str(file)) == (
        1,
        "",
        (
            f"error: {file}: document[1].spec.replicas: must be 0 or more\n"
            f"error: {file}: document[2].kind: is unknown\n"
            f"error: {file}: and 20 more\n"
        ),
    )


def test_apply_unreadable(grovectl: Grovectl, tmp_path: Path) -> None:
    """Files that cannot be read, are not text or are no manifests are refused before anything is sent."""
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe")
    assert (
        grovectl("apply", "-f", str(tmp_path / "none")).err
        == f"error: {tmp_path / 'none'}: No such file or directory\n"
    )
    assert "not UTF-8" in grovectl("apply", "-f", str(binary)).err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no manifest" in grovectl("apply", "-f", str(empty)).err


def test_delete(server: SmallServer, grovectl: Grovectl, tmp_path: Path) -> None:
    """Several names are one call; a missing one leaves all; manifests, --all and dry runs work."""
    fill(server)
    server.put({**SET, "metadata": meta("other")})
    assert grovectl("delete", "pcs", "chat", "missing").code == 3
    assert grovectl("delete", "pcs", "chat", "--dry-run=server").out == "podcliqueset/chat deleted (server dry run)\n"
    assert grovectl("delete", "pcs", "chat", "missing", "--ignore-not-found").out == "podcliqueset/chat deleted\n"
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps({**SET, "metadata": {"name": "other"}}), encoding="utf-8")
    assert grovectl("delete", "-f", str(file)).out == "podcliqueset/other deleted\n"
    assert grovectl("delete", "po", "--all").out == "pod/chat-0-router-abcde deleted\n"
    assert grovectl("delete", "po", "--all") == (0, "", "No resources found\n")


def test_delete_timeout(server: SmallServer, grovectl: Grovectl) -> None:
    """What does not go away in time is exit code 4."""
    fill(server)
    server.answers["/grove.v1.PodService/Delete"] = PodServiceDeleteResponse()
    assert grovectl("delete", "po/chat-0-router-abcde", "--timeout", "100ms").code == 4


def test_scale_and_cordon(server: SmallServer, grovectl: Grovectl) -> None:
    """Scale sets the size in the user's name; cordon names what changed and what was so already."""
    fill(server)
    assert (
        grovectl("scale", "pcsg", "chat-0-decode", "--replicas", "3").out
        == "podcliquescalinggroup/chat-0-decode scaled\n"
    )
    assert server.stored["PodCliqueScalingGroup", "default", "chat-0-decode"].spec.replicas == 3
    assert server.calls[-1][1].requested_by == "user"
    assert grovectl("cordon", "node-3").out == "node/node-3 cordoned\n"
    assert grovectl("cordon", "no/node-3").out == "node/node-3 already cordoned\n"
    assert "Ready,SchedulingDisabled" in grovectl("get", "no").out
    assert grovectl("uncordon", "node-3").out == "node/node-3 uncordoned\n"
    assert grovectl("cordon", "node-3", "node-4").code == 3
    assert not server.stored["Node", "", "node-3"].spec.unschedulable


def test_drain_waits_until_nodes_are_empty(server: SmallServer, grovectl: Grovectl) -> None:
    """Drain asks, says how many pods are left, and gives up with exit code 4 while the drain goes on."""
    fill(server)
    server.answers["/grove.v1.NodeService/Drain"] = NodeServiceDrainResponse(changed=["node-3"], pods_left=0)
    assert grovectl("drain", "node-3").out == "node/node-3 draining\nnode/node-3 drained\n"
    server.answers["/grove.v1.NodeService/Drain"] = NodeServiceDrainResponse(pods_left=2)
    late = grovectl("drain", "node-3", "--timeout", "10ms")
    assert (late.code, late.out) == (4, "node/node-3 already draining\n")
    assert late.err == "error: timed out with 2 pods left; the drain goes on\n"
    assert grovectl("drain", "node-3", "--no-wait").code == 0


def test_node_down_and_up(server: SmallServer, grovectl: Grovectl) -> None:
    """Nodes go down and come back by name; what was so already says so, and a missing one is exit code 3."""
    fill(server)
    assert grovectl("node", "down", "node-3").out == "node/node-3 down\n"
    assert grovectl("node", "down", "no/node-3").out == "node/node-3 already down\n"
    grovectl("cordon", "node-3")
    assert "NotReady,SchedulingDisabled" in grovectl("get", "no").out
    assert grovectl("node", "up", "node-3").out == "node/node-3 up\n"
    assert grovectl("node", "up", "node-3").out == "node/node-3 already up\n"
    assert grovectl("node", "down", "node-3", "node-4").code == 3


def test_wait_for_condition(server: SmallServer, grovectl: Grovectl) -> None:
    """A wait ends when the watch tells that the condition came true."""
    fill(server)

    def change(small: SmallServer) -> None:
        small.put({**CLIQUE, "status": {"conditions": [{"type": "PodCliqueScheduled", "status": "True"}]}})

    server.on_watch = change
    result = grovectl("wait", "pclq", "chat-0-router", "--for=condition=PodCliqueScheduled", "--timeout=10s")
    assert result == (0, "podclique/chat-0-router condition met\n", "")


def test_wait_for_the_rest(server: SmallServer, grovectl: Grovectl) -> None:
    """jsonpath, create and delete are waited for; time over is 4, a missing name 3."""
    fill(server)
    assert grovectl("wait", "pcs/chat", "--for=jsonpath={.status.phase}=Running").code == 0
    assert grovectl("wait", "po", "--all", "--for=jsonpath={.spec.containers[?(@.name=='main')].name}=main").code == 0
    timed_out = grovectl("wait", "pcs/chat", "--for=condition=Ready", "--timeout=100ms")
    assert timed_out == (4, "", "error: timed out waiting for podcliqueset/chat\n")
    assert grovectl("wait", "pcs/none", "--for=condition=Ready").code == 3
    assert grovectl("wait", "pcs/none", "--for=delete").code == 0
    server.on_watch = lambda small: small.remove("PodCliqueSet", "default", "chat")
    assert grovectl("wait", "pcs/chat", "--for=delete", "--timeout=10s").out == "podcliqueset/chat condition met\n"
    server.on_watch = lambda small: small.put(SET)
    assert grovectl("wait", "pcs/chat", "--for=create", "--timeout=10s").out == "podcliqueset/chat condition met\n"


def test_watch_prints_changes(server: SmallServer, grovectl: Grovectl) -> None:
    """-w prints what is there, then each change, until the server refuses or the user interrupts."""
    fill(server)
    server.watch_end = Refusal(grpc.StatusCode.PERMISSION_DENIED, "no longer")

    def change(small: SmallServer) -> None:
        small.put({**SET, "status": {"availableReplicas": 0}})
        small.put({**SET, "metadata": meta("other")})

    server.on_watch = change
    result = grovectl("get", "pcs", "chat", "-w", "--no-headers")
    assert [row[:3] for row in table(result.out)] == [["chat", "1", "1"], ["chat", "1", "0"]]
    assert (result.code, result.err) == (1, "error: no longer\n")
    assert grovectl("get", "pcs", "none", "-w") == (3, "", "error: PodCliqueSet default/none not found\n")
    rows = table(grovectl("get", "pclq", "-w", "--no-headers").out)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    objects = grovectl("get", "pcs", "chat", "-w", "-o", "jsonpath={.status.availableReplicas};").out
    assert objects == "0;0;"
    assert grovectl("events", "-w", "--no-headers").out.count("PodCreateSuccessful") == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param("pclq", "it goes with its podcliqueset", id="clique"),
        pytest.param("ev", "events go by themselves", id="event"),
    ],
)
def test_delete_says_why_not(kind: str, words: str, grovectl: Grovectl) -> None:
    """A kind that is not deleted by name says what it goes with."""
    code, _, err = grovectl("delete", kind, "x")
    assert code == 2
    assert words in err
