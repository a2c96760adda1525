"""Grove's topology cases TAS2 to TAS8, 13, 20, 21 and 22: where pods land, told from the labels of their nodes.

`settles` checks the gang's own word for it as well: each domain that its status names is the one its pods are in.
TAS20 has the outcome that this project chose: a gang whose topology is gone waits, rather than running unpacked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from grove.v1.cluster_topology_binding_pb2 import ClusterTopologyBinding
from grove.v1.pod_pb2 import Pod
from grove_client import GroveClient, InvalidArgumentError
from tests.conformance.observation import Observation, clique_of, label_of, node_of
from tests.conformance.scene import Scene
from tests.tidy.sources import ROOT
from tests.waiting import until_seen

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
ZONE: Final = "kubernetes.io/zone"
BLOCK: Final = "kubernetes.io/block"
RACK: Final = "kubernetes.io/rack"
HOST: Final = "kubernetes.io/hostname"

BINDING: Final = """\
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {{name: {name}}}
spec:
  levels:
    - {{domain: zone, key: kubernetes.io/zone}}
    - {{domain: {second}, key: kubernetes.io/rack}}
{more}"""
PACKED: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  template:
    topologyConstraint: {constraint}
    cliques:
      - name: worker
        topologyConstraint: {clique}
        spec:
          roleName: worker
          replicas: 2
          podSpec: {{containers: [{{name: main, image: pause, resources: {{requests: {{memory: 80Mi}}}}}}]}}
    podCliqueScalingGroups:
      - name: workers
        cliqueNames: [worker]
        topologyConstraint: {group}
"""


def domains(scene: Scene, pods: list[Pod], key: str) -> set[str]:
    """Return the domains of one level that *pods* are in."""
    return {label_of(scene.nodes, pod, key) for pod in pods}


def of_clique(seen: Observation, name: str) -> list[Pod]:
    """Return the ready pods of the PodClique *name*."""
    found = [pod for pod in seen.ready if clique_of(pod) == name]
    assert found
    return found


def levels_named(seen: Observation, gang: str) -> set[tuple[str, str]]:
    """Return scope and level of each domain that the gang says was chosen."""
    return {(chosen.scope, chosen.level) for chosen in seen.gangs[gang].status.topology}


async def test_tas2_each_clique_has_its_own_level(scene: Scene) -> None:
    """Three pods share a rack, four others a block."""
    await scene.apply("tas2")
    seen = await scene.settles(pods=7, ready=7)
    assert len(domains(scene, of_clique(seen, "tas2-0-worker-rack"), RACK)) == 1
    assert len(domains(scene, of_clique(seen, "tas2-0-worker-block"), BLOCK)) == 1
    assert {("tas2-0-worker-rack", "rack"), ("tas2-0-worker-block", "block")} <= levels_named(seen, "tas2-0")


async def test_tas3_the_set_is_in_one_rack(scene: Scene) -> None:
    """All four pods of the set, in a group or not, share a rack."""
    await scene.apply("tas3")
    seen = await scene.settles(pods=4, ready=4)
    assert len(domains(scene, seen.ready, RACK)) == 1
    assert ("tas3-0", "rack") in levels_named(seen, "tas3-0")


async def test_tas4_each_group_replica_is_in_one_rack(scene: Scene) -> None:
    """Each group replica is in one rack; the router is free."""
    await scene.apply("tas4")
    seen = await scene.settles(pods=4, ready=4)
    for replica in range(2):
        assert len(domains(scene, of_clique(seen, f"tas4-0-workers-{replica}-worker"), RACK)) == 1
    assert {("tas4-0-workers-0", "rack"), ("tas4-0-workers-1", "rack")} <= levels_named(seen, "tas4-0")
    assert ("tas4-0", "rack") not in levels_named(seen, "tas4-0")


async def test_tas5_a_clique_is_on_one_host(scene: Scene) -> None:
    """Two pods share a node."""
    await scene.apply("tas5")
    seen = await scene.settles(pods=2, ready=2)
    assert len({node_of(pod) for pod in seen.ready}) == 1
    assert ("tas5-0-worker", "host") in levels_named(seen, "tas5-0")


async def test_tas6_a_set_is_in_one_zone(scene: Scene) -> None:
    """Four pods share the zone."""
    await scene.apply("tas6")
    seen = await scene.settles(pods=4, ready=4)
    assert domains(scene, seen.ready, ZONE) == {"zone-0"}
    assert ("tas6-0", "zone") in levels_named(seen, "tas6-0")


async def test_tas7_without_constraint_pods_go_anywhere(scene: Scene) -> None:
    """Four pods run, and no gang has a constraint or says that it chose a required level."""
    await scene.apply("tas7")
    seen = await scene.settles(pods=4, ready=4)
    for gang in seen.gangs.values():
        assert not gang.spec.topology_constraint.pack_constraint.required
        assert not gang.spec.topology_constraint_group_configs
        assert not any(group.topology_constraint.pack_constraint.required for group in gang.spec.podgroups)


async def test_tas8_levels_nest(scene: Scene) -> None:
    """Each clique is on one host, each group replica in one rack, everything in one block."""
    await scene.apply("tas8")
    seen = await scene.settles(pods=8, ready=8)
    for replica in range(2):
        cliques = [of_clique(seen, f"tas8-0-inference-{replica}-{role}") for role in ("prefill", "decode")]
        for pods in cliques:
            assert len({node_of(pod) for pod in pods}) == 1
        assert len(domains(scene, [pod for pods in cliques for pod in pods], RACK)) == 1
    assert len(domains(scene, seen.ready, BLOCK)) == 1
    assert {scope for scope, level in levels_named(seen, "tas8-0") if level == "host"} == {
        f"tas8-0-inference-{replica}-{role}" for replica in range(2) for role in ("prefill", "decode")
    }
    assert ("tas8-0", "block") in levels_named(seen, "tas8-0")


async def test_tas13_what_cannot_fit_waits_as_a_whole(scene: Scene) -> None:
    """Ten pods larger than any node stay pending, none is placed, and the gang says why."""
    await scene.apply("tas13")
    seen = await scene.settles(pods=10, ready=0)
    assert {pod.status.conditions[0].reason for pod in seen.pending} == {"Unschedulable"}
    gang = seen.gangs["tas13-0"]
    assert gang.spec.topology_constraint.pack_constraint.required == RACK
    assert gang.spec.podgroups[0].min_replicas == 10
    assert len(gang.spec.podgroups[0].pod_references) == 10
    event = await scene.gang_event("tas13-0", "Unschedulable")
    assert event.type == "Warning"
    explained = (await scene.grove.pod_gangs.explain("tas13-0", namespace=scene.namespace)).explanation
    assert explained.state == "Pending"
    assert explained.proof


@pytest_asyncio.fixture
async def binding(scene: Scene) -> AsyncIterator[str]:
    """Give the test a topology binding of its own, and take it away afterwards."""
    text = BINDING.format(name="rackwise", second="rack", more="")
    await scene.apply_text(text)
    yield text
    names = {found.metadata.name async for found in scene.grove.cluster_topology_bindings.list()}
    await scene.delete_sets()
    await scene.grove.cluster_topology_bindings.delete(sorted(names - {"grove-topology"}))


async def set_condition(scene: Scene, name: str, status: str, reason: str) -> None:
    """Wait until the set says so of its topology levels."""

    async def look() -> tuple[str, str]:
        found = await scene.grove.pod_clique_sets.get(name, namespace=scene.namespace)
        conditions = [c for c in found.status.conditions if c.type == "TopologyLevelsUnavailable"]
        return (conditions[0].status, conditions[0].reason) if conditions else ("", "")

    await until_seen(look, lambda seen: seen == (status, reason), lambda seen: f"{status}/{reason}, seen {seen}")


async def test_tas20_a_gang_waits_for_its_topology(scene: Scene, binding: str) -> None:
    """Without its binding a gang stays pending; it is placed, packed, when the binding is back; what ran goes on."""
    constraint = "{topologyName: rackwise, pack: {required: rack}}"
    manifest = PACKED.format(name="packed", replicas=0, constraint=constraint, clique="null", group="null")
    await scene.apply_text(manifest)
    await set_condition(scene, "packed", "False", "AllClusterTopologyLevelsAvailable")
    await scene.grove.cluster_topology_bindings.delete(["rackwise"])
    await set_condition(scene, "packed", "Unknown", "ClusterTopologyNotFound")
    await scene.scale_set("packed", 1)
    seen = await scene.settles(pods=2, ready=0)
    assert seen.gangs["packed-0"].status.reason == "TopologyUnavailable"
    assert "rackwise" in seen.gangs["packed-0"].status.message
    await scene.gang_event("packed-0", "TopologyUnavailable")
    await scene.apply_text(binding)
    seen = await scene.settles(pods=2, ready=2)
    assert len(domains(scene, seen.ready, RACK)) == 1
    await set_condition(scene, "packed", "False", "AllClusterTopologyLevelsAvailable")
    # Taken away under running pods: they stay, a second copy waits.
    await scene.grove.cluster_topology_bindings.delete(["rackwise"])
    await scene.scale_set("packed", 2)
    seen = await scene.settles(pods=4, ready=2)
    assert seen.gangs["packed-1"].status.reason == "TopologyUnavailable"
    await scene.apply_text(binding)
    await scene.settles(pods=4, ready=4)


async def test_tas20_a_level_that_vanishes_counts_as_well(scene: Scene, binding: str) -> None:
    """A binding that lost the level asked for keeps a gang pending until the level is back."""
    constraint = "{topologyName: rackwise, pack: {required: rack}}"
    manifest = PACKED.format(name="packed", replicas=0, constraint=constraint, clique="null", group="null")
    await scene.apply_text(manifest)
    await scene.apply_text(BINDING.format(name="rackwise", second="other", more=""))
    await set_condition(scene, "packed", "True", "ClusterTopologyLevelsUnavailable")
    await scene.scale_set("packed", 1)
    seen = await scene.settles(pods=2, ready=0)
    assert seen.gangs["packed-0"].status.reason == "TopologyUnavailable"
    await scene.apply_text(binding)
    await scene.settles(pods=2, ready=2)


async def refused(grove: GroveClient, manifest: str) -> InvalidArgumentError:
    """Apply what must be refused, and return the refusal."""
    with pytest.raises(InvalidArgumentError) as caught:
        await grove.apply_manifest(manifest, default_namespace="refused")
    assert caught.value.reason == "INVALID_MANIFEST"
    return caught.value


@pytest.mark.parametrize(
    ("second", "more", "path"),
    [
        pytest.param("zone", "", "spec.levels[1].domain", id="domain-twice"),
        pytest.param("rack", "    - {domain: host, key: kubernetes.io/zone}\n", "spec.levels[2].key", id="key-twice"),
        pytest.param(
            "rack",
            "  schedulerTopologyBindings:\n"
            "    - {schedulerName: kai-scheduler, topologyReference: a}\n"
            "    - {schedulerName: kai-scheduler, topologyReference: b}\n",
            "spec.schedulerTopologyBindings[1].schedulerName",
            id="scheduler-twice",
        ),
        pytest.param(
            "rack",
            "  schedulerTopologyBindings: [{schedulerName: nobody, topologyReference: a}]\n",
            "spec.schedulerTopologyBindings[0].schedulerName",
            id="unknown-scheduler",
        ),
        pytest.param(
            "rack",
            "  schedulerTopologyBindings: [{schedulerName: default-scheduler, topologyReference: a}]\n",
            "spec.schedulerTopologyBindings[0].schedulerName",
            id="scheduler-without-topology",
        ),
    ],
)
async def test_tas21_a_wrong_binding_is_refused(scene: Scene, second: str, more: str, path: str) -> None:
    """Each mistake in a binding is refused with its path, and nothing is stored."""
    refusal = await refused(scene.grove, BINDING.format(name="wrong", second=second, more=more))
    assert f"document[1].{path}" in {violation.path for violation in refusal.violations}
    stored: list[ClusterTopologyBinding] = [item async for item in scene.grove.cluster_topology_bindings.list()]
    assert [item.metadata.name for item in stored] == ["grove-topology"]


async def test_tas21_the_name_of_the_topology_is_inherited(scene: Scene) -> None:
    """A group and a clique without topologyName take the set's."""
    set_level = "{topologyName: grove-topology, pack: {required: block}}"
    await scene.apply_text(
        PACKED.format(
            name="inherits", replicas=1, constraint=set_level, group="{pack: {required: rack}}", clique="null"
        )
    )
    seen = await scene.settles(pods=2, ready=2)
    assert len(domains(scene, seen.ready, RACK)) == 1


@pytest.mark.parametrize("level", ["set", "group", "clique"])
@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("{topologyName: grove-topology}", "topologyConstraint must specify pack or deprecated packDomain"),
        (
            "{topologyName: grove-topology, pack: {}}",
            "pack must specify at least one of required or preferred",
        ),
        (
            "{topologyName: grove-topology, pack: {required: rack}, packDomain: rack}",
            "must not set both pack.required and deprecated packDomain",
        ),
        (
            "{topologyName: grove-topology, packDomain: rack}",
            "packDomain is deprecated and cannot be used on new workloads; use pack.required",
        ),
    ],
    ids=["neither", "empty-pack", "both", "pack-domain"],
)
async def test_tas22_a_wrong_constraint_is_refused(scene: Scene, level: str, constraint: str, message: str) -> None:
    """The four rules of a constraint hold on set, group and clique, in Grove's words."""
    places = {"set": "null", "group": "null", "clique": "null"} | {level: constraint}
    manifest = PACKED.format(
        name="wrong", replicas=1, constraint=places["set"], group=places["group"], clique=places["clique"]
    )
    refusal = await refused(scene.grove, manifest)
    path = {
        "set": "spec.template.topologyConstraint",
        "group": "spec.template.podCliqueScalingGroups[0].topologyConstraint",
        "clique": "spec.template.cliques[0].topologyConstraint",
    }[level]
    found = [v for v in refusal.violations if v.path.startswith(f"document[1].{path}")]
    assert message in [violation.description for violation in found], refusal.violations
