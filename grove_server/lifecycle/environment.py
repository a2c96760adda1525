"""The ``GROVE_*`` variables of a pod's containers.

Source: Grove, "Environment injected". They stand in front of the container's own variables, so that these may refer to
them with ``$(GROVE_...)``; a variable of the same name in the template is replaced. Everything but the pod's index is
the same for all pods of a clique, so the list is made once per clique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grove_server.resources.labels import POD_INDEX
from grove_server.resources.names import service_address
from grove_server.resources.workload import CliqueIdentity

SET_NAME: Final = "GROVE_PCS_NAME"
SET_INDEX: Final = "GROVE_PCS_INDEX"
CLIQUE_NAME: Final = "GROVE_PCLQ_NAME"
HEADLESS_SERVICE: Final = "GROVE_HEADLESS_SERVICE"
POD_INDEX_VARIABLE: Final = "GROVE_PCLQ_POD_INDEX"
GROUP_NAME: Final = "GROVE_PCSG_NAME"
GROUP_INDEX: Final = "GROVE_PCSG_INDEX"
GROUP_POD_COUNT: Final = "GROVE_PCSG_TEMPLATE_NUM_PODS"
GROUP_POD_INDEX: Final = "GROVE_PCSG_POD_INDEX"

Variable = dict[str, Any]


def group_pod_index(identity: CliqueIdentity, pod_index: int, group_index: int | None) -> int:
    """Return the number of a pod among those of its group replica; *group_index* if it has one of its own."""
    return identity.group_pod_offset + pod_index if group_index is None else group_index


def pod_variables(
    identity: CliqueIdentity, namespace: str, pod_index: int, group_index: int | None = None
) -> list[Variable]:
    """Return the variables of one pod, in Kubernetes' form.

    The index within the clique is read from the pod's label, as in Grove, so that it can be re-used by fieldRef;
    ``plain_variables`` gives values only. The index within the group replica counts the pods of all its cliques in the
    order of ``cliqueNames`` (Grove #755): leaders first, then workers; *group_index* where a pod has another (see
    ``group_numbers``).
    """
    variables: list[Variable] = [
        {"name": SET_NAME, "value": identity.set_name},
        {"name": SET_INDEX, "value": str(identity.copy)},
        {"name": CLIQUE_NAME, "value": identity.name},
        {"name": HEADLESS_SERVICE, "value": service_address(identity.set_name, identity.copy, namespace)},
        {
            "name": POD_INDEX_VARIABLE,
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{POD_INDEX}']"}},
        },
    ]
    if identity.group:
        variables += (
            {"name": GROUP_NAME, "value": identity.group_name},
            {"name": GROUP_INDEX, "value": str(identity.group_replica)},
            {"name": GROUP_POD_COUNT, "value": str(identity.group_pod_count)},
            {"name": GROUP_POD_INDEX, "value": str(group_pod_index(identity, pod_index, group_index))},
        )
    return variables


def plain_variables(
    identity: CliqueIdentity, namespace: str, pod_index: int, group_index: int | None = None
) -> dict[str, str]:
    """Return the variables of one pod as names and values, for runtimes that start processes themselves."""
    return {
        variable["name"]: variable.get("value", str(pod_index))
        for variable in pod_variables(identity, namespace, pod_index, group_index)
    }


def with_variables(containers: Sequence[Mapping[str, Any]], variables: Sequence[Variable]) -> list[dict[str, Any]]:
    """Return *containers* with *variables* in front of their own."""
    names = {variable["name"] for variable in variables}
    return [
        {
            **container,
            "env": [*variables, *(own for own in container.get("env") or () if own.get("name") not in names)],
        }
        for container in containers
    ]
