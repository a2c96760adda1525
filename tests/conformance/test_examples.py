"""Every example is applied to a server with the default cluster and is what its table and Grove's rules say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from grove.v1.pod_pb2 import Pod
from grove_client import to_object
from grovectl.__main__ import main
from tests.conformance.observation import Observation, clique_of
from tests.conformance.scene import Scene
from tests.server import ServerProcess
from tests.unit.examples.test_examples import EXAMPLES, TABLE

CLUSTER: Final = None
WAITING: Final = "too-big.yaml"


def manifest(name: str) -> dict[str, Any]:
    """Return the one document of an example."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))
    return document


class Expansion:
    """What a manifest of one copy expands into, told from the manifest alone by Grove's rules for names and labels."""

    def __init__(self, document: dict[str, Any], namespace: str) -> None:
        self.set_name: str = document["metadata"]["name"]
        self._namespace = namespace
        template = document["spec"]["template"]
        self._specs = {clique["name"]: clique["spec"] for clique in template["cliques"]}
        self._groups = template.get("podCliqueScalingGroups", [])
        members = {name for group in self._groups for name in group["cliqueNames"]}
        self.copies = range(document["spec"]["replicas"])
        self._standalone = [name for name in self._specs if name not in members]

    def cliques(self) -> dict[str, tuple[str, dict[str, str], dict[str, str]]]:
        """Return template name, labels and environment of each PodClique by its name."""
        found = {}
        for copy in self.copies:
            base = f"{self.set_name}-{copy}"
            labels = {
                "app.kubernetes.io/managed-by": "grove-operator",
                "app.kubernetes.io/part-of": self.set_name,
                "grove.io/podcliqueset-replica-index": str(copy),
                "grove.io/podgang": base,
            }
            service = f"{base}.{self._namespace}.svc.cluster.local"
            of_copy = {
                "GROVE_PCS_NAME": self.set_name,
                "GROVE_PCS_INDEX": str(copy),
                "GROVE_HEADLESS_SERVICE": service,
            }
            for name in self._standalone:
                full = f"{base}-{name}"
                found[full] = (name, labels, {**of_copy, "GROVE_PCLQ_NAME": full})
            for group, replica in self._group_replicas():
                full_group = f"{base}-{group['name']}"
                scaled = replica - group.get("minAvailable", 1)
                of_replica = {
                    **labels,
                    "grove.io/podcliquescalinggroup": full_group,
                    "grove.io/podcliquescalinggroup-replica-index": str(replica),
                }
                if scaled >= 0:
                    of_replica |= {"grove.io/podgang": f"{full_group}-{scaled}", "grove.io/base-podgang": base}
                total = sum(self._specs[name]["replicas"] for name in group["cliqueNames"])
                for name in group["cliqueNames"]:
                    full = f"{full_group}-{replica}-{name}"
                    environment = {
                        **of_copy,
                        "GROVE_PCLQ_NAME": full,
                        "GROVE_PCSG_NAME": full_group,
                        "GROVE_PCSG_INDEX": str(replica),
                        "GROVE_PCSG_TEMPLATE_NUM_PODS": str(total),
                    }
                    found[full] = (name, of_replica, environment)
        return found

    def _group_replicas(self) -> list[tuple[dict[str, Any], int]]:
        return [(group, replica) for group in self._groups for replica in range(group.get("replicas", 1))]


def check_pod(pod: Pod, index: int, labels: dict[str, str], environment: dict[str, str], base: str) -> None:
    """Check name, host name, labels and GROVE_* variables of one pod."""
    clique = clique_of(pod)
    assert re.fullmatch(rf"{clique}-[a-z0-9]{{5}}", pod.metadata.name)
    assert labels.items() <= dict(pod.metadata.labels).items()
    assert pod.metadata.labels["grove.io/podclique-pod-index"] == str(index)
    spec: dict[str, Any] = to_object(pod)["spec"]  # type: ignore[assignment]  # a PodSpec is an object
    assert (spec["hostname"], spec["subdomain"]) == (f"{clique}-{index}", base)
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        variables = {entry["name"]: entry for entry in container["env"]}
        assert environment.items() <= {name: entry.get("value") for name, entry in variables.items()}.items()
        path = variables["GROVE_PCLQ_POD_INDEX"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.labels['grove.io/podclique-pod-index']"
        assert ("GROVE_PCSG_NAME" in variables) == ("GROVE_PCSG_NAME" in environment)
        # They stand in front, so that variables of the template may use them.
        names = list(variables)
        assert all(name.startswith("GROVE_") for name in itertools.islice(names, len(environment)))


def check_expansion(seen: Observation, expansion: Expansion) -> None:
    """Check names, labels and environments of everything in the namespace."""
    cliques = expansion.cliques()
    assert set(seen.cliques) == set(cliques)
    for name, (_, labels, environment) in cliques.items():
        clique = seen.cliques[name]
        assert labels.items() <= dict(clique.metadata.labels).items()
        pods = sorted(
            (pod for pod in seen.active if clique_of(pod) == name),
            key=lambda pod: int(pod.metadata.labels["grove.io/podclique-pod-index"]),
        )
        assert len(pods) == clique.spec.replicas
        base = f"{expansion.set_name}-{labels['grove.io/podcliqueset-replica-index']}"
        for index, pod in enumerate(pods):
            check_pod(pod, index, labels, environment, base)


@pytest.mark.parametrize("name", sorted(TABLE))
async def test_an_example_runs(scene: Scene, name: str) -> None:
    """The stated gangs and pods are there and ready (or wait, where the table says so), by their right names."""
    gangs, pods, _ = TABLE[name]
    document = manifest(name)
    await scene.apply_text((EXAMPLES / name).read_text(encoding="utf-8"))
    seen = await scene.settles(pods=pods, ready=0 if name == WAITING else pods)
    assert len(seen.gangs) == gangs
    assert len(seen.sets) == 1
    check_expansion(seen, Expansion(document, scene.namespace))
    (owner,) = seen.sets.values()
    assert owner.status.available_replicas == (0 if name == WAITING else owner.spec.replicas)
    if name == WAITING:
        await scene.gang_event("too-big-0", "Unschedulable")
    await scene.delete_sets()
    await scene.is_empty()


def test_grovectl_shows_every_example(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Applied all at once, every example is shown by get, tree, describe and explain; deleted, nothing is left."""
    files = sorted(EXAMPLES / name for name in TABLE)
    flags = [argument for file in files for argument in ("-f", str(file))]

    def grovectl(*arguments: str) -> str:
        status = main(["--server", server.address, *arguments])
        printed = capsys.readouterr()
        assert status == 0, f"{arguments}: {printed.err}"
        return printed.out

    applied = grovectl("apply", *flags)
    assert len(applied.splitlines()) == len(files)
    names = [manifest(str(Path(file).relative_to(EXAMPLES)))["metadata"]["name"] for file in files]
    for name in names:
        if name != "too-big":
            grovectl("wait", f"pcs/{name}", "--for=condition=Available", "--timeout=30s")
    table = grovectl("get", "pcs,pclq,pcsg,pg,po", "-o", "wide")
    for name in names:
        assert f"podcliqueset.grove.io/{name} " in table
        assert f"{name}-0" in grovectl("tree", "pcs", name)
        assert name in grovectl("describe", "pcs", name)
        assert f"{name}-0" in grovectl("explain", "pg", f"{name}-0")
    assert "rack" in grovectl("explain", "pg", "too-big-0")
    grovectl("delete", *flags)
    for name in names:
        grovectl("wait", f"pcs/{name}", "--for=delete", "--timeout=30s")
    assert grovectl("get", "pcs,pclq,pcsg,pg,po", "-o", "name") == ""
