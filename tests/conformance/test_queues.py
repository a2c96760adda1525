"""Queues and priority classes through grovectl, as a user would: apply, get, describe, delete, with exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.server import ServerProcess
from tests.waiting import until_blocking

Grovectl = Callable[..., subprocess.CompletedProcess[str]]

MANIFESTS: Final = """
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: chat, annotations: {kai.scheduler/queue: search}}
spec:
  replicas: 1
  template:
    priorityClassName: high
    cliques: [{name: a, spec: {roleName: a, replicas: 1, podSpec: {containers: [{name: c, image: i}]}}}]
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: search}
spec: {parent: products, guarantee: {nvidia.com/gpu: 8}, limit: {nvidia.com/gpu: 16, cpu: 64}}
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: products}
spec: {guarantee: {nvidia.com/gpu: 8}, blocking: Strict}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
preemptionPolicy: Never
"""


@pytest.fixture
def grovectl(server: ServerProcess) -> Grovectl:
    """Run the program against the module's server."""

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "grovectl", "--server", server.address, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stderr}"
        return done

    return run


def rows(grovectl: Grovectl, *query: str) -> list[list[str]]:
    """Return the cells of a table without its age."""
    return [line.split()[:-1] for line in grovectl("get", *query).stdout.splitlines()]


def test_what_is_built_in_is_shown(grovectl: Grovectl) -> None:
    """The system's classes and the default queue are there from the start, and stay."""
    assert rows(grovectl, "pc") == [
        ["NAME", "VALUE", "GLOBAL-DEFAULT", "PREEMPTION"],
        ["system-cluster-critical", "2000000000", "false", "PreemptLowerPriority"],
        ["system-node-critical", "2000001000", "false", "PreemptLowerPriority"],
    ]
    assert rows(grovectl, "q") == [
        ["NAME", "PARENT", "GUARANTEE", "LIMIT", "USED", "PENDING"],
        ["default", "<none>", "<none>", "<none>", "<none>", "0"],
    ]
    assert "built in" in grovectl("delete", "q", "default", status=1).stderr
    assert "built in" in grovectl("delete", "priorityclass", "system-node-critical", status=1).stderr


def test_a_life_of_queues_and_classes(grovectl: Grovectl, tmp_path: Path) -> None:
    """Applied in any order, shown, described, printed as a manifest that changes nothing, refused in use, deleted."""
    file = tmp_path / "queues.yaml"
    file.write_text(MANIFESTS)
    assert "created (server dry run)" in grovectl("apply", "-f", str(file), "--dry-run=server").stdout
    assert grovectl("apply", "-f", str(file)).stdout.splitlines() == [
        "podcliqueset/chat created",
        "queue/search created",
        "queue/products created",
        "priorityclass/high created",
    ]
    shown = ["search", "products", "nvidia.com/gpu=8", "cpu=64,nvidia.com/gpu=16"]
    assert rows(grovectl, "queues", "search")[1][:4] == shown
    assert rows(grovectl, "priorityclasses.scheduling.k8s.io", "high")[1] == ["high", "1000", "false", "Never"]
    printed = grovectl("get", "q,pc", "-o", "json").stdout
    names = {(each["kind"], each["metadata"]["name"]) for each in json.loads(printed)["items"]}
    assert {("Queue", "products"), ("PriorityClass", "high")} <= names
    # What is printed names its version, and is a conflict once the queue's status has moved on.
    until_blocking(
        lambda: json.loads(grovectl("get", "q", "search", "-o", "json").stdout)["status"].get("runningGangCount") == 1,
        "the gang is counted",
    )
    file.write_text(grovectl("get", "q", "search", "-o", "yaml").stdout)
    assert grovectl("apply", "-f", str(file)).stdout == "queue/search unchanged\n"
    assert "Strict" in grovectl("describe", "q", "products").stdout
    gang = json.loads(grovectl("get", "pg", "chat-0", "-o", "json").stdout)
    assert (gang["spec"]["priority"], gang["spec"]["preemptionPolicy"]) == (1000, "Never")
    assert "is in use by Queue search" in grovectl("delete", "q", "products", status=1).stderr
    assert "default/chat" in grovectl("delete", "q", "search", status=1).stderr
    file.write_text(MANIFESTS)
    assert "queue/search deleted" in grovectl("delete", "-f", str(file)).stdout.replace('"', "")
    assert [row[0] for row in rows(grovectl, "q")] == ["NAME", "default"]


def test_a_priority_of_2_to_the_31_is_refused_with_its_path(grovectl: Grovectl, tmp_path: Path) -> None:
    """One line on stderr says which field, and nothing is stored."""
    file = tmp_path / "class.yaml"
    file.write_text(MANIFESTS[MANIFESTS.rindex("---") :].replace("1000", str(2**31)))
    refused = grovectl("apply", "-f", str(file), status=1)
    assert "document[1].value: must be between -2147483648 and 1000000000, got 2147483648" in refused.stderr
    assert "high" not in grovectl("get", "pc").stdout
