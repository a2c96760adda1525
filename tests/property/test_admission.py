"""Admission of anything: a manifest with arbitrary JSON in arbitrary places is admitted or refused with paths.

Goal: no document, however strange, makes the reading or a rule fail in another way; and what was admitted once is
"unchanged" when it is applied again. Method: take a manifest that uses every part of the schema, put drawn values (and
values that nearly fit) in drawn places, at creation and over what is stored.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from grove_server.admission.admit import read_pod_clique_set
from grove_server.admission.findings import InvalidResourceError
from grove_server.resources.document import read_documents
from grove_server.resources.schema import SchemaError
from tests.manifest_cases import CONTEXT, admit, admit_binding, clique, group, pod_clique_set, topology_binding

TOPOLOGY: Final = {"topologyName": "grove-topology", "pack": {"required": "rack", "preferred": "host"}}
SHARED: Final = [{"name": "gpu", "scope": "PerReplica", "filter": {"childCliqueNames": ["worker"]}}]
AFFINITY: Final = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
            ]
        }
    },
    "podAffinity": {},
}


def everything() -> dict[str, Any]:
    """Return a manifest that uses every part of the schema."""
    worker = clique("worker", 4, minAvailable=2, startsAfter=["router"], roleName="w")
    worker |= {"labels": {"a": "b"}, "annotations": {"c": "d"}, "topologyConstraint": TOPOLOGY, "resourceSharing": []}
    container = worker["spec"]["podSpec"]["containers"][0]
    container |= {
        "command": ["run"],
        "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {}}}],
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {"limits": {"nvidia.com/gpu": 8, "cpu": "2"}, "requests": {"nvidia.com/gpu": "8", "cpu": "1500m"}},
    }
    worker["spec"]["podSpec"] |= {
        "initContainers": [{"name": "init"}],
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": AFFINITY,
        "overhead": {"cpu": "10m"},
        "schedulerName": "",
        "priorityClassName": "high",
    }
    manifest = pod_clique_set(
        cliques=[clique("router", 2, autoScalingConfig={"maxReplicas": 4, "metrics": [{"type": "Resource"}]}), worker],
        podCliqueScalingGroups=[
            group("g", "worker", replicas=2, scaleConfig={"maxReplicas": 3}, resourceSharing=SHARED)
        ],
        cliqueStartupType="CliqueStartupTypeExplicit",
        topologyConstraint={"topologyName": "grove-topology", "pack": {"required": "zone"}},
        terminationDelay="1h",
        priorityClassName="high",
        headlessServiceConfig={"publishNotReadyAddresses": False},
        resourceClaimTemplates=[{"name": "gpu", "templateSpec": {"spec": {"devices": {"requests": [{"name": "r"}]}}}}],
        resourceSharing=SHARED,
    )
    manifest["metadata"] |= {"labels": {"a": "b"}, "annotations": {"grove.io/mnnvl-group": "none"}}
    manifest["spec"]["updateStrategy"] = {"type": "OnDelete"}
    return manifest


def places_in(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of each value in a document, but for the document itself."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places_in(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places_in(item, (*path, index))
    return found


EVERYTHING: Final = everything()
STORED: Final = admit(EVERYTHING).resource
PLACES: Final = places_in(EVERYTHING)
BINDING: Final = topology_binding(
    schedulerTopologyBindings=[{"schedulerName": "kai-scheduler", "topologyReference": "t"}]
)

nearly_right: Final = st.sampled_from(
    ["", "a", "A", "a.b", "a" * 64, "-1", "1.5", "10Gi", "zone", "host", "Exists", "worker", "router", "never", "0s"]
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), nearly_right, st.text(max_size=5)
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(nearly_right, st.sampled_from(["name", "key", "limits", "pack"])), inner, max_size=3),
    ),
    max_leaves=6,
)


def put(document: dict[str, Any], place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """Return a copy of *document* with *value* in one place, if the place is still there."""
    changed = copy.deepcopy(document)
    holder: Any = changed
    for step in place[:-1]:
        try:
            holder = holder[step]
        except (KeyError, IndexError, TypeError):
            return changed
    last: Any = place[-1]
    if isinstance(holder, dict) or (isinstance(holder, list) and isinstance(last, int) and last < len(holder)):
        holder[last] = value
    return changed


changes = st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=3)


@given(changes)
def test_any_set_is_admitted_or_refused(drawn: list[tuple[tuple[str | int, ...], object]]) -> None:
    """Whatever stands in a manifest, the answer is a resource or a list of violations with words."""
    manifest = EVERYTHING
    for place, value in drawn:
        manifest = put(manifest, place, value)
    for old in (None, STORED):
        try:
            admitted = admit(manifest, old)
        except (SchemaError, InvalidResourceError) as error:
            assert error.violations  # noqa: PT017 -- most documents are refused, some are not
            assert all(violation.message for violation in error.violations)  # noqa: PT017 -- as above
        else:
            again = admit(manifest, admitted.resource)
            assert not again.changed
            assert again.resource.revision == admitted.resource.revision


@given(changes)
def test_reading_says_no_less_than_the_parts(drawn: list[tuple[tuple[str | int, ...], object]]) -> None:
    """Reading and checking in one step fails in no other way, and any manifest survives YAML's reader as JSON."""
    manifest = EVERYTHING
    for place, value in drawn:
        manifest = put(manifest, place, value)
    data = json.dumps(manifest).encode()
    try:
        read_pod_clique_set(data, CONTEXT)
    except SchemaError as error:
        assert error.violations  # noqa: PT017 -- most documents are refused, some are not
        assert error.rest is not None  # noqa: PT017 -- as above
        # What fills gaps is never shown.
        assert not re.search(r"\bz\d+x\d+\b", str(error))  # noqa: PT017 -- as above
    found = read_documents(data)
    assert len(found.documents) + len(found.problems) == 1


@given(st.sampled_from(places_in(BINDING)), values)
def test_any_binding_is_admitted_or_refused(place: tuple[str | int, ...], value: object) -> None:
    """The same for ClusterTopologyBindings."""
    manifest = put(BINDING, place, value)
    try:
        admitted = admit_binding(manifest)
    except (SchemaError, InvalidResourceError) as error:
        assert error.violations  # noqa: PT017 -- most documents are refused, some are not
    else:
        assert not admit_binding(manifest, admitted.resource).changed


@given(st.text(max_size=200))
def test_any_text_has_documents_or_problems(text: str) -> None:
    """No text makes the reader of files fail in another way."""
    found = read_documents(text.encode())
    assert all(problem.message for problem in found.problems)
    assert all(document.to_json() for document in found.documents)


@given(values)
def test_yaml_and_json_agree(value: object) -> None:
    """JSON is YAML: an indented document in flow style means the same to both readers."""
    data = json.dumps({"a": value})
    by_json, by_yaml = read_documents(data.encode()), read_documents(b"# YAML\n" + data.encode())
    if by_json.problems or by_yaml.problems:
        return
    assert by_json.documents[0].content == by_yaml.documents[0].content
