"""The Kubernetes shape of a pod, made when it is shown or started; nothing of it is stored per pod.

What the user wrote in the clique's pod spec is kept; the server adds environment, hostname, subdomain, node, scheduler
and priority class. Pure; the runtimes and the API both use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.lifecycle.environment import pod_variables, with_variables
from grove_server.resources.labels import GPU_IDS
from grove_server.resources.names import hostname
from grove_server.resources.workload import Pod

SCHEDULER_NAME: Final = "grove-scheduler"


def pod_spec(pod: Pod) -> dict[str, Any]:
    """Return the whole core/v1 PodSpec of *pod*."""
    identity = pod.identity
    template = pod.template
    spec: dict[str, Any] = dict(template.pod_spec)
    variables = pod_variables(identity, pod.metadata.namespace, pod.index, pod.group_index)
    for key in ("initContainers", "containers"):
        containers = spec.get(key)
        if containers:
            spec[key] = with_variables(containers, variables)
    spec["hostname"] = hostname(identity.name, pod.index)
    spec["subdomain"] = identity.headless_service
    spec.setdefault("schedulerName", SCHEDULER_NAME)
    if template.priority_class_name:
        spec["priorityClassName"] = template.priority_class_name
    if pod.node:
        spec["nodeName"] = pod.node
    return spec


def pod_annotations(pod: Pod) -> Mapping[str, str]:
    """Return the annotations of *pod*: its own, and which GPUs of its node it has ("0,1,2")."""
    if not pod.gpu_ids:
        return pod.metadata.annotations
    return {**pod.metadata.annotations, GPU_IDS: ",".join(map(str, pod.gpu_ids))}
