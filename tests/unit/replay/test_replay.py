"""Files of a cluster in, placement out: good files, odd ones, and the program itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from grove_server.placement.results import Placement, Verdict, VerdictCode
from grove_server.replay.__main__ import EXIT_INPUT, EXIT_MISFIT, EXIT_OK, main
from grove_server.replay.objects import Findings, ReplayError, read_objects
from grove_server.replay.replaying import Replay, replay

ZONE, RACK, GPU = "topology.kubernetes.io/zone", "topology.grove.io/rack", "nvidia.com/gpu"

Json = dict[str, Any]


def node(name: str, *, rack: str | None = "r0", **more: Any) -> Json:  # noqa: ANN401 -- fields of a manifest
    """Return a node of 4 GPUs as kubectl prints it."""
    labels = {"kubernetes.io/hostname": name, ZONE: "z0", **({RACK: rack} if rack else {})}
    status = {
        "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "20", GPU: "4", **more.get("allocatable", {})},
        "conditions": [{"type": "Ready", "status": more.get("ready", "True")}],
    }
    spec = {key: more[key] for key in ("taints", "unschedulable") if key in more}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": status,
    }


def pod(name: str, on: str = "", *, gpu_count: object = 0, phase: str = "Running", **more: Any) -> Json:  # noqa: ANN401 -- as above
    """Return a pod as kubectl prints it."""
    requests = {"cpu": "100m", **({GPU: str(gpu_count)} if gpu_count else {})}
    spec: Json = {
        "containers": [{"name": "c", "resources": {"requests": requests}}],
        "priority": more.get("priority", 0),
    }
    if on:
        spec["nodeName"] = on
    metadata = {"name": name, "namespace": "default", "annotations": more.get("annotations", {})}
    metadata |= {"labels": more.get("labels", {}), "ownerReferences": more.get("owners", [])}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**spec, **more.get("spec", {})},
        "status": {"phase": phase},
    }


def a_set(
    name: str = "s", pods: int = 2, gpu_count: int = 2, level: str = "", priority: str = "", copies: int = 1
) -> str:
    """Return the manifest of a set with one clique."""
    constraint = f"    topologyConstraint: {{topologyName: t, pack: {{required: {level}}}}}\n" if level else ""
    return f"""apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: {name}}}
spec:
  replicas: {copies}
  template:
{constraint}{f"    priorityClassName: {priority}" if priority else ""}
    cliques:
    - name: c
      spec:
        replicas: {pods}
        podSpec:
          containers:
          - name: c
            image: i
            resources: {{requests: {{{GPU}: {gpu_count}}}, limits: {{{GPU}: {gpu_count}}}}}
"""


class Files:
    """The files of one replay, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def objects(self, *items: object, name: str = "cluster.json") -> Path:
        """Write a v1 List."""
        path = self.folder / name
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
        return path

    def manifest(self, text: str, name: str = "m.yaml") -> Path:
        """Write manifests."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, cluster: Path, *manifests: Path) -> Replay:
        """Replay."""
        findings = Findings()
        return replay(read_objects([cluster], findings), manifests, [], "default", findings)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a folder for files."""
    return Files(tmp_path)


def test_a_gang_goes_where_pods_leave_room(files: Files) -> None:
    """Running pods hold their GPUs; ended ones and those without a node hold nothing."""
    cluster = files.objects(
        node("n0"),
        node("n1"),
        pod("a", "n0", gpu_count=3),
        pod("b", "n1", gpu_count=4, phase="Succeeded"),
        pod("c", gpu_count=4),
    )
    found = files.run(cluster, files.manifest(a_set()))
    (answer,) = found.answers
    outcome = answer.parts[0].outcome
    assert isinstance(outcome, Placement)
    assert {binding.node for clique in outcome.cliques for binding in clique.bindings} == {"n1"}
    assert (found.pods.running, found.pods.pending, found.pods.over) == (1, 1, 1)
    assert found.before.fragmentation.allocated_milli == 3_000
    assert found.after is not None
    assert found.after.fragmentation.allocated_milli == 7_000
    assert not found.findings.counts


def test_a_share_of_a_gpu_is_taken_from_the_annotation(files: Files) -> None:
    """A fraction leaves the rest of its GPU to others, and ids are kept where they are told."""
    annotations = {"grove.io/gpu-fraction": "0.5", "grove.io/gpu-ids": "3"}
    cluster = files.objects(
        node("n0"),
        pod("a", "n0", annotations=annotations),
        pod("b", "n0", annotations={"grove.io/gpu-fraction": "0.5"}),
    )
    found = files.run(cluster, files.manifest(a_set(pods=1, gpu_count=3)))
    outcome = found.answers[0].parts[0].outcome
    assert isinstance(outcome, Placement)
    assert outcome.cliques[0].bindings[0].gpu_ids == (0, 1, 2)


def test_running_pods_keep_others_away(files: Files) -> None:
    """A running pod's anti-affinity closes its node to pods it names, and its labels count for the set's own rules."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
    spec = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    text = a_set(pods=1, gpu_count=1).replace(
        "    - name: c\n      spec:", "    - name: c\n      labels: {app: x}\n      spec:"
    )
    cluster = files.objects(node("n0"), node("n1"), pod("a", "n0", gpu_count=3, spec=spec))
    (answer,) = files.run(cluster, files.manifest(text)).answers
    outcome = answer.parts[0].outcome
    assert isinstance(outcome, Placement)
    assert outcome.cliques[0].bindings[0].node == "n1"
    (alone,) = files.run(
        files.objects(node("n0"), pod("a", "n0", spec=spec), name="one.json"), files.manifest(text)
    ).answers
    assert not alone.fits


def test_labels_tell_the_topology(files: Files) -> None:
    """Without a binding the known labels make the levels, and stand for the one that a set names."""
    cluster = files.objects(*(node(f"n{i}", rack=f"r{i // 2}") for i in range(4)), pod("a", "n0", gpu_count=1))
    found = files.run(cluster, files.manifest(a_set(pods=2, gpu_count=4, level="rack")))
    assert [(level.domain, level.key) for level in found.levels] == [
        ("zone", ZONE),
        ("rack", RACK),
        ("host", "kubernetes.io/hostname"),
    ]
    outcome = found.answers[0].parts[0].outcome
    assert isinstance(outcome, Placement)
    assert [(choice.level, choice.value) for choice in outcome.domains] == [(RACK, "r1")]


def test_labels_that_cross_are_no_topology(files: Files) -> None:
    """Racks that lie in several zones each are said and left out."""
    items = [node(f"n{i}", rack=f"r{i % 2}") for i in range(8)]
    for number, item in enumerate(items):
        item["metadata"]["labels"][ZONE] = f"z{number // 2}"
    found = files.run(files.objects(*items))
    assert [level.domain for level in found.levels] == ["zone", "host"]
    assert any("cross" in what for what in found.findings.counts)


def test_no_topology_label_at_all_still_places(files: Files) -> None:
    """A cluster whose nodes carry no topology has hosts alone, and unconstrained gangs fit."""
    items = [node("n0", rack=None)]
    del items[0]["metadata"]["labels"]
    found = files.run(files.objects(*items), files.manifest(a_set()))
    assert [level.domain for level in found.levels] == ["host"]
    assert found.fits


def test_a_label_missing_on_some_nodes_is_said(files: Files) -> None:
    """Nodes without the label of a level are named."""
    found = files.run(files.objects(node("n0"), node("n1"), node("n2", rack=None)))
    assert [texts for what, texts in found.findings.kept.items() if RACK in what] == [["n2"]]


def test_tainted_cordoned_and_down_nodes_take_nothing(files: Files) -> None:
    """Conditions, cordons and taints of the files count, each under its name."""
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    cluster = files.objects(
        node("n0", taints=[taint]),
        node("n1", unschedulable=True),
        node("n2", ready="False"),
        node("n3", ready="Unknown"),
    )
    outcome = files.run(cluster, files.manifest(a_set())).answers[0].parts[0].outcome
    assert isinstance(outcome, Verdict)
    assert outcome.code is VerdictCode.NO_NODE_MATCHES
    assert {str(each.kind): each.node_count for each in outcome.exclusions} == {
        "NotReady": 2,
        "Cordoned": 1,
        "Taint": 1,
    }


def test_whom_a_gang_would_displace_is_said(files: Files) -> None:
    """A gang of a class evicts pods of lower priority, never those of DaemonSets."""
    cluster = files.objects(
        node("n0"),
        node("n1"),
        pod("low", "n0", gpu_count=4),
        pod("daemon", "n1", gpu_count=4, owners=[{"kind": "DaemonSet", "name": "d"}]),
    )
    class_ = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\n---\n"
    found = files.run(cluster, files.manifest(class_ + a_set(pods=1, gpu_count=4, priority="high", copies=2)))
    first, second = found.answers
    assert first.eviction is not None
    assert first.eviction.pods == ("default/low",)
    assert not first.fits
    assert second.eviction is None


def test_pods_of_the_set_are_taken_away_first(files: Files) -> None:
    """A set that runs is placed anew, as if its pods were not there."""
    labels = {"app.kubernetes.io/part-of": "s", "grove.io/podgang": "s-0"}
    cluster = files.objects(node("n0"), pod("s-0-c-0", "n0", gpu_count=4, labels=labels))
    found = files.run(cluster, files.manifest(a_set(pods=1, gpu_count=4)))
    assert found.fits
    assert any("placed anew" in what for what in found.findings.counts)


ODD = {
    "runs on a node that is not there": pod("a", "nowhere", gpu_count=1),
    "wants more GPUs than the node has": pod("a", "n0", gpu_count=9),
    "has a malformed quantity": pod("a", "n0", gpu_count="four"),
    "has containers that are a text": pod("a", "n0", spec={"containers": "none"}),
    "has no metadata": {"kind": "Pod", "spec": {"nodeName": "n0"}},
    "has a fraction that is none": pod("a", "n0", annotations={"grove.io/gpu-fraction": "2"}),
    "says it has GPUs that nobody has": pod("a", "n0", gpu_count=1, annotations={"grove.io/gpu-ids": "5000"}),
    "is a text": "pod",
    "is of another kind": {"kind": "Service"},
    "uses more cpu than there is": pod("a", "n0", spec={"containers": [{"resources": {"requests": {"cpu": "99"}}}]}),
}


@pytest.mark.parametrize("item", ODD.values(), ids=ODD.keys())
def test_an_odd_pod_is_said_and_hides_nothing(files: Files, item: object) -> None:
    """Whatever a pod is, it is told and the rest is placed."""
    found = files.run(files.objects(node("n0"), node("n1"), item), files.manifest(a_set()))
    assert sum(found.findings.counts.values()) == 1
    assert found.fits


def test_a_node_that_holds_too_much_is_full(files: Files) -> None:
    """Pods over a node's GPUs keep what there is, and nobody else gets any of it."""
    cluster = files.objects(node("n0"), pod("a", "n0", gpu_count=3), pod("b", "n0", gpu_count=3))
    found = files.run(cluster, files.manifest(a_set(pods=1, gpu_count=1)))
    assert not found.fits
    assert found.before.fragmentation.allocated_milli == 4_000


@pytest.mark.parametrize("gpus", ["many", "-4", "1.5", "9999999"])
def test_a_node_that_lies_about_its_gpus_never_gains_by_it(files: Files, gpus: str) -> None:
    """A quantity that is none, negative, broken or beyond reason is said, and the node gives no GPUs."""
    found = files.run(files.objects(node("n0", allocatable={GPU: gpus}), node("n1")), files.manifest(a_set()))
    assert sum(found.findings.counts.values()) == 1
    assert found.before.fragmentation.gpu_milli == 4_000


def test_a_file_of_no_nodes_is_refused(files: Files) -> None:
    """Pods alone are no cluster."""
    with pytest.raises(ReplayError, match="no node"):
        files.run(files.objects(pod("a", "n0")))


def test_wrong_manifests_are_said_with_their_paths(files: Files) -> None:
    """Everything that is wrong is told at once, and nothing is placed."""
    text = a_set().replace("replicas: 2", "replicas: -1") + "---\nkind: Deployment\napiVersion: apps/v1\n"
    with pytest.raises(ReplayError) as caught:
        files.run(files.objects(node("n0")), files.manifest(text))
    assert "document 2" in str(caught.value)
    assert "replicas" in str(caught.value)


def test_the_program_writes_what_it_found(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Report, picture, JSON and SVG come of one run; the exit code says whether all fits."""
    cluster = str(files.objects(node("n0"), node("n1"), pod("a", "n0", gpu_count=3)))
    out, svg = files.folder / "o.json", files.folder / "o.svg"
    arguments = ["--nodes", cluster, "--pods", cluster, "--json", str(out), "--svg", str(svg)]
    assert main([*arguments, "-f", str(files.manifest(a_set()))]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "default/s-0: fits" in printed
    assert "7 of 8 GPUs used; 2 nodes: 1 partly used, 1 full" in printed
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["gangs"][0]["pods"][0]["node"] == "n1"
    assert written["after"]["gpuAllocationRatio"] == 7 / 8
    assert ET.parse(svg).getroot() is not None  # noqa: S314 -- our own text
    assert main([*arguments, "-f", str(files.manifest(a_set(pods=3, gpu_count=4)))]) == EXIT_MISFIT
    assert "does not fit: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.json", None, "No such file"),
        ("text.json", "nodes:", "is not JSON"),
        ("list.json", '{"items": 3}', "items must be a list"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_usage_error(
    files: Files, capsys: pytest.CaptureFixture[str], name: str, content: str | None, told: str
) -> None:
    """One line on stderr, exit code 2, nothing on stdout."""
    path = files.folder / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["--nodes", str(path)]) == EXIT_INPUT
    printed = capsys.readouterr()
    assert told in printed.err
    assert not printed.out


def test_a_reader_that_has_enough_is_no_fault(files: Files) -> None:
    """Output into a pipe that nobody reads any more ends quietly, with the exit code of what was found."""
    cluster = str(files.objects(node("n0"), node("n1")))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "grove_server.replay", "--nodes", cluster]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (EXIT_OK, "")
