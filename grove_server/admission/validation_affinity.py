"""Rules for wishes about nodes and for (anti-)affinity between pods, and for the annotations that extend them.

What placement could not judge is refused: selectors of namespaces by their labels, `matchLabelKeys`, and selectors of
the one label by which the pods of a clique differ. The rest means what it means in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from grove_server.admission.findings import Findings
from grove_server.admission.parts import maps_in
from grove_server.resources.labels import (
    NEAR,
    POD_INDEX,
    SPREAD_COPIES,
    SPREAD_COPIES_REQUIRED,
    label_key_problem,
    label_value_problem,
)
from grove_server.resources.manifest import PodCliqueSetTemplate
from grove_server.resources.names import dns_label_problem
from grove_server.resources.violations import quoted

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_TERM_FIELDS: Final = frozenset({"labelSelector", "namespaces", "namespaceSelector", "topologyKey"})
_KEYS_FIELDS: Final = frozenset({"matchLabelKeys", "mismatchLabelKeys"})
_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_WEIGHT_MAX: Final = 100

CheckTerm = Callable[[Mapping[str, Any], str, Findings], None]


def check_preferred_nodes(preferred: object, path: str, check_term: CheckTerm, findings: Findings) -> None:
    """Check preferred node affinity; *check_term* is the rule for one node selector term."""
    for index, entry in maps_in(preferred, path, findings):
        at = f"{path}[{index}]"
        _check_weighted(entry, "preference", at, findings)
        if isinstance(entry.get("preference"), dict):
            check_term(entry["preference"], f"{at}.preference", findings)


def check_pod_affinity(affinity: object, path: str, findings: Findings) -> None:
    """Check ``podAffinity`` or ``podAntiAffinity``."""
    if affinity is None:
        return
    if not isinstance(affinity, dict):
        findings.wrong_type(path, "a map", affinity)
        return
    for name in affinity:
        if name not in (_REQUIRED, _PREFERRED):
            findings.unknown(f"{path}.{name}")
    for index, term in maps_in(affinity.get(_REQUIRED), f"{path}.{_REQUIRED}", findings):
        _check_pod_term(term, f"{path}.{_REQUIRED}[{index}]", findings)
    for index, entry in maps_in(affinity.get(_PREFERRED), f"{path}.{_PREFERRED}", findings):
        at = f"{path}.{_PREFERRED}[{index}]"
        _check_weighted(entry, "podAffinityTerm", at, findings)
        if isinstance(entry.get("podAffinityTerm"), dict):
            _check_pod_term(entry["podAffinityTerm"], f"{at}.podAffinityTerm", findings)


def check_near(template: PodCliqueSetTemplate, path: str, findings: Findings) -> None:
    """Check that the cliques and groups that cliques want to be near are in the set. *path* is that of the cliques."""
    cliques = {clique.name for clique in template.cliques}
    groups = {group.name for group in template.pod_clique_scaling_groups}
    for index, clique in enumerate(template.cliques):
        text = clique.annotations.get(NEAR)
        if text is None:
            continue
        at = f"{path}[{index}].annotations[{NEAR}]"
        for name in (part.strip() for part in text.split(",")):
            if name == clique.name:
                findings.invalid(at, "must name another clique, or a group")
            elif name not in cliques | groups:
                findings.not_found(at, f"there is no clique or group {quoted(name)}")


def check_spread(annotations: Mapping[str, str], findings: Findings) -> None:
    """Check what a set's annotations say about spreading its copies."""
    text = annotations.get(SPREAD_COPIES)
    if text is not None and (problem := label_key_problem(text)) is not None:
        message = f"must be a domain of the topology or a node label: {problem}"
        findings.invalid(f"metadata.annotations[{SPREAD_COPIES}]", message)
    required = annotations.get(SPREAD_COPIES_REQUIRED)
    at = f"metadata.annotations[{SPREAD_COPIES_REQUIRED}]"
    if required is not None and required not in ("true", "false"):
        findings.not_supported(at, required, ("true", "false"))
    elif required is not None and text is None:
        findings.invalid(at, f"has no effect without {SPREAD_COPIES}")


def _check_weighted(entry: Mapping[str, Any], what: str, path: str, findings: Findings) -> None:
    for name in entry:
        if name not in ("weight", what):
            findings.unknown(f"{path}.{name}")
    weight = entry.get("weight")
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= _WEIGHT_MAX:
        findings.invalid(f"{path}.weight", f"must be a whole number from 1 to {_WEIGHT_MAX}, got {quoted(weight)}")
    if entry.get(what) is None:
        findings.required(f"{path}.{what}")
    elif not isinstance(entry[what], dict):
        findings.wrong_type(f"{path}.{what}", "a map", entry[what])


def _check_pod_term(term: Mapping[str, Any], path: str, findings: Findings) -> None:
    for name in term:
        if name in _KEYS_FIELDS and term[name]:
            findings.forbidden(f"{path}.{name}", "may not be set: write the labels into labelSelector")
        elif name not in _TERM_FIELDS | _KEYS_FIELDS:
            findings.unknown(f"{path}.{name}")
    key = term.get("topologyKey")
    if not key:
        findings.required(f"{path}.topologyKey")
    elif not isinstance(key, str):
        findings.wrong_type(f"{path}.topologyKey", "a string", key)
    elif (problem := label_key_problem(key)) is not None:
        findings.invalid(f"{path}.topologyKey", f"is no valid label key: {problem}")
    if term.get("labelSelector") is not None:
        _check_selector(term["labelSelector"], f"{path}.labelSelector", findings)
    namespaces = term.get("namespaces") or []
    if not isinstance(namespaces, list):
        findings.wrong_type(f"{path}.namespaces", "a list of names", namespaces)
    else:
        for index, name in enumerate(namespaces):
            if not isinstance(name, str) or dns_label_problem(name) is not None:
                findings.invalid(f"{path}.namespaces[{index}]", f"is no name of a namespace: {quoted(name)}")
    if term.get("namespaceSelector"):
        message = "must be empty, which means all namespaces: labels of namespaces are not known here"
        findings.forbidden(f"{path}.namespaceSelector", message)


def _check_selector(selector: object, path: str, findings: Findings) -> None:
    if not isinstance(selector, dict):
        findings.wrong_type(path, "a map", selector)
        return
    for name in selector:
        if name not in ("matchLabels", "matchExpressions"):
            findings.unknown(f"{path}.{name}")
    labels = selector.get("matchLabels") or {}
    if not isinstance(labels, dict):
        findings.wrong_type(f"{path}.matchLabels", "a map", labels)
    else:
        for key, value in labels.items():
            _check_key(key, f"{path}.matchLabels[{key}]", findings)
            if not isinstance(value, str) or label_value_problem(value) is not None:
                findings.invalid(f"{path}.matchLabels[{key}]", f"has no valid label value: {quoted(value)}")
    for index, each in maps_in(selector.get("matchExpressions"), f"{path}.matchExpressions", findings):
        at = f"{path}.matchExpressions[{index}]"
        _check_key(each.get("key"), f"{at}.key", findings)
        values = each.get("values") or []
        if each.get("operator") not in _OPERATORS:
            findings.not_supported(f"{at}.operator", each.get("operator"), _OPERATORS)
        elif not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            findings.wrong_type(f"{at}.values", "a list of strings", values)
        elif bool(values) != (each["operator"] in ("In", "NotIn")):
            findings.invalid(f"{at}.values", f"does not go with operator {each['operator']}")


def _check_key(key: object, path: str, findings: Findings) -> None:
    if not isinstance(key, str):
        findings.wrong_type(path, "a string", key)
    elif (problem := label_key_problem(key)) is not None:
        findings.invalid(path, f"is no valid label key: {problem}")
    elif key == POD_INDEX:
        findings.forbidden(path, "may not be selected by: rules between pods are about cliques, not single pods")
