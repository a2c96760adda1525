"""The examples are what their table says: admitted without a warning, of the stated number of gangs, pods and GPUs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml

from grove_server.admission.admit import admit_pod_clique_set
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted
from grove_server.admission.scaling_policy import admit_scaling_policy, read_scaling_policy
from grove_server.resources.manifest import PodCliqueSetTemplate
from grove_server.resources.schema import parse_pod_clique_set
from grove_server.resources.workload import PodCliqueSet
from grove_server.runtime.cluster_file import default_cluster_text, parse_cluster

ROOT: Final = Path(__file__).parents[3]
EXAMPLES: Final = ROOT / "examples"
WORKLOADS: Final = ROOT / "tests" / "conformance" / "workloads"
# A policy belongs to the set of the file beside it.
POLICIES: Final = sorted(EXAMPLES.rglob("*-policy.yaml"))
CLUSTERS: Final = {
    EXAMPLES / "clusters" / "one-pod-per-node.yaml": 28,
    EXAMPLES / "clusters" / "10k-nodes.yaml": 10_240,
    ROOT / "tests" / "conformance" / "clusters" / "two-fabrics.yaml": 28,
}
# | [file](file) | words | gangs | pods[, pending] | [GPUs] |
ROW: Final = re.compile(
    r"^\| \[([^]]+\.yaml)\]\(\1\) \| [^|]* \| (\d+) \| (\d+)(?:, pending)? \|(?: (\d+) \|)?$", re.MULTILINE
)
TABLE: Final = {
    name: (int(gangs), int(pods), int(gpus) if gpus else None)
    for name, gangs, pods, gpus in ROW.findall((EXAMPLES / "README.md").read_text())
}
# The pods of one copy of each conformance workload (reference: the end-to-end tests of Grove).
WORKLOAD_PODS: Final = {
    "workload1": 10,
    "workload1-gt": 10,
    "workload2": 10,
    "workload2-gt": 10,
    "workload3": 10,
    "workload4": 10,
    "workload5": 10,
    "tas2": 7,
    "tas3": 4,
    "tas4": 4,
    "tas5": 2,
    "tas6": 4,
    "tas7": 4,
    "tas8": 8,
    "tas13": 10,
    "tas17-h100": 2,
    "tas17-gb200": 2,
}


def levels_of(cluster_text: str) -> dict[str, tuple[str, ...]]:
    """Return the domains of each topology binding of a cluster file."""
    return {
        binding.metadata.name: tuple(level.domain for level in binding.spec.levels)
        for binding in parse_cluster(cluster_text).bindings
    }


def admit(path: Path, cluster_text: str) -> Admitted[PodCliqueSet]:
    """Admit the one document of a file on a cluster."""
    document = yaml.safe_load(path.read_text())
    context = AdmissionContext(now=1.0, uid="uid", bindings=levels_of(cluster_text))
    return admit_pod_clique_set(parse_pod_clique_set(orjson.dumps(document)), None, context)


def gang_count(admitted: PodCliqueSet) -> int:
    """Return the number of gangs: a base gang per copy and one for each group replica above the minimum."""
    groups = admitted.spec.template.pod_clique_scaling_groups
    scaled = sum(max(0, (group.replicas or 0) - (group.min_available or 0)) for group in groups)
    return (admitted.spec.replicas or 0) * (1 + scaled)


def clique_sizes(template: PodCliqueSetTemplate) -> dict[str, int]:
    """Return the number of pods of each clique in one copy, over all replicas of its group."""
    sizes = {}
    for clique in template.cliques:
        group = template.group_of(clique.name)
        sizes[clique.name] = (clique.spec.replicas or 0) * (1 if group is None else group.replicas or 0)
    return sizes


def gpu_count(pod_spec: Any) -> int:  # noqa: ANN401 -- a Kubernetes PodSpec
    """Return the GPUs that one pod asks for."""
    return sum(
        int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", "0"))
        for container in pod_spec["containers"]
    )


def test_the_table_names_every_example() -> None:
    """No file is missing from the table, and no row lacks its file."""
    files = {path for path in EXAMPLES.rglob("*.yaml") if path.parent.name != "clusters"} - set(POLICIES)
    assert set(TABLE) == {str(path.relative_to(EXAMPLES)) for path in files}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_an_example_is_what_the_table_says(name: str) -> None:
    """The set is admitted on the default cluster without a warning and has the stated gangs, pods and GPUs."""
    admitted = admit(EXAMPLES / name, default_cluster_text())
    assert admitted.warnings == ()
    gangs, pods, gpus = TABLE[name]
    sizes = clique_sizes(admitted.resource.spec.template)
    assert (gang_count(admitted.resource), sum(sizes.values())) == (gangs, pods)
    if gpus is not None:
        template = admitted.resource.spec.template
        assert sum(sizes[clique.name] * gpu_count(clique.spec.pod_spec) for clique in template.cliques) == gpus


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_fits_its_set(path: Path) -> None:
    """A policy is admitted beside its set without a warning, and only recommends."""
    owner = admit(path.with_name(path.name.replace("-policy", "")), default_cluster_text()).resource
    sets = {f"{owner.metadata.namespace}/{owner.metadata.name}": owner.spec}
    context = AdmissionContext(now=1.0, uid="uid", sets=sets)
    read = read_scaling_policy(orjson.dumps(yaml.safe_load(path.read_text())), context)
    admitted = admit_scaling_policy(read, None, context)
    assert admitted.warnings == ()
    assert admitted.resource.spec.mode == "recommend"


@pytest.mark.parametrize("name", sorted(WORKLOAD_PODS))
def test_a_conformance_workload_has_its_pods(name: str) -> None:
    """The set is admitted without a warning on the cluster it is made for, under its file's name."""
    cluster = (
        "tests/conformance/clusters/two-fabrics.yaml" if "tas17" in name else "examples/clusters/one-pod-per-node.yaml"
    )
    admitted = admit(WORKLOADS / f"{name}.yaml", (ROOT / cluster).read_text())
    assert admitted.warnings == ()
    assert admitted.resource.metadata.name == name
    assert sum(clique_sizes(admitted.resource.spec.template).values()) == WORKLOAD_PODS[name]


def test_every_workload_is_counted() -> None:
    """No conformance workload is left out above."""
    assert {path.stem for path in WORKLOADS.glob("*.yaml")} == set(WORKLOAD_PODS)


@pytest.mark.parametrize("path", sorted(CLUSTERS), ids=lambda path: path.stem)
def test_a_cluster_file_has_its_nodes(path: Path) -> None:
    """Each cluster file is read; its bindings name labels that its nodes have."""
    cluster = parse_cluster(path.read_text())
    assert len(cluster.nodes) == CLUSTERS[path]
    labels = {key for node in cluster.nodes for key in node.metadata.labels}
    assert all(level.key in labels for binding in cluster.bindings for level in binding.spec.levels)
