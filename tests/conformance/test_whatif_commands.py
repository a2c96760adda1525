"""What-ifs as a user asks them: map, simulate, defrag and the replay of a server's own objects, on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until_blocking

Run = Callable[..., str]

SETS = ("single-gpu", "disaggregated", "chatbot")
ASKED = ("agentic-pipeline", "multi-node-model", "too-big", "disaggregated")


@pytest.fixture
def grovectl(server: ServerProcess) -> Run:
    """Run the program against the module's server."""

    def run(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "grovectl", "--server", server.address, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def running(grovectl: Run) -> Iterator[Run]:
    """Let some of the examples run."""
    files = [argument for name in SETS for argument in ("-f", str(example(name)))]
    grovectl("apply", *files)

    def all_run() -> bool:
        gangs = json.loads(grovectl("get", "pg", "-o", "json"))["items"]
        return bool(gangs) and all(gang["status"].get("phase") == "Running" for gang in gangs)

    until_blocking(all_run, "all gangs run", within_s=30)
    yield grovectl
    grovectl("delete", *files)
    until_blocking(
        lambda: not json.loads(grovectl("get", "po", "-o", "json"))["items"], "all pods are gone", within_s=30
    )


def example(name: str) -> Path:
    """Return the path of an example."""
    return ROOT / "examples" / f"{name}.yaml"


def versions(grovectl: Run) -> str:
    """Return where everything is, in which version."""
    path = "{range .items[*]}{.metadata.name}={.metadata.resourceVersion} {.spec.nodeName}{'\\n'}{end}"
    return grovectl("get", "no,po,pg,pclq", "-o", f"jsonpath={path}")


def test_replay_says_what_the_server_says(running: Run, tmp_path: Path) -> None:
    """Replayed from `get no,po -A -o json`, every gang gets the server's own verdict and places."""
    cluster, bindings = tmp_path / "cluster.json", tmp_path / "bindings.json"
    cluster.write_text(running("get", "no,po", "-A", "-o", "json"), encoding="utf-8")
    bindings.write_text(running("get", "ct", "-o", "json"), encoding="utf-8")
    for name in ASKED:
        simulated = json.loads(running("simulate", "-f", str(example(name)), "-o", "json"))
        command = [sys.executable, "-m", "grove_server.replay", "--nodes", str(cluster), "--topology", str(bindings)]
        command += ["-f", str(example(name)), "--json", str(tmp_path / "out.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == (0 if simulated.get("fits") else 1), done.stderr
        replayed = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert [of_replay(gang) for gang in replayed["gangs"]] == [of_server(gang) for gang in simulated["gangs"]]
        assert replayed["findings"] == [] or name in SETS


def of_server(gang: dict[str, Any]) -> tuple[object, ...]:
    """Return name, reason, sentence and places of a gang as the server tells them."""
    told = gang["explanation"]
    places = [(each["clique"], each["node"]) for each in told.get("assignments", []) for _ in range(each["podCount"])]
    return gang["name"], gang.get("fits", False), told.get("reason", ""), sorted(places)


def of_replay(gang: dict[str, Any]) -> tuple[object, ...]:
    """Return the same as the replay tells it."""
    places = [(each["clique"], each["node"]) for each in gang.get("pods", [])]
    return gang["name"], gang["fits"], gang.get("reason", ""), sorted(places)


def test_the_map_is_drawn_and_says_what_is_used(running: Run) -> None:
    """The text has a mark per node and its figures; the SVG is a document of its own."""
    text = running("map")
    assert "of 512 GPUs used; 64 nodes:" in text
    assert "rack-0 " in text
    assert "largest gangs of such pods that fit into one domain:" in text
    svg = ET.fromstring(running("map", "-o", "svg"))  # noqa: S314 -- our own server's text
    assert svg.tag.endswith("svg")
    assert json.loads(running("map", "-o", "json"))["figures"]["nodeCount"] == 64


def test_what_ifs_change_nothing(running: Run) -> None:
    """Draining, adding, removing and defragmenting in thought leave every object as it was."""
    before = versions(running)
    pods = json.loads(running("get", "po", "-o", "json"))["items"]
    node = pods[0]["spec"]["nodeName"]
    out = running("simulate", "--drain", node, "--without", "pcs/single-gpu")
    assert "pods would lose their nodes." in out
    assert "(displaced)" in out
    assert "nothing was changed." in out
    pool = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
    added = running("simulate", "-f", str(example("chatbot")), "--add-nodes", str(pool))
    assert "gangs would be placed now" in added
    plan = running("defrag")
    assert plan.startswith(("benefit: ", "nothing to gain: "))
    assert versions(running) == before


def test_what_cannot_be_asked_ends_with_its_own_status(running: Run) -> None:
    """Nothing to ask and contradictions are usage errors; what does not exist is not found."""
    running("simulate", status=2)
    running("simulate", "--drain", "nowhere", status=3)
    running("defrag", "--for", "pg/nobody-0", status=3)
    running("defrag", "--for", "pg/nobody-0", "--level", "rack", status=2)
    running("map", "--topology", "nobody", status=3)
    running("map", "-o", "wide", status=2)


def test_a_placed_gang_is_explained_on_one_screen(running: Run) -> None:
    """Score, reasons and the domains that lost are there, in few lines."""
    names = [gang["metadata"]["name"] for gang in json.loads(running("get", "pg", "-o", "json"))["items"]]
    for name in names:
        out = running("explain", "pg", name)
        assert len(out.splitlines()) <= 40
        assert "score" in out
        words = [line.strip().removeprefix("why here").strip() for line in out.splitlines() if line.strip()]
        assert len(words) == len(set(words)), "nothing is said twice"
