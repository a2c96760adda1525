"""Rules for what narrows the nodes of a pod: node selector, tolerations, affinity; their meaning is Kubernetes'.

Placement acts on all of them. The rules for wishes and for affinity between pods are `validation_affinity`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.findings import Findings
from grove_server.admission.parts import maps_in
from grove_server.admission.validation_affinity import check_pod_affinity, check_preferred_nodes
from grove_server.resources.labels import label_key_problem, label_value_problem

_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_TOLERATION_OPERATORS: Final = ("Equal", "Exists")
_TOLERATION_FIELDS: Final = frozenset({"key", "operator", "value", "effect", "tolerationSeconds"})
_NODE_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_AFFINITY_FIELDS: Final = frozenset({"nodeAffinity", "podAffinity", "podAntiAffinity"})
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


def check_node_selector(selector: object, path: str, findings: Findings) -> None:
    """Check ``nodeSelector``: labels that a node must have."""
    if not isinstance(selector, dict):
        findings.wrong_type(path, "a map", selector)
        return
    for key, value in selector.items():
        problem = label_key_problem(key)
        if problem is not None:
            findings.invalid(f"{path}[{key}]", f"is no valid label key: {problem}")
        if not isinstance(value, str):
            findings.wrong_type(f"{path}[{key}]", "a string", value)
        elif (problem := label_value_problem(value)) is not None:
            findings.invalid(f"{path}[{key}]", f"has no valid label value: {problem}")


def check_tolerations(tolerations: object, path: str, findings: Findings) -> None:
    """Check ``tolerations``."""
    for index, toleration in maps_in(tolerations, path, findings):
        at = f"{path}[{index}]"
        for name in toleration:
            if name not in _TOLERATION_FIELDS:
                findings.unknown(f"{at}.{name}")
            elif name != "tolerationSeconds" and not isinstance(toleration[name], str | None):
                findings.wrong_type(f"{at}.{name}", "a string", toleration[name])
        operator, effect = toleration.get("operator") or "Equal", toleration.get("effect")
        if operator not in _TOLERATION_OPERATORS:
            findings.not_supported(f"{at}.operator", operator, _TOLERATION_OPERATORS)
        elif operator == "Exists" and toleration.get("value"):
            findings.invalid(f"{at}.value", "must be empty when operator is Exists")
        elif operator == "Equal" and not toleration.get("key"):
            findings.invalid(f"{at}.operator", "must be Exists when key is empty")
        if effect and effect not in _EFFECTS:
            findings.not_supported(f"{at}.effect", effect, _EFFECTS)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            findings.invalid(f"{at}.effect", "must be NoExecute when tolerationSeconds is set")


def check_affinity(affinity: object, path: str, findings: Findings) -> None:
    """Check ``affinity``."""
    if not isinstance(affinity, dict):
        findings.wrong_type(path, "a map", affinity)
        return
    for name in affinity:
        if name not in _AFFINITY_FIELDS:
            findings.unknown(f"{path}.{name}")
        elif name != "nodeAffinity":
            check_pod_affinity(affinity[name], f"{path}.{name}", findings)
    node = affinity.get("nodeAffinity")
    if node is None:
        return
    if not isinstance(node, dict):
        findings.wrong_type(f"{path}.nodeAffinity", "a map", node)
        return
    check_preferred_nodes(node.get(_PREFERRED), f"{path}.nodeAffinity.{_PREFERRED}", _check_term, findings)
    required = node.get(_REQUIRED)
    if required is None:
        return
    terms_path = f"{path}.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
    if not isinstance(required, dict):
        findings.wrong_type(f"{path}.nodeAffinity.{_REQUIRED}", "a map", required)
    elif not required.get("nodeSelectorTerms"):
        findings.required(terms_path, "must have at least one term")
    else:
        for index, term in maps_in(required["nodeSelectorTerms"], terms_path, findings):
            _check_term(term, f"{terms_path}[{index}]", findings)


def _check_term(term: Mapping[str, Any], path: str, findings: Findings) -> None:
    for name in term:
        if name not in ("matchExpressions", "matchFields"):
            findings.unknown(f"{path}.{name}")
    for index, expression in maps_in(term.get("matchExpressions"), f"{path}.matchExpressions", findings):
        _check_expression(expression, f"{path}.matchExpressions[{index}]", findings)
    for index, expression in maps_in(term.get("matchFields"), f"{path}.matchFields", findings):
        at = f"{path}.matchFields[{index}]"
        if expression.get("key") != "metadata.name":
            findings.not_supported(f"{at}.key", expression.get("key"), ("metadata.name",))
        if expression.get("operator") not in ("In", "NotIn"):
            findings.not_supported(f"{at}.operator", expression.get("operator"), ("In", "NotIn"))
        values = expression.get("values")
        if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
            findings.invalid(f"{at}.values", "must be a list of exactly one node name")


def _check_expression(expression: Mapping[str, Any], path: str, findings: Findings) -> None:
    key, operator = expression.get("key"), expression.get("operator")
    if not isinstance(key, str):
        findings.wrong_type(f"{path}.key", "a string", key)
    elif (problem := label_key_problem(key)) is not None:
        findings.invalid(f"{path}.key", f"is no valid label key: {problem}")
    values = expression.get("values") or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        findings.wrong_type(f"{path}.values", "a list of strings", values)
        return
    if operator not in _NODE_OPERATORS:
        findings.not_supported(f"{path}.operator", operator, _NODE_OPERATORS)
    elif operator in ("In", "NotIn"):
        if not values:
            findings.required(f"{path}.values", f"must have at least one value when operator is {operator}")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            findings.forbidden(f"{path}.values", f"may not be set when operator is {operator}")
    elif len(values) != 1 or _INTEGER.fullmatch(values[0]) is None:
        findings.invalid(f"{path}.values", f"must be exactly one whole number when operator is {operator}")
