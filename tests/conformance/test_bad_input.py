"""What people get wrong, end to end: each mistake is refused with a code, a stable reason, the field's path and words.

One case of each kind; the rooms' own tests have the rest. Nothing wrong is ever stored.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml

from grove_client import (
    AlreadyExistsError,
    ConflictError,
    GroveError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from grovectl.__main__ import main
from tests.conformance.scene import Scene
from tests.server import ServerProcess

FINE: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: fine}
spec:
  replicas: 1
  template:
    cliques:
      - name: a
        spec:
          roleName: a
          replicas: 2
          podSpec: {containers: [{name: main, image: pause, resources: {requests: {cpu: 1m}}}]}
      - name: b
        spec:
          roleName: b
          replicas: 1
          podSpec: {containers: [{name: main, image: pause}]}
"""
TEMPLATE: Final = ("spec", "template")
A: Final = (*TEMPLATE, "cliques", 0)
B: Final = (*TEMPLATE, "cliques", 1)
REQUESTS: Final = (*A, "spec", "podSpec", "containers", 0, "resources", "requests")
BOMB: Final = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
)

FieldPath = tuple[str | int, ...]


def changed(*changes: tuple[FieldPath, object]) -> str:
    """Return the fine manifest with values put at paths."""
    document = copy.deepcopy(yaml.safe_load(FINE))
    for path, value in changes:
        at: Any = document
        for step in path[:-1]:
            at = at.setdefault(step, {}) if isinstance(at, dict) else at[int(step)]
        at[path[-1]] = value
    return yaml.safe_dump(document)


def packed(level: str, topology: str = "grove-topology") -> dict[str, object]:
    """Return a constraint that requires one level."""
    return {"topologyName": topology, "pack": {"required": level}}


MISTAKES: Final = {
    "unknown-field": (
        changed(((*A, "spec", "replicaz"), 1)),
        "spec.template.cliques[0].spec.replicaz",
        "is not a known field",
    ),
    "wrong-type": (
        changed(((*A, "spec", "replicas"), "two")),
        "spec.template.cliques[0].spec.replicas",
        'must be a whole number, got "two"',
    ),
    "cycle": (
        changed(
            ((*TEMPLATE, "cliqueStartupType"), "CliqueStartupTypeExplicit"),
            ((*A, "spec", "startsAfter"), ["b"]),
            ((*B, "spec", "startsAfter"), ["a"]),
        ),
        "spec.template.cliques[0].spec.startsAfter",
        "a -> b -> a",
    ),
    "duplicate-name": (changed(((*B, "name"), "a")), "spec.template.cliques[1].name", '"a" is listed more than once'),
    "minimum-above-size": (
        changed(((*A, "spec", "minAvailable"), 5)),
        "spec.template.cliques[0].spec.minAvailable",
        "must be at most replicas (2), got 5",
    ),
    "unknown-domain": (
        changed(((*TEMPLATE, "topologyConstraint"), packed("galaxy"))),
        "spec.template.topologyConstraint.pack.required",
        '(zone, block, rack, host), got "galaxy"',
    ),
    "unknown-topology": (
        changed(((*TEMPLATE, "topologyConstraint"), packed("rack", "nowhere"))),
        "spec.template.topologyConstraint.topologyName",
        'there is no ClusterTopologyBinding "nowhere"',
    ),
    "parent-narrower-than-child": (
        changed(((*TEMPLATE, "topologyConstraint"), packed("host")), ((*A, "topologyConstraint"), packed("rack"))),
        "spec.template.cliques[0].topologyConstraint.pack.required",
        'is broader than "host", which spec.template.topologyConstraint requires',
    ),
    "negative-quantity": (
        changed(((*REQUESTS, "cpu"), "-1")),
        "spec.template.cliques[0].spec.podSpec.containers[0].resources.requests[cpu]",
        "must not be negative",
    ),
    "absurd-quantity": (
        changed(((*REQUESTS, "memory"), "99999999999999999999Ei")),
        "spec.template.cliques[0].spec.podSpec.containers[0].resources.requests[memory]",
        "must not be larger than",
    ),
    "negative-replicas": (changed((("spec", "replicas"), -1)), "spec.replicas", "must be between 0 and"),
    "too-many-pods": (
        changed((("spec", "replicas"), 10_000)),
        "spec.replicas",
        "makes 30000 pods (10000 copies of 3), more than the 20000 a set may have",
    ),
    "long-name": (changed((("metadata", "name"), "x" * 64)), "metadata.name", "at most 63 characters, has 64"),
    "long-clique-name": (
        changed(((*A, "name"), "x" * 64)),
        "spec.template.cliques[0].name",
        "at most 63 characters, has 64",
    ),
    "bomb": (BOMB, "", "with every alias written out"),
    "depth": ("a: " + "[" * 5000 + "]" * 5000, "", "must not be nested deeper than"),
    "not-yaml": ("a:\n\t- b", "", "line 2: must be valid YAML"),
    "made-by-the-server": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}",
        "kind",
        "Pods are made by their PodCliqueSet",
    ),
}


async def stored(scene: Scene) -> list[str]:
    """Return the names of the sets in the test's namespace."""
    return [item.metadata.name async for item in scene.grove.pod_clique_sets.list(namespace=scene.namespace)]


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_in_a_manifest_is_refused(scene: Scene, mistake: str) -> None:
    """The refusal names the field and says what would be right; nothing is stored."""
    manifest, path, words = MISTAKES[mistake]
    with pytest.raises(InvalidArgumentError) as caught:
        await scene.apply_text(manifest)
    refusal = caught.value
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "INVALID_MANIFEST"
    where = f"document[1].{path}" if path else "document[1]"
    found = {violation.path: violation.description for violation in reversed(refusal.violations)}
    assert words in found[where]
    assert where in refusal.message
    assert await stored(scene) == []


async def test_one_wrong_document_refuses_all_and_all_wrong_ones_are_named(scene: Scene) -> None:
    """Of three documents two are wrong: both are reported with their numbers, and the right one is not applied."""
    wrong = changed((("metadata", "name"), "wrong"), ((*A, "spec", "minAvailable"), 5))
    unknown = changed((("metadata", "name"), "unknown"), ((*B, "spec", "nonsense"), 1))
    with pytest.raises(InvalidArgumentError) as caught:
        await scene.apply_text(f"{wrong}---\n{FINE}---\n{unknown}")
    assert [violation.path for violation in caught.value.violations] == [
        "document[1].spec.template.cliques[0].spec.minAvailable",
        "document[3].spec.template.cliques[1].spec.nonsense",
    ]
    assert await stored(scene) == []


def test_grovectl_prints_every_mistake_on_a_line(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two wrong documents in a file: exit code 1, both named on stderr, nothing on stdout."""
    file = tmp_path / "two.yaml"
    wrong = changed((("metadata", "name"), "wrong"), ((*A, "spec", "minAvailable"), 5))
    unknown = changed((("metadata", "name"), "unknown"), ((*B, "spec", "nonsense"), 1))
    file.write_text(f"{wrong}---\n{unknown}", encoding="utf-8")
    assert main(["--server", server.address, "apply", "-f", str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "spec.template.cliques[0].spec.minAvailable" in printed.err
    assert "spec.template.cliques[1].spec.nonsense" in printed.err
    assert "Traceback" not in printed.err


async def test_a_manifest_of_5_mib_is_refused(scene: Scene) -> None:
    """The limit and what to do about it are named."""
    with pytest.raises(ResourceExhaustedError) as caught:
        await scene.apply_text(f"# {'x' * (5 << 20)}\n{FINE}")
    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert "the limit is 4 MiB" in caught.value.message
    assert await stored(scene) == []


async def test_a_stale_version_is_refused(scene: Scene) -> None:
    """An update of what changed since it was read is refused with the current version, and changes nothing."""
    sets = scene.grove.pod_clique_sets
    await scene.apply_text(FINE)
    read = await sets.get("fine", namespace=scene.namespace)
    await scene.scale_set("fine", 0)
    read.metadata.annotations["of"] = "the late"
    with pytest.raises(ConflictError) as caught:
        await sets.update(read)
    assert caught.value.reason == "VERSION_CONFLICT"
    current = caught.value.metadata["current_resource_version"]
    now = await sets.get("fine", namespace=scene.namespace)
    assert int(read.metadata.resource_version) < int(current) <= int(now.metadata.resource_version)
    assert "of" not in now.metadata.annotations
    with pytest.raises(AlreadyExistsError) as exists:
        await sets.create(read)
    assert exists.value.reason == "ALREADY_EXISTS"


def test_grovectl_ends_with_5_on_a_stale_version(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that names an old version is refused as a conflict."""
    file = tmp_path / "set.yaml"
    file.write_text(changed((("metadata", "namespace"), "stale")), encoding="utf-8")
    grovectl = ["--server", server.address]
    assert main([*grovectl, "apply", "-f", str(file)]) == 0
    file.write_text(
        changed((("metadata", "namespace"), "stale"), (("metadata", "resourceVersion"), "1")), encoding="utf-8"
    )
    assert main([*grovectl, "apply", "-f", str(file)]) == 5
    assert "resource version" in capsys.readouterr().err
    assert main([*grovectl, "-n", "stale", "delete", "pcs", "fine"]) == 0


@pytest.mark.parametrize("replicas", [-1, 2**31 - 1])
async def test_a_size_out_of_bounds_is_refused(scene: Scene, replicas: int) -> None:
    """Scaling below zero or beyond the pods that a set may have is refused, and the size stays."""
    await scene.apply_text(FINE)
    with pytest.raises(InvalidArgumentError) as caught:
        await scene.scale_set("fine", replicas)
    assert [violation.path for violation in caught.value.violations] == ["replicas"]
    assert (await scene.grove.pod_clique_sets.get("fine", namespace=scene.namespace)).spec.replicas == 1


async def test_a_size_below_the_minimum_is_refused(scene: Scene) -> None:
    """A clique of minimum two cannot have one pod, but none."""
    await scene.apply_text(FINE)
    await scene.settles(pods=3, ready=3)
    with pytest.raises(InvalidArgumentError) as caught:
        await scene.scale_clique("fine-0-a", 1)
    assert [violation.path for violation in caught.value.violations] == ["replicas"]
    await scene.scale_clique("fine-0-a", 0)
    await scene.settles(pods=1, ready=1)


@pytest.mark.parametrize(("token", "reason"), [("nonsense", "INVALID_RESUME_TOKEN"), ("AAAA", "INVALID_RESUME_TOKEN")])
async def test_a_damaged_token_is_refused(scene: Scene, token: str, reason: str) -> None:
    """A watch from a token that no server gave out ends with a reason at once."""
    with pytest.raises(InvalidArgumentError) as caught:
        await anext(scene.grove.pods.watch(namespace=scene.namespace, resume_token=token))
    assert caught.value.reason == reason


async def test_what_does_not_exist_is_named(scene: Scene) -> None:
    """Get, scale, delete and explain of a missing resource say which one."""
    namespace = scene.namespace
    calls = (
        scene.grove.pod_clique_sets.get("nobody", namespace=namespace),
        scene.scale_group("nobody", 1),
        scene.grove.pod_clique_sets.delete(["nobody"], namespace=namespace),
        scene.grove.pod_gangs.explain("nobody", namespace=namespace),
    )
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            await call
        assert f"{namespace}/nobody not found" in caught.value.message


async def test_deleting_several_is_all_or_nothing(scene: Scene) -> None:
    """One name that is missing keeps the others."""
    await scene.apply_text(FINE)
    with pytest.raises(GroveError) as caught:
        await scene.grove.pod_clique_sets.delete(["fine", "nobody"], namespace=scene.namespace)
    assert caught.value.reason == "NOT_FOUND"
    assert await stored(scene) == ["fine"]
