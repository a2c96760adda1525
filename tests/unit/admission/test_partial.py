"""Reading what is wrong in part: fields that are missing or of a wrong type hide no broken rule, and invent none."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

import pytest

from grove_server.admission.admit import read_pod_clique_set
from grove_server.admission.binding import read_cluster_topology_binding
from grove_server.resources.schema import SchemaError
from grove_server.resources.violations import VIOLATIONS_SHOWN_MAX, Reason, Violation
from grove_server.resources.workload import PodCliqueSet
from tests.manifest_cases import CONTEXT, Json, admit, clique, group, pod_clique_set, topology_binding
from tests.property.test_admission import STORED, everything, places_in, put

FREE: Final = frozenset({"podSpec", "templateSpec", "metrics"})
# Through JSON, so that no two places share an object.
EVERYTHING: Final[Json] = json.loads(json.dumps(everything()))
BINDING: Final = topology_binding(
    schedulerTopologyBindings=[{"schedulerName": "grove-scheduler", "topologyReference": "t"}]
)
DESCRIBED: Final = [place for place in places_in(EVERYTHING) if not FREE & set(place[:-1])]


def found_in(manifest: Json, old: PodCliqueSet | None = None) -> tuple[Violation, ...]:
    """Return everything that is wrong with a set."""
    data = json.dumps(manifest).encode()
    try:
        parsed = read_pod_clique_set(data, CONTEXT, lambda _: old)
    except SchemaError as error:
        return error.violations
    assert parsed is not None
    return ()


def paths_in(manifest: Json, old: PodCliqueSet | None = None) -> list[str]:
    """Return where a set is wrong."""
    return [violation.path for violation in found_in(manifest, old)]


def without(manifest: Json, place: tuple[str | int, ...]) -> Json:
    """Return a copy of *manifest* without what is in one place."""
    result = copy.deepcopy(manifest)
    holder: Any = result
    for step in place[:-1]:
        holder = holder[step]
    del holder[place[-1]]
    return result


def spelled(place: tuple[str | int, ...]) -> str:
    """Return a place as the path of a violation."""
    path = ""
    for step, before in zip(place, ("", *place), strict=False):
        is_entry = isinstance(step, int) or before in {"labels", "annotations"}
        path += f"[{step}]" if is_entry else f".{step}" if path else str(step)
    return path


def test_a_missing_pod_spec_hides_no_broken_rule() -> None:
    """Sizes are checked although the pod spec is missing; the answer is in the order of the document."""
    bad = {"name": "a", "spec": {"replicas": 1, "minAvailable": 9}}
    manifest = pod_clique_set(cliques=[bad], podCliqueScalingGroups=[])
    manifest["spec"] = {"replicas": -1, "template": manifest["spec"]["template"]}
    assert paths_in(manifest) == [
        "spec.replicas",
        "spec.template.cliques[0].spec.minAvailable",
        "spec.template.cliques[0].spec.podSpec",
    ]


def test_a_group_without_members_hides_no_broken_rule() -> None:
    """The rest of the set is checked, and its cliques are not blamed for the group."""
    broken = {"name": "g", "replicas": 1, "minAvailable": 2}
    manifest = pod_clique_set(cliques=[clique("g"), clique("Bad")], podCliqueScalingGroups=[broken])
    assert paths_in(manifest) == [
        "spec.template.cliques[1].name",
        "spec.template.podCliqueScalingGroups[0].minAvailable",
        "spec.template.podCliqueScalingGroups[0].cliqueNames",
    ]


def test_a_missing_template_hides_no_broken_rule() -> None:
    """The size of the set is checked although it has no template, of which nothing more is said."""
    manifest = pod_clique_set()
    manifest["spec"] = {"replicas": -1}
    assert paths_in(manifest) == ["spec.replicas", "spec.template"]


def test_a_missing_name_is_not_missed_by_those_that_refer_to_it() -> None:
    """Which clique a group means cannot be said while one has no name; a missing topology still can."""
    manifest = pod_clique_set(topologyConstraint={"topologyName": "nope", "pack": {"required": "rack"}})
    del manifest["spec"]["template"]["cliques"][1]["name"]
    assert paths_in(manifest) == [
        "spec.template.cliques[1].name",
        "spec.template.topologyConstraint.topologyName",
    ]


def test_sizes_are_not_compared_with_a_size_that_cannot_be_read() -> None:
    """A minimum is compared with the replicas only if these are a number."""
    bad = clique("a", None, minAvailable=9, autoScalingConfig={"minReplicas": 9, "maxReplicas": 9})
    bad["spec"]["replicas"] = "three"
    assert paths_in(pod_clique_set(cliques=[bad], podCliqueScalingGroups=[])) == [
        "spec.template.cliques[0].spec.replicas"
    ]


@pytest.mark.parametrize("place", DESCRIBED, ids=spelled)
@pytest.mark.parametrize("old", [None, STORED], ids=["create", "update"])
def test_a_field_of_a_wrong_type_is_all_that_is_wrong(place: tuple[str | int, ...], old: PodCliqueSet | None) -> None:
    """A value of a wrong type has no follow-ups, and hides nothing: one more mistake is found beside it."""
    values: tuple[object, ...] = (1.5, [[]])
    for value in values:
        manifest = put(EVERYTHING, place, value)
        is_list_in_a_list = value == [[]] and spelled(place).endswith(("]", "s", "After", "Sharing"))
        if is_list_in_a_list:
            continue
        assert paths_in(manifest, old) == [spelled(place)]
        if place[0] == "spec" and place != ("spec",) and place[:2] != ("spec", "replicas"):
            assert sorted(paths_in(put(manifest, ("spec", "replicas"), -1), old)) == ["spec.replicas", spelled(place)]


@pytest.mark.parametrize("place", DESCRIBED, ids=spelled)
def test_a_missing_field_is_all_that_is_wrong(place: tuple[str | int, ...]) -> None:
    """A required field that is missing has no follow-ups."""
    shape = [violation for violation in found_in(without(EVERYTHING, place)) if violation.message == "is required"]
    if shape and not isinstance(place[-1], int):
        assert paths_in(without(EVERYTHING, place)) == [spelled(place)]


def test_budgets_of_a_wrong_type_are_one_mistake() -> None:
    """A budget may be a number or a share: one that is neither has one violation, at its own path."""
    manifest = pod_clique_set()
    manifest["spec"]["updateStrategy"] = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1.5}}
    (violation,) = found_in(manifest)
    assert violation.path == "spec.updateStrategy.rollingUpdate.maxSurge"
    assert violation.message == "must be a whole number or a string, got 1.5"


def test_a_name_that_cannot_be_read_is_not_looked_up() -> None:
    """Without name or namespace it is not known what is updated, so nothing is called immutable."""
    manifest = copy.deepcopy(EVERYTHING)
    manifest["metadata"]["namespace"] = 7
    manifest["spec"]["template"]["cliques"][0]["spec"]["roleName"] = "other"
    assert paths_in(manifest, STORED) == ["metadata.namespace"]


def test_cliques_without_names_are_not_called_removed() -> None:
    """On an update, a clique whose name is missing was neither added nor removed."""
    old = admit(pod_clique_set()).resource
    manifest = pod_clique_set()
    del manifest["spec"]["template"]["cliques"][0]["name"]
    assert paths_in(manifest, old) == ["spec.template.cliques[0].name"]


def test_what_exceeds_a_bound_hides_no_broken_rule() -> None:
    """A pod spec beyond all bounds is left out of what the rules see."""
    manifest = pod_clique_set()
    manifest["spec"]["replicas"] = -1
    manifest["spec"]["template"]["cliques"][0]["spec"]["podSpec"]["x"] = [1] * 5000
    assert sorted(paths_in(manifest)) == ["spec.replicas", "spec.template.cliques[0].spec.podSpec.x"]


def test_many_violations_are_counted() -> None:
    """Twenty are shown, of the shape and of rules in one order; the last says how many more there are."""
    cliques: list[Json] = [{"name": f"Bad-{n}", "spec": {}} for n in range(30)]
    manifest = pod_clique_set(cliques=cliques, podCliqueScalingGroups=[])
    violations = found_in(manifest)
    assert len(violations) == VIOLATIONS_SHOWN_MAX
    assert [v.path for v in violations[:3]] == [
        "spec.template.cliques[0].name",
        "spec.template.cliques[0].spec.podSpec",
        "spec.template.cliques[1].name",
    ]
    assert violations[-1] == Violation("", Reason.TOO_MANY, "and 41 more violations")


def test_a_topology_binding_is_reported_at_once_too() -> None:
    """A level without a key hides neither a duplicate domain nor an empty reference."""
    manifest = topology_binding("zone", "rack", "rack", schedulerTopologyBindings=[{"schedulerName": ""}])
    del manifest["spec"]["levels"][0]["key"]
    with pytest.raises(SchemaError) as caught:
        read_cluster_topology_binding(json.dumps(manifest).encode(), CONTEXT)
    assert {violation.path for violation in caught.value.violations} == {
        "spec.levels[0].key",
        "spec.levels[2].domain",
        "spec.levels[2].key",
        "spec.schedulerTopologyBindings[0].schedulerName",
        "spec.schedulerTopologyBindings[0].topologyReference",
    }


@pytest.mark.parametrize("place", places_in(BINDING), ids=spelled)
def test_a_wrong_type_in_a_binding_is_all_that_is_wrong(place: tuple[str | int, ...]) -> None:
    """A value of a wrong type has no follow-ups in ClusterTopologyBindings either."""
    with pytest.raises(SchemaError) as caught:
        read_cluster_topology_binding(json.dumps(put(BINDING, place, 1.5)).encode(), CONTEXT)
    assert [violation.path for violation in caught.value.violations] == [spelled(place)]


def test_a_group_keeps_its_place_in_the_order() -> None:
    """The order is that of the document, whichever reader found what."""
    manifest = pod_clique_set(
        podCliqueScalingGroups=[group("Bad", "leader", unknown=1)], terminationDelay="x", cliqueStartupType=3
    )
    assert paths_in(manifest) == [
        "spec.template.podCliqueScalingGroups[0].name",
        "spec.template.podCliqueScalingGroups[0].unknown",
        "spec.template.terminationDelay",
        "spec.template.cliqueStartupType",
    ]
