"""Revisions: what about a template makes running pods outdated.

A revision is a hash over a canonical JSON form with a version of its own, so that neither the order in which a manifest
lists maps or cliques, nor a new release of the server, rolls a workload. In the form are a clique's labels,
annotations and pod spec, and the priority class of the set. Not in it: sizes, minimums, autoscaling, termination
delay, start order, topology and claims, because changing those needs no new pods.

Canonical means: keys sorted; nulls, empty lists and empty maps that say nothing left out; values that equal the
default left out; quantities in their canonical spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from grove_server.resources.manifest import CliqueTemplate, PodCliqueSetTemplate
from grove_server.resources.names import safe_digest
from grove_server.resources.quantity import TEXT_LENGTH_MAX, QuantityError, parse_quantity
from grove_server.resources.replacing import replace
from grove_server.resources.rollout import RESTARTED_AT
from grove_server.resources.workload import Revision

# Changing the canonical form rolls every workload: a new version must keep computing hashes of the old one for
# sets that were admitted under it.
FORM_VERSION: Final = "1"
HASH_LENGTH: Final = 12

# What admission fills in, or Kubernetes would: leaving it out and writing it down are the same.
_POD_SPEC_DEFAULTS: Final[Mapping[str, Any]] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "",
    "hostNetwork": False,
    "hostPID": False,
    "hostIPC": False,
    "serviceAccountName": "",
    # The set's priority class is hashed in its place.
    "priorityClassName": None,
}

# Maps that mean the same empty as absent. Others do not: ``emptyDir: {}`` says a lot.
_SILENT_WHEN_EMPTY: Final = frozenset(
    {
        "affinity",
        "annotations",
        "labels",
        "limits",
        "nodeSelector",
        "overhead",
        "requests",
        "resources",
        "securityContext",
    }
)
_QUANTITY_MAPS: Final = frozenset({"limits", "requests", "overhead"})


def pod_template_hash(clique: CliqueTemplate, priority_class_name: str | None) -> str:
    """Return the ``grove.io/pod-template-hash`` of one clique: 12 characters; its name is not part of it."""
    pod_spec = {
        key: _canonical(value, key)
        for key, value in clique.spec.pod_spec.items()
        if not _says_nothing(key, value) and not _is_default(key, value)
    }
    form = {
        "annotations": clique.annotations,
        "labels": clique.labels,
        "podSpec": pod_spec,
        "priorityClassName": priority_class_name or "",
    }
    return safe_digest(FORM_VERSION.encode() + orjson.dumps(form, option=orjson.OPT_SORT_KEYS), HASH_LENGTH)


def restart_hash(clique: CliqueTemplate, priority_class_name: str | None) -> str:
    """Return a hash of what of a clique cannot change without a restart: all but plain labels and annotations.

    Keys under ``grove.io`` steer how pods run, and the time of a restart is there to cause one.
    """
    kept = replace(
        clique,
        labels={key: value for key, value in clique.labels.items() if _needs_restart(key)},
        annotations={key: value for key, value in clique.annotations.items() if _needs_restart(key)},
    )
    return pod_template_hash(kept, priority_class_name)


def _needs_restart(key: str) -> bool:
    prefix, slash, _ = key.rpartition("/")
    return key == RESTARTED_AT or bool(slash and (prefix == "grove.io" or prefix.endswith(".grove.io")))


def generation_hash(clique_hashes: Mapping[str, str]) -> str:
    """Return the hash of a whole set from the hash of each clique; the order of cliques does not matter."""
    form = orjson.dumps(clique_hashes, option=orjson.OPT_SORT_KEYS)
    return safe_digest(FORM_VERSION.encode() + form, HASH_LENGTH)


def revision_of(template: PodCliqueSetTemplate) -> Revision:
    """Return the revision a template stands for."""
    priority_class_name = template.priority_class_name
    hashes = {clique.name: pod_template_hash(clique, priority_class_name) for clique in template.cliques}
    return Revision(hash=generation_hash(hashes), clique_hashes=hashes)


def _is_default(key: str, value: object) -> bool:
    if key not in _POD_SPEC_DEFAULTS:
        return False
    default = _POD_SPEC_DEFAULTS[key]
    return default is None or (value == default and type(value) is type(default))


def _says_nothing(key: str, value: object) -> bool:
    return value is None or value == [] or (value == {} and key in _SILENT_WHEN_EMPTY)


def _canonical(value: Any, key: str) -> Any:  # noqa: ANN401 -- a pod spec is arbitrary JSON
    if isinstance(value, dict):
        if key in _QUANTITY_MAPS:
            return {name: _canonical_quantity(amount) for name, amount in value.items()}
        kept = {
            name: item if isinstance(item, str) else _canonical(item, name)
            for name, item in value.items()
            if item is not None
        }
        return {name: item for name, item in kept.items() if not _says_nothing(name, item)}
    if isinstance(value, list):
        return [item if isinstance(item, str) else _canonical(item, "") for item in value]
    return value


def _canonical_quantity(amount: object) -> object:
    if isinstance(amount, bool) or not isinstance(amount, str | int | float):
        return amount
    text = str(amount)
    # Only what may be a quantity is remembered.
    return _canonical_spelling(text) if len(text) <= TEXT_LENGTH_MAX else text


@lru_cache(maxsize=4096)
def _canonical_spelling(text: str) -> str:
    try:
        return str(parse_quantity(text))
    except QuantityError:
        # "limits" also names maps in third-party fields, where it need not hold quantities.
        return text
