"""Two of Grove's cases once more through grovectl, as a user would: GS2 and TAS8, with exit codes, columns and JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.conformance.scene import WORKLOADS
from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until_blocking

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"

Grovectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def grovectl(server: ServerProcess) -> Grovectl:
    """Run the program against the module's server."""

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "grovectl", "--server", server.address, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stderr}"
        return done

    return run


def objects(grovectl: Grovectl, *query: str) -> list[dict[str, Any]]:
    """Return the items of a query as Kubernetes objects."""
    document = json.loads(grovectl("get", *query, "-o", "json").stdout)
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    items: list[dict[str, Any]] = document["items"]
    return items


def rows(grovectl: Grovectl, *query: str) -> list[dict[str, str]]:
    """Return the table of a query: cells by title. A cell stands under its title, and may be blank."""
    head, *lines = grovectl("get", *query).stdout.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    ends = [*starts[1:], None]
    return [
        {head[start:end].strip(): line[start:end].strip() for start, end in zip(starts, ends, strict=True)}
        for line in lines
    ]


def condition(pod: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition of an object; empty if it has none of that type."""
    found: list[dict[str, Any]] = [c for c in pod["status"].get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def counts(grovectl: Grovectl) -> tuple[int, int, int]:
    """Return the numbers of pods, of ready and of unschedulable ones."""
    pods = objects(grovectl, "po")
    ready = [pod for pod in pods if condition(pod, "Ready").get("status") == "True"]
    pending = [pod for pod in pods if condition(pod, "PodScheduled").get("reason") == "Unschedulable"]
    return len(pods), len(ready), len(pending)


def reaches(grovectl: Grovectl, wanted: tuple[int, int, int]) -> None:
    """Wait for these numbers; grovectl looks as often as it can start."""
    until_blocking(lambda: counts(grovectl) == wanted, f"(pods, ready, pending) {wanted}")


def test_gs2_by_hand(grovectl: Grovectl) -> None:
    """Cordon, apply, uncordon, scale, explain, delete: each step prints what it did and ends with 0."""
    nodes = [f"worker-{number}" for number in range(28)]
    grovectl("cordon", *nodes[9:])
    applied = grovectl("apply", "-f", str(WORKLOADS / "workload1.yaml"))
    assert applied.stdout == "podcliqueset/workload1 created\n"
    reaches(grovectl, (10, 0, 10))
    assert [row["PHASE"] for row in rows(grovectl, "pg")] == ["Pending"]
    assert "Unschedulable" in grovectl("events").stdout
    explained = grovectl("explain", "pg", "workload1-0").stdout
    assert "10" in explained
    assert "memory" in explained
    grovectl("uncordon", nodes[9])
    reaches(grovectl, (10, 10, 0))
    grovectl("scale", "pcsg", "workload1-0-sg-x", "--replicas", "3")
    reaches(grovectl, (14, 10, 4))
    assert {row["NAME"]: row["PHASE"] for row in rows(grovectl, "pg")} == {
        "workload1-0": "Running",
        "workload1-0-sg-x-0": "Pending",
    }
    grovectl("uncordon", *nodes[10:14])
    reaches(grovectl, (14, 14, 0))
    pods = objects(grovectl, "po")
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 14
    assert {row["NAME"]: row["READY"] for row in rows(grovectl, "pclq")}["workload1-0-sg-x-2-pc-c"] == "3"
    (group,) = rows(grovectl, "pcsg")
    assert (group["MINAVAIL"], group["REPLICAS"], group["AVAILABLE"], group["SCHEDULED"]) == ("2", "3", "3", "3")
    (owner,) = rows(grovectl, "pcs")
    assert (owner["REPLICAS"], owner["AVAILABLE"]) == ("1", "1")
    again = grovectl("apply", "-f", str(WORKLOADS / "workload1.yaml"))
    assert again.stdout == "podcliqueset/workload1 unchanged\n"
    grovectl("delete", "pcs", "workload1")
    reaches(grovectl, (0, 0, 0))
    grovectl("get", "pcs", "workload1", status=3)
    grovectl("uncordon", *nodes)


def test_tas8_by_hand(grovectl: Grovectl) -> None:
    """The domains that the labels of the nodes show are those that the gang and the tree name."""
    grovectl("apply", "-f", str(WORKLOADS / "tas8.yaml"))
    reaches(grovectl, (8, 8, 0))
    labels = {node["metadata"]["name"]: node["metadata"]["labels"] for node in objects(grovectl, "no")}
    pods = objects(grovectl, "po")
    by_clique: dict[str, set[str]] = {}
    for pod in pods:
        by_clique.setdefault(pod["metadata"]["labels"]["grove.io/podclique"], set()).add(pod["spec"]["nodeName"])
    assert len(by_clique) == 4
    assert all(len(names) == 1 for names in by_clique.values())
    for replica in range(2):
        hosts = [names for clique, names in by_clique.items() if f"-inference-{replica}-" in clique]
        assert len({labels[name]["kubernetes.io/rack"] for names in hosts for name in names}) == 1
    (block,) = {labels[pod["spec"]["nodeName"]]["kubernetes.io/block"] for pod in pods}
    (gang,) = rows(grovectl, "pg", "-o", "wide")
    assert gang["PHASE"] == "Running"
    assert f"block={block}" in gang["TOPOLOGY"]
    tree = grovectl("tree", "pcs", "tas8").stdout
    assert all(pod["metadata"]["name"] in tree for pod in pods)
    assert all(next(iter(names)) in tree for names in by_clique.values())
    explained = grovectl("explain", "pg", "tas8-0").stdout
    assert block in explained
    grovectl("delete", "-f", str(WORKLOADS / "tas8.yaml"))
    reaches(grovectl, (0, 0, 0))


def test_what_goes_wrong_ends_with_its_own_status(grovectl: Grovectl) -> None:
    """Usage 2, not found 3, refused 1, each with one line on stderr."""
    usage = grovectl("get", "nonsense", status=2)
    missing = grovectl("get", "pcs", "nobody", status=3)
    refused = grovectl("scale", "pcsg", "nobody", "--replicas", "1", status=3)
    for done in (usage, missing, refused):
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not done.stdout
