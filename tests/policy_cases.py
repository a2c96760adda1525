"""Scaling policies for tests: a legal one, and what admission makes of it beside a set and other policies."""

from __future__ import annotations

from typing import Any, Final

import orjson

from grove_server.admission.admit import admit_pod_clique_set, read_pod_clique_set
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted
from grove_server.admission.scaling_policy import admit_scaling_policy, read_scaling_policy
from grove_server.resources.scaling_policy import ScalingPolicy
from tests.manifest_cases import Json, clique, group, pod_clique_set

SET: Final = "chat"


def pod_spec(gpus: int) -> Json:
    """Return the spec of a pod with GPUs."""
    return {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]}


def disaggregated_set(**changes: Any) -> Json:  # noqa: ANN401 -- whatever the set's spec has
    """Return a set with the cliques prefill (4 GPUs), decode and router, and the group workers of w1 and w2."""
    cliques = [
        clique("prefill", 2, minAvailable=2, podSpec=pod_spec(4)),
        clique("decode", 2, minAvailable=1, podSpec=pod_spec(8)),
        clique("w1", 1, podSpec=pod_spec(2)),
        clique("w2", 3, podSpec=pod_spec(1)),
    ]
    groups = [group("workers", "w1", "w2", replicas=2, minAvailable=1)]
    manifest = pod_clique_set(SET, cliques=cliques, podCliqueScalingGroups=groups)
    manifest["spec"].update(changes)
    return manifest


def role(name: str, kind: str, **more: Any) -> Json:  # noqa: ANN401 -- whatever a role has
    """Return a role of a clique of the same name, 2 to 8 replicas."""
    own: Json = {"name": name, "role": kind, "minReplicas": 2, "maxReplicas": 8}
    if "podCliqueScalingGroup" not in more:
        own["podClique"] = name
    return {**own, **more}


def policy(name: str = "chat-policy", *, roles: list[Json] | None = None, **spec: Any) -> Json:  # noqa: ANN401 -- a spec
    """Return a legal policy."""
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "ScalingPolicy",
        "metadata": {"name": name},
        "spec": {
            "podCliqueSet": SET,
            "roles": roles if roles is not None else [role("prefill", "prefill"), role("decode", "decode")],
            **spec,
        },
    }


def admit_policy(
    manifest: Json, *others: Json, old: ScalingPolicy | None = None, among: Json | None = None
) -> Admitted[ScalingPolicy]:
    """Admit a policy in a world with the set *among* and *others*; raises as admission does."""
    world = AdmissionContext(now=1.0, uid="u", default_namespace="default")
    sets = {}
    if among is not None:
        stored = admit_pod_clique_set(read_pod_clique_set(orjson.dumps(among), world), None, world).resource
        sets[f"default/{stored.metadata.name}"] = stored.spec
    policies = {}
    for other in others:
        read = read_scaling_policy(orjson.dumps(other), world)
        policies[f"default/{read.metadata.name}"] = read.spec
    context = AdmissionContext(now=1.0, uid="u", default_namespace="default", sets=sets, scaling_policies=policies)
    read = read_scaling_policy(orjson.dumps(manifest), context)
    return admit_scaling_policy(read, old, context)
