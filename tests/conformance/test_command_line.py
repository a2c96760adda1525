"""Every verb and form of output of grovectl on a real server, as somebody used to kubectl would try them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import yaml

from grovectl.__main__ import main
from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until_blocking

EXAMPLES: Final = ROOT / "examples"
CHATBOT: Final = str(EXAMPLES / "chatbot.yaml")
TOO_BIG: Final = str(EXAMPLES / "too-big.yaml")
# What a pod can look like that does not serve: crashing, running but not ready, being created.
TROUBLED: Final = """
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: troubled}
spec:
  replicas: 1
  template:
    cliques:
    - name: crash
      annotations: {fake.grove.io/crash-after: 1ms}
      spec: {roleName: crash, replicas: 1, podSpec: {containers: [{name: main, image: i}]}}
    - name: slow
      annotations: {fake.grove.io/ready-delay: 1h}
      spec: {roleName: slow, replicas: 1, podSpec: {containers: [{name: main, image: i}]}}
    - name: late
      annotations: {fake.grove.io/start-delay: 1h}
      spec: {roleName: late, replicas: 1, podSpec: {containers: [{name: main, image: i}]}}
"""


class Outcome(NamedTuple):
    """What a run of the program left behind."""

    code: int
    out: str
    err: str


class Grovectl:
    """Runs the program in this process, each test in a namespace of its own."""

    def __init__(self, address: str, namespace: str, capture: pytest.CaptureFixture[str]) -> None:
        self.connection = ["--server", address, "--namespace", namespace]
        self.namespace = namespace
        self._capture = capture

    def run(self, *arguments: str) -> Outcome:
        """Run `grovectl ARGUMENTS`."""
        self._capture.readouterr()
        code = main([*self.connection, *arguments])
        out, err = self._capture.readouterr()
        return Outcome(code, out, err)

    def __call__(self, *arguments: str) -> str:
        """Run it, expect success and silence on stderr, and return what it printed."""
        code, out, err = self.run(*arguments)
        assert (code, err) == (0, ""), f"{arguments}: {code} {err}"
        return out

    def table(self, *arguments: str) -> list[dict[str, str]]:
        """Return the rows of a table: cells by title, each starting under its title."""
        head, *lines = self(*arguments).splitlines()
        titles = head.split()
        starts = [head.index(f" {title}") + 1 if index else 0 for index, title in enumerate(titles)]
        bounds = list(zip(starts, [*starts[1:], None], strict=True))
        return [
            {title: line[start:end].strip() for title, (start, end) in zip(titles, bounds, strict=True)}
            for line in lines
        ]

    def column(self, title: str, *arguments: str) -> list[str]:
        """Return one column of a table."""
        return [row[title] for row in self.table(*arguments)]


@pytest.fixture
def grovectl(
    request: pytest.FixtureRequest, server: ServerProcess, capfd: pytest.CaptureFixture[str]
) -> Iterator[Grovectl]:
    """Return the program for a namespace of the test's own; its sets are deleted afterwards."""
    namespace = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:40].rstrip("-")
    program = Grovectl(server.address, namespace, capfd)
    yield program
    assert program.run("delete", "pcs", "--all").code == 0


def test_a_dry_run_says_what_apply_does(grovectl: Grovectl) -> None:
    """--dry-run=server changes nothing; apply creates; a directory is all its manifests; again is unchanged."""
    name = "podcliqueset/chatbot"
    assert grovectl("apply", "-f", CHATBOT, "--dry-run=server") == f"{name} created (server dry run)\n"
    assert grovectl.run("get", "pcs") == (0, "", f"No resources found in {grovectl.namespace} namespace.\n")
    assert grovectl("apply", "-f", CHATBOT) == f"{name} created\n"
    assert grovectl("apply", "-f", CHATBOT) == f"{name} unchanged\n"
    everything = grovectl("apply", "-f", str(EXAMPLES), "--dry-run=server").splitlines()
    assert len(everything) == len(list(EXAMPLES.glob("*.yaml")))
    assert f"{name} unchanged (server dry run)" in everything
    assert grovectl("delete", "-f", CHATBOT) == f"{name} deleted\n"
    assert grovectl("get", "pcs,po,pg", "-o", "name") == ""


def test_forms_of_output(grovectl: Grovectl) -> None:
    """Name, JSON, YAML and jsonpath are Kubernetes-shaped; whole numbers are whole; lists are v1 Lists."""
    grovectl("apply", "-f", CHATBOT)
    grovectl("wait", "pcs/chatbot", "--for=condition=Available")
    assert grovectl("get", "pcs", "-o", "name") == "podcliqueset.grove.io/chatbot\n"
    one = json.loads(grovectl("get", "pcs", "chatbot", "-o", "json"))
    assert (one["apiVersion"], one["kind"]) == ("grove.io/v1alpha1", "PodCliqueSet")
    assert one == yaml.safe_load(grovectl("get", "pcs/chatbot", "-o", "yaml"))
    containers = one["spec"]["template"]["cliques"][0]["spec"]["podSpec"]["containers"]
    assert repr(containers[0]["ports"][0]["containerPort"]) == "8000"
    listed = json.loads(grovectl("get", "pcs", "-o", "json"))
    assert (listed["apiVersion"], listed["kind"], listed["items"]) == ("v1", "List", [one])
    assert json.loads(grovectl("get", "ct", "-l", "no=such", "-o", "json"))["items"] == []
    template = '{range .items[?(@.metadata.name=="chatbot")]}{.kind}{"\\t"}{.status.phase}{"\\n"}{end}'
    assert grovectl("get", "pcs", "-o", f"jsonpath={template}") == "PodCliqueSet\tRunning\n"


def test_tables(grovectl: Grovectl) -> None:
    """Columns, several kinds at once, sorting, selectors and namespaces work as with kubectl."""
    grovectl("apply", "-f", CHATBOT)
    grovectl("wait", "pcs/chatbot", "--for=condition=Available")
    grovectl("wait", "po", "--all", "--for=condition=Ready")
    (row,) = grovectl.table("get", "pcs")
    assert [*row][0::8] == ["NAME", "AGE"]
    assert (row["REPLICAS"], row["AVAILABLE"], row["UPDATED"], row["PCLQS-UPDATED"]) == ("1", "1", "1", "")
    assert grovectl("get", "all") == grovectl("get", "pcs,pclq,pcsg,pg,po")
    blocks = grovectl("get", "all", "--no-headers").split("\n\n")
    assert [block.split("/")[0] for block in blocks] == [
        "podcliqueset.grove.io",
        "podclique.grove.io",
        "podgang.scheduler.grove.io",
        "pod",
    ]
    nodes = grovectl.column("NODE", "get", "po", "-o", "wide", "--sort-by", ".spec.nodeName")
    assert nodes == sorted(nodes)
    assert len(nodes) == 9
    assert len(grovectl.table("get", "po", "-l", "grove.io/podclique=chatbot-0-decode")) == 4
    assert {row["NAMESPACE"] for row in grovectl.table("get", "po", "-A")} >= {grovectl.namespace}
    assert set(grovectl.column("STATUS", "get", "no")) == {"Ready"}


def test_pending_is_explained(grovectl: Grovectl) -> None:
    """A set that does not fit is Pending everywhere, with its reason in wide tables, events, describe and explain."""
    grovectl("apply", "-f", TOO_BIG)
    until_blocking(lambda: grovectl.run("get", "pg/too-big-0").code == 0, "the gang exists")
    grovectl("wait", "pg/too-big-0", "--for=jsonpath={.status.reason}=DomainTooSmall")
    pods = grovectl.table("get", "po", "-o", "wide")
    assert {(row["READY"], row["STATUS"], row["NODE"], row["REASON"]) for row in pods} == {
        ("0/1", "Pending", "<none>", "Unschedulable")
    }
    (gang,) = grovectl.table("get", "pg", "-o", "wide")
    assert (gang["PHASE"], gang["REASON"]) == ("Pending", "DomainTooSmall")
    assert grovectl.column("PHASE", "get", "pcs", "-o", "wide") == ["Pending"]
    sentence = "needs 6 pods in one rack"
    events = ("events", "--for", "pg/too-big-0", "--types", "Warning")
    until_blocking(lambda: sentence in grovectl.run(*events).out, "the event is told")
    assert sentence in grovectl("describe", "pg", "too-big-0")
    explained = grovectl("explain", "pg/too-big-0")
    assert sentence in explained
    assert "rack (required): 0 of 16 fit" in explained
    assert "whole cluster: fits" in explained
    assert "proven impossible" in explained
    assert explained == grovectl("explain", "pcs", "too-big")
    assert json.loads(grovectl("explain", "pg", "too-big-0", "-o", "json"))["explanation"]["reason"] == "DomainTooSmall"
    tree = grovectl.table("tree", "pcs", "too-big")
    assert [row["STATUS"] for row in tree] == ["Pending", "Pending:DomainTooSmall", *["Pending"] * 7]


def test_simulate_changes_nothing(grovectl: Grovectl) -> None:
    """Simulate says what would fit and where, and leaves no trace."""
    before = grovectl("get", "po,pcs", "-A", "-o", "name")
    assert "1 of 1 gangs would be placed now; nothing was changed." in grovectl("simulate", "-f", CHATBOT)
    assert "0 of 1 gangs would be placed now; nothing was changed." in grovectl("simulate", "-f", TOO_BIG)
    answer = json.loads(grovectl("simulate", "-f", CHATBOT, "-f", TOO_BIG, "-o", "json"))
    assert [(gang["name"], gang["fits"]) for gang in answer["gangs"]] == [("chatbot-0", True), ("too-big-0", False)]
    assert grovectl("get", "po,pcs", "-A", "-o", "name") == before


def test_status_of_pods_and_their_parts(grovectl: Grovectl, tmp_path: Path) -> None:
    """STATUS names the trouble as kubectl does; the tree shows it from the pod up to the set."""
    manifest = tmp_path / "troubled.yaml"
    manifest.write_text(TROUBLED, encoding="utf-8")
    grovectl("apply", "-f", str(manifest))
    grovectl("wait", "pcs/troubled", "--for=jsonpath={.status.phase}=Starting")
    waiting = "{.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff"
    grovectl("wait", "po", "-l", "grove.io/podclique=troubled-0-crash", f"--for=jsonpath={waiting}")
    pods = grovectl.table("get", "po")
    assert {row["NAME"].rsplit("-", 1)[0]: (row["READY"], row["STATUS"]) for row in pods} == {
        "troubled-0-crash": ("0/1", "CrashLoopBackOff"),
        "troubled-0-slow": ("0/1", "Running"),
        "troubled-0-late": ("0/1", "ContainerCreating"),
    }

    def states() -> dict[str, str]:
        return {row["NAME"].rpartition(" ")[2]: row["STATUS"] for row in grovectl.table("tree", "pcs", "troubled")}

    # The status of the clique follows its pods, a moment later.
    until_blocking(lambda: states()["podclique/troubled-0-crash"] == "NotReady", "the clique tells of its pods")
    assert states()["podcliqueset/troubled"] == "Starting"
    until_blocking(lambda: "ContainersExited" in grovectl.run("events").out, "the event is told")


def test_a_node_goes_down_and_comes_back(grovectl: Grovectl) -> None:
    """Its pods are not ready and say why, without being restarted when it is back; nothing new is placed there."""
    grovectl("apply", "-f", CHATBOT)
    grovectl("wait", "pcs/chatbot", "--for=condition=Available")
    grovectl("wait", "po", "--all", "--for=condition=Ready")
    nodes = sorted({row["NODE"] for row in grovectl.table("get", "po", "-o", "wide")})
    before = grovectl("get", "po", "-o", "name")
    assert grovectl("node", "down", *nodes) == "".join(f"node/{name} down\n" for name in nodes)
    grovectl("wait", "po", "--all", "--for=condition=Ready=False")
    assert {row["STATUS"] for row in grovectl.table("get", "po")} == {"NodeNotReady"}
    grovectl("wait", "pcs/chatbot", "--for=condition=Available=False")
    grovectl("cordon", nodes[0])
    assert grovectl.column("STATUS", "get", "no", *nodes) == ["NotReady,SchedulingDisabled"] + ["NotReady"] * (
        len(nodes) - 1
    )
    assert grovectl("node", "down", nodes[0]) == f"node/{nodes[0]} already down\n"
    missing = grovectl.run("node", "up", nodes[0], "nowhere")
    assert (missing.code, missing.err) == (3, "error: Node nowhere not found\n")
    grovectl("node", "up", *nodes)
    grovectl("uncordon", nodes[0])
    grovectl("wait", "pcs/chatbot", "--for=condition=Available")
    grovectl("wait", "po", "--all", "--for=condition=Ready")
    assert grovectl("get", "po", "-o", "name") == before
    assert set(grovectl.column("RESTARTS", "get", "po")) == {"0"}
    assert set(grovectl.column("STATUS", "get", "no")) == {"Ready"}


def test_waiting(grovectl: Grovectl) -> None:
    """Wait ends with 0 when it came true, 4 when time is over, 3 when there is nothing to wait for."""
    grovectl("apply", "-f", CHATBOT, "-f", TOO_BIG)
    assert grovectl("wait", "--for=condition=Available", "pcs/chatbot") == "podcliqueset/chatbot condition met\n"
    late = grovectl.run("wait", "--for=condition=Available", "pcs/too-big", "--timeout=100ms")
    assert late == (4, "", "error: timed out waiting for podcliqueset/too-big\n")
    assert grovectl.run("wait", "--for=jsonpath={.status.phase}=Running", "pcs/too-big", "--timeout=0.1s").code == 4
    assert grovectl.run("wait", "--for=delete", "pcs/too-big", "--timeout=0.1s").code == 4
    assert grovectl.run("wait", "--for=condition=Available", "pcs/nobody").code == 3
    assert grovectl("delete", "pcs", "too-big", "--no-wait") == "podcliqueset/too-big deleted\n"
    grovectl("wait", "--for=delete", "pcs/too-big", "pg/too-big-0")
    assert grovectl.run("get", "pcs", "too-big").code == 3


def test_scaling_at_three_levels(grovectl: Grovectl) -> None:
    """Sets, groups and cliques take a size; what has none says what has."""
    grovectl("apply", "-f", str(EXAMPLES / "disaggregated.yaml"))
    grovectl("wait", "pcs/disaggregated", "--for=condition=Available")
    assert grovectl("scale", "pclq", "disaggregated-0-router", "--replicas", "3").endswith("router scaled\n")
    assert grovectl("scale", "pcsg/disaggregated-0-decode", "--replicas=2").endswith("decode scaled\n")
    grovectl("wait", "pclq/disaggregated-0-router", "--for=jsonpath={.status.readyReplicas}=3")
    grovectl("wait", "pcsg/disaggregated-0-decode", "--for=jsonpath={.status.availableReplicas}=2")
    grovectl("scale", "pcs", "disaggregated", "--replicas", "2")
    grovectl("wait", "pcsg/disaggregated-1-prefill", "--for=create")
    assert [row["NAME"] for row in grovectl.table("tree", "pcs", "disaggregated") if "copy" in row["NAME"]] == [
        "├── copy 0",
        "└── copy 1",
    ]
    assert grovectl.run("scale", "pg", "disaggregated-0", "--replicas", "1").code == 2


def test_version_names_both_sides(grovectl: Grovectl) -> None:
    """The program tells its version and the server's, with what the server stands on."""
    client, server = grovectl("version").splitlines()
    assert client.startswith("client ")
    assert server.endswith("(store sqlite, runtime fake)")


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Path]]]:
    """Return how to start a grovectl that goes on until interrupted, with its output in a file."""
    started: list[subprocess.Popen[bytes]] = []

    def follow(*arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        output = tmp_path / f"output-{len(started)}"
        with output.open("wb") as file:
            # A shell without job control starts what runs in its background with SIGINT ignored, and that is inherited.
            unignored = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            command = [
                sys.executable,
                "-c",
                unignored + "runpy.run_module('grovectl', run_name='__main__')",
                *arguments,
            ]
            started.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
        return started[-1], output

    yield follow
    for process in started:
        process.kill()
        process.wait()


def test_a_watch_goes_on_through_a_restart(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    following: Callable[..., tuple[subprocess.Popen[bytes], Path]],
) -> None:
    """Rows go on after the server came back, none is printed twice, and Ctrl-C ends it without a word."""
    with ServerProcess(tmp_path / "data", listen=f"unix:{tmp_path}/s") as server:
        grovectl = Grovectl(server.address, "default", capfd)
        grovectl("apply", "-f", CHATBOT)
        grovectl("wait", "pcs/chatbot", "--for=condition=Available")
        process, output = following(*grovectl.connection, "get", "pclq", "chatbot-0-router", "-w")
        until_blocking(lambda: "chatbot" in output.read_text("utf-8"), "the present state is shown")
        server.stop()
        server.start()
        grovectl("scale", "pclq", "chatbot-0-router", "--replicas", "3")

        def replicas() -> list[tuple[str, str]]:
            rows = [line.split() for line in output.read_text("utf-8").splitlines()[1:]]
            return [(row[2], row[3]) for row in rows]

        until_blocking(lambda: ("3", "3") in replicas(), "the scaled clique is shown")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        seen = replicas()
        assert seen[0] == ("2", "2")
        assert seen.count(("2", "2")) == 1
        assert output.read_text("utf-8").count("NAME") == 1
