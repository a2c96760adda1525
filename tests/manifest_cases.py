"""Manifests for tests, and a short way from a manifest to what admission says about it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from grove_server.admission.admit import admit_pod_clique_set
from grove_server.admission.binding import admit_cluster_topology_binding
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, InvalidResourceError
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.schema import SchemaError, parse_cluster_topology_binding, parse_pod_clique_set
from grove_server.resources.violations import Violation
from grove_server.resources.workload import PodCliqueSet

LEVELS: Final = ("zone", "block", "rack", "host")
CONTEXT: Final = AdmissionContext(
    now=1000.0, uid="uid-1", bindings={"grove-topology": LEVELS, "other": ("zone", "rack")}
)

Json = dict[str, Any]
Change = Callable[[Json], object]


def clique(name: str, replicas: int | None = 1, **spec: object) -> Json:
    """Return a clique template with one container."""
    pod_spec = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}
    sizes = {} if replicas is None else {"replicas": replicas}
    return {"name": name, "spec": {"podSpec": pod_spec, **sizes, **spec}}


def group(name: str, *members: str, **fields: object) -> Json:
    """Return a scaling group template."""
    return {"name": name, "cliqueNames": list(members), **fields}


def pod_clique_set(name: str = "demo", *, replicas: int | None = 1, **template: object) -> Json:
    """Return a set of one router clique and a prefill group of leader and worker, or what *template* says."""
    spec: Json = {
        "template": {
            "cliques": [clique("router", 2), clique("leader"), clique("worker", 4)],
            "podCliqueScalingGroups": [group("prefill", "leader", "worker", replicas=2)],
            **template,
        }
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {"name": name},
        "spec": spec,
    }


def topology_binding(*levels: str, **spec: object) -> Json:
    """Return a ClusterTopologyBinding with node labels named after its levels."""
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "ClusterTopologyBinding",
        "metadata": {"name": "grove-topology"},
        "spec": {"levels": [{"domain": level, "key": f"kubernetes.io/{level}"} for level in levels or LEVELS], **spec},
    }


def changed(manifest: Json, change: Change) -> Json:
    """Return a copy of *manifest* after *change*."""
    result = copy.deepcopy(manifest)
    change(result)
    return result


def at(manifest: Json, path: str) -> Any:  # noqa: ANN401 -- any JSON
    """Return what stands at a dotted path; numbers are positions in lists."""
    value: Any = manifest
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


def setting(path: str, value: object) -> Change:
    """Return a change that sets the field at a dotted path."""
    parent, _, name = path.rpartition(".")

    def change(manifest: Json) -> None:
        holder: Any = at(manifest, parent) if parent else manifest
        if name.isdigit():
            holder[int(name)] = value
        else:
            holder[name] = value

    return change


def removing(path: str) -> Change:
    """Return a change that removes the field at a dotted path."""
    parent, _, name = path.rpartition(".")

    def change(manifest: Json) -> None:
        holder: Any = at(manifest, parent) if parent else manifest
        del holder[int(name) if name.isdigit() else name]

    return change


def admit(
    manifest: Json, old: PodCliqueSet | None = None, context: AdmissionContext = CONTEXT
) -> Admitted[PodCliqueSet]:
    """Parse and admit a set."""
    return admit_pod_clique_set(parse_pod_clique_set(json.dumps(manifest).encode()), old, context)


def admit_binding(
    manifest: Json, old: ClusterTopologyBinding | None = None, context: AdmissionContext = CONTEXT
) -> Admitted[ClusterTopologyBinding]:
    """Parse and admit a ClusterTopologyBinding."""
    return admit_cluster_topology_binding(parse_cluster_topology_binding(json.dumps(manifest).encode()), old, context)


def violations_of(
    manifest: Json, old: PodCliqueSet | None = None, context: AdmissionContext = CONTEXT
) -> tuple[Violation, ...]:
    """Return everything that is wrong with a set, in its shape or its meaning."""
    try:
        admit(manifest, old, context)
    except (SchemaError, InvalidResourceError) as error:
        return error.violations
    return ()


def told(violations: tuple[Violation, ...]) -> Mapping[str, str]:
    """Return path → ``Reason: message`` of violations."""
    return {violation.path: f"{violation.reason}: {violation.message}" for violation in violations}
