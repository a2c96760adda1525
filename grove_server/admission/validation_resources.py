"""Rules for resource requests and limits, as Kubernetes has them.

Amounts are valid and not negative; a request is at most its limit; what cannot be overcommitted (extended resources
such as nvidia.com/gpu, and huge pages) is asked for in whole units, with request and limit equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grove_server.admission.findings import Findings
from grove_server.resources.labels import label_key_problem
from grove_server.resources.quantity import Quantity, QuantityError, parse_quantity
from grove_server.resources.violations import quoted

_FIELDS: Final = frozenset({"limits", "requests", "claims"})
_STANDARD: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_HUGE_PAGES: Final = "hugepages-"
_NATIVE_DOMAIN: Final = "kubernetes.io/"


def check_resources(resources: object, path: str, findings: Findings) -> None:
    """Check the ``resources`` of a container or pod."""
    if not isinstance(resources, dict):
        findings.wrong_type(path, "a map", resources)
        return
    for key in resources:
        if key not in _FIELDS:
            findings.unknown(f"{path}.{key}")
    limits = check_amounts(resources.get("limits"), f"{path}.limits", findings)
    requests = check_amounts(resources.get("requests"), f"{path}.requests", findings)
    for name, request in requests.items():
        limit = limits.get(name)
        if limit is not None and request > limit:
            message = f"must be at most the limit ({limit}), got {request}"
            findings.invalid(f"{path}.requests[{name}]", message)
        elif is_overcommittable(name):
            continue
        elif limit is None:
            findings.required(f"{path}.limits[{name}]", f"is required: {name} cannot be overcommitted")
        elif request != limit:
            message = f"must equal the limit ({limit}), got {request}: {name} cannot be overcommitted"
            findings.invalid(f"{path}.requests[{name}]", message)


def is_overcommittable(name: str) -> bool:
    """Return whether requests for the resource may be below its limit."""
    return name in _STANDARD


def is_extended(name: str) -> bool:
    """Return whether *name* is a resource that Kubernetes itself does not know, such as nvidia.com/gpu."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and not f".{domain}/".endswith(f".{_NATIVE_DOMAIN}")


def check_amounts(amounts: object, path: str, findings: Findings) -> Mapping[str, Quantity]:
    """Check one map of amounts, and return those that are valid."""
    if amounts is None:
        return {}
    if not isinstance(amounts, dict):
        findings.wrong_type(path, "a map", amounts)
        return {}
    valid: dict[str, Quantity] = {}
    for name, amount in amounts.items():
        problem = _name_problem(name)
        if problem is not None:
            findings.invalid(f"{path}[{name}]", problem)
        if isinstance(amount, bool) or not isinstance(amount, str | int | float):
            findings.wrong_type(f"{path}[{name}]", "a quantity", amount)
            continue
        try:
            quantity = parse_quantity(str(amount))
        except QuantityError as error:
            findings.invalid(f"{path}[{name}]", f"{error}, got {quoted(amount)}")
            continue
        if quantity.nano < 0:
            findings.invalid(f"{path}[{name}]", f"must not be negative, got {quoted(amount)}")
        elif name not in _STANDARD and not quantity.is_whole():
            findings.invalid(f"{path}[{name}]", f"must be a whole number of units, got {quoted(amount)}")
        else:
            valid[name] = quantity
    return valid


def _name_problem(name: str) -> str | None:
    if name in _STANDARD or name.startswith(_HUGE_PAGES):
        return None
    problem = label_key_problem(name)
    if problem is not None:
        return f"is no resource name: {problem}"
    if not is_extended(name):
        return "is no resource: use cpu, memory, ephemeral-storage, hugepages-<size>, or a name such as nvidia.com/gpu"
    return None
