"""Labels and annotations: their keys, their validity, and the ones each child carries.

Keys and values are Grove's. Building them is on the path of every pod created, so a clique's labels are built once and
a pod adds only what is its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from grove_server.resources.names import LABEL_LENGTH_MAX, SUBDOMAIN_LENGTH_MAX, dns_subdomain_problem
from grove_server.resources.workload import CliqueIdentity

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PART_OF: Final = "app.kubernetes.io/part-of"
NAME: Final = "app.kubernetes.io/name"
COMPONENT: Final = "app.kubernetes.io/component"

GROVE_PREFIX: Final = "grove.io/"
SET_REPLICA_INDEX: Final = "grove.io/podcliqueset-replica-index"
POD_CLIQUE: Final = "grove.io/podclique"
POD_GANG: Final = "grove.io/podgang"
BASE_POD_GANG: Final = "grove.io/base-podgang"
SCALING_GROUP: Final = "grove.io/podcliquescalinggroup"
SCALING_GROUP_REPLICA_INDEX: Final = "grove.io/podcliquescalinggroup-replica-index"
POD_INDEX: Final = "grove.io/podclique-pod-index"
POD_TEMPLATE_HASH: Final = "grove.io/pod-template-hash"
# Grove has no label for it: the generation hash of the set, the same for all parts of one version.
SET_REVISION: Final = "grove.io/pod-clique-set-revision"
SCHEDULER_NAME: Final = "grove.io/scheduler-name"

# Annotations.
MNNVL_GROUP: Final = "grove.io/mnnvl-group"
MNNVL_NONE: Final = "none"
TOPOLOGY_NAME: Final = "grove.io/topology-name"
GPU_IDS: Final = "grove.io/gpu-ids"
GPU_FRACTION: Final = "grove.io/gpu-fraction"
GPU_ISLANDS: Final = "grove.io/gpu-islands"
NEAR: Final = "grove.io/near"
SPREAD_COPIES: Final = "grove.io/spread-copies"
PREEMPTION_DELAY: Final = "grove.io/preemption-delay"
SPREAD_COPIES_REQUIRED: Final = "grove.io/spread-copies-required"
DRAIN_TIMEOUT: Final = "grove.io/drain-timeout"
DRAIN_TIMEOUT_MAX_S: Final = 86_400.0
STUCK_TERMINATING_POLICY: Final = "grove.io/stuck-terminating-policy"
STUCK_FORCE: Final = "Force"
STUCK_WAIT: Final = "Wait"
STUCK_POLICIES: Final = (STUCK_FORCE, STUCK_WAIT)
RECONCILE_TRIGGER: Final = "grove.io/reconcile-trigger"
DISABLE_RESOURCE_PROTECTION: Final = "grove.io/disable-managed-resource-protection"

# Tools of Grove's users select by this value, so the server keeps it.
MANAGER: Final = "grove-operator"

COMPONENT_STANDALONE_CLIQUE: Final = "pcs-podclique"
COMPONENT_MEMBER_CLIQUE: Final = "pcsg-podclique"
COMPONENT_SCALING_GROUP: Final = "pcs-podcliquescalinggroup"
COMPONENT_POD_GANG: Final = "podgang"
COMPONENT_HEADLESS_SERVICE: Final = "pcs-headless-service"

# Kubernetes' limit for all annotations of one object together.
ANNOTATIONS_SIZE_MAX_BYTES: Final = 256 * 1024

# A prefix (a DNS subdomain), a slash and a name. Longer keys are refused before they are looked at or remembered.
_KEY_LENGTH_MAX: Final = SUBDOMAIN_LENGTH_MAX + 1 + LABEL_LENGTH_MAX
_NAME_PART: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")


def label_key_problem(key: str) -> str | None:
    """Return why *key* is no label (or annotation) key, or None if it is one.

    A key is ``[prefix/]name``: the prefix a DNS subdomain, the name at most 63 letters, digits, ``-``, ``_`` and ``.``.
    """
    if len(key) > _KEY_LENGTH_MAX:
        return f"must have at most {_KEY_LENGTH_MAX} characters, has {len(key)}"
    return _short_key_problem(key)


def label_value_problem(value: str) -> str | None:
    """Return why *value* is no label value, or None if it is one; the empty string is."""
    if not value:
        return None
    if len(value) > LABEL_LENGTH_MAX:
        return f"must have at most {LABEL_LENGTH_MAX} characters, has {len(value)}"
    return _short_value_problem(value)


@lru_cache(maxsize=4096)
def _short_key_problem(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    if slash:
        problem = dns_subdomain_problem(prefix)
        if problem is not None:
            return f"the part before '/' {problem}"
    if not name:
        return "must have a name part"
    if len(name) > LABEL_LENGTH_MAX:
        return f"the name part must have at most {LABEL_LENGTH_MAX} characters, has {len(name)}"
    if _NAME_PART.fullmatch(name) is None:
        return (
            "the name part must consist of letters, digits, '-', '_' and '.', and start and end with a letter or digit"
        )
    return None


@lru_cache(maxsize=4096)
def _short_value_problem(value: str) -> str | None:
    if _NAME_PART.fullmatch(value) is None:
        return "must consist of letters, digits, '-', '_' and '.', and start and end with a letter or digit"
    return None


def selector_of_set(set_name: str) -> str:
    """Return the selector of all that is managed for a set (its ``hpaPodSelector``)."""
    return f"{MANAGED_BY}={MANAGER},{PART_OF}={set_name}"


def selector_of_group(set_name: str, group_name: str) -> str:
    """Return the selector of a scaling group's pods."""
    return f"{MANAGED_BY}={MANAGER},{PART_OF}={set_name},{SCALING_GROUP}={group_name}"


def selector_of_clique(set_name: str, clique_name: str) -> str:
    """Return the selector of a clique's pods."""
    return f"{MANAGED_BY}={MANAGER},{PART_OF}={set_name},{POD_CLIQUE}={clique_name}"


def clique_labels(
    identity: CliqueIdentity, user_labels: Mapping[str, str], template_hash: str, set_revision: str
) -> dict[str, str]:
    """Return the labels of a PodClique: the user's, then the server's, which win.

    *set_revision* is empty where it is not known (rows from before there was one).
    """
    labels = {
        **user_labels,
        MANAGED_BY: MANAGER,
        PART_OF: identity.set_name,
        NAME: identity.name,
        COMPONENT: COMPONENT_MEMBER_CLIQUE if identity.group else COMPONENT_STANDALONE_CLIQUE,
        SET_REPLICA_INDEX: str(identity.copy),
        POD_GANG: identity.gang,
        POD_TEMPLATE_HASH: template_hash,
    }
    if set_revision:
        labels[SET_REVISION] = set_revision
    if identity.group:
        labels[SCALING_GROUP] = identity.group_name
        labels[SCALING_GROUP_REPLICA_INDEX] = str(identity.group_replica)
    if identity.base_gang:
        labels[BASE_POD_GANG] = identity.base_gang
    return labels


def pod_labels(labels_of_clique: Mapping[str, str], clique_name: str, pod_index: int) -> dict[str, str]:
    """Return the labels of a pod: all of its clique's (its name and component too, as in Grove) and its own."""
    labels = dict(labels_of_clique)
    labels[POD_CLIQUE] = clique_name
    labels[POD_INDEX] = str(pod_index)
    return labels


def scaling_group_labels(set_name: str, copy: int, group_name: str) -> dict[str, str]:
    """Return the labels of a PodCliqueScalingGroup."""
    return {
        MANAGED_BY: MANAGER,
        PART_OF: set_name,
        NAME: group_name,
        COMPONENT: COMPONENT_SCALING_GROUP,
        SET_REPLICA_INDEX: str(copy),
    }


def gang_labels(set_name: str, gang_name: str, scheduler_name: str, labels_of_set: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a PodGang; those of the set are mirrored, except Grove's own."""
    return {
        **mirrored(labels_of_set),
        MANAGED_BY: MANAGER,
        PART_OF: set_name,
        NAME: gang_name,
        COMPONENT: COMPONENT_POD_GANG,
        SCHEDULER_NAME: scheduler_name,
    }


def gang_annotations(topology_name: str, annotations_of_set: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations of a PodGang; *topology_name* is empty where no constraint applies."""
    annotations = mirrored(annotations_of_set)
    if topology_name:
        annotations[TOPOLOGY_NAME] = topology_name
    return annotations


def headless_service_labels(set_name: str, service_name: str) -> dict[str, str]:
    """Return the labels of a copy's headless Service."""
    return {
        MANAGED_BY: MANAGER,
        PART_OF: set_name,
        NAME: service_name,
        COMPONENT: COMPONENT_HEADLESS_SERVICE,
    }


def mirrored(entries: Mapping[str, str]) -> dict[str, str]:
    """Return the labels or annotations of a set that its gangs carry too."""
    return {key: value for key, value in entries.items() if not key.startswith(GROVE_PREFIX)}
