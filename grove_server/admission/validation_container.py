"""Rules for the containers of a pod spec: names, environment, ports, resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.context import Limits
from grove_server.admission.findings import Findings
from grove_server.admission.validation_resources import check_resources
from grove_server.resources.names import dns_label_problem
from grove_server.resources.violations import quoted

# Kubernetes 1.35, core/v1 Container.
_FIELDS: Final = frozenset(
    {
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resizePolicy",
        "resources",
        "restartPolicy",
        "restartPolicyRules",
        "securityContext",
        "startupProbe",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeDevices",
        "volumeMounts",
        "workingDir",
    }
)
_VARIABLE_FIELDS: Final = frozenset({"name", "value", "valueFrom"})
_VARIABLE: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_STRINGS: Final = ("image", "imagePullPolicy", "workingDir")
_STRING_LISTS: Final = ("command", "args")
_PORT_MAX: Final = 65535
_PROTOCOLS: Final = ("TCP", "UDP", "SCTP")

# Set by the server in each container; a template's own value of the same name would be lost.
_SERVER_VARIABLES: Final = frozenset(
    {
        "GROVE_HEADLESS_SERVICE",
        "GROVE_PCLQ_NAME",
        "GROVE_PCLQ_POD_INDEX",
        "GROVE_PCS_INDEX",
        "GROVE_PCS_NAME",
        "GROVE_PCSG_INDEX",
        "GROVE_PCSG_NAME",
        "GROVE_PCSG_POD_INDEX",
        "GROVE_PCSG_TEMPLATE_NUM_PODS",
    }
)


def check_containers(pod_spec: Mapping[str, Any], path: str, limits: Limits, findings: Findings) -> None:
    """Check all containers of a pod spec; names are unique over both lists, and one ordinary container is needed."""
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        containers = pod_spec.get(field)
        if containers is None:
            containers = []
        if not isinstance(containers, list):
            findings.wrong_type(f"{path}.{field}", "a list", containers)
            continue
        if not containers and field == "containers":
            findings.required(f"{path}.containers", "must have at least one container")
        if len(containers) > limits.containers_max:
            findings.too_many(f"{path}.{field}", len(containers), limits.containers_max, "containers")
            continue
        for index, container in enumerate(containers):
            if isinstance(container, dict):
                _check_container(container, f"{path}.{field}[{index}]", names, limits, findings)
            else:
                findings.wrong_type(f"{path}.{field}[{index}]", "a map", container)


def _check_container(
    container: Mapping[str, Any], path: str, names: set[str], limits: Limits, findings: Findings
) -> None:
    if not container.keys() <= _FIELDS:
        for key in container:
            if key not in _FIELDS:
                findings.unknown(f"{path}.{key}")
    _check_name(container.get("name"), f"{path}.name", names, findings)
    for field in _STRINGS:
        value = container.get(field)
        if value is not None and not isinstance(value, str):
            findings.wrong_type(f"{path}.{field}", "a string", value)
    for field in _STRING_LISTS:
        values = container.get(field)
        if values is not None:
            _check_strings(values, f"{path}.{field}", findings)
    if (variables := container.get("env")) is not None:
        _check_environment(variables, f"{path}.env", limits, findings)
    if (ports := container.get("ports")) is not None:
        _check_ports(ports, f"{path}.ports", findings)
    if (resources := container.get("resources")) is not None:
        check_resources(resources, f"{path}.resources", findings)


def _check_name(name: object, path: str, names: set[str], findings: Findings) -> None:
    if name is None:
        findings.required(path)
    elif not isinstance(name, str):
        findings.wrong_type(path, "a string", name)
    elif (problem := dns_label_problem(name)) is not None:
        findings.invalid(path, problem)
    elif name in names:
        findings.duplicate(path, name)
    else:
        names.add(name)


def _check_strings(values: object, path: str, findings: Findings) -> None:
    if not isinstance(values, list):
        findings.wrong_type(path, "a list of strings", values)
        return
    for index, value in enumerate(values):
        if not isinstance(value, str):
            findings.wrong_type(f"{path}[{index}]", "a string", value)


def _check_environment(variables: object, path: str, limits: Limits, findings: Findings) -> None:
    if not isinstance(variables, list):
        findings.wrong_type(path, "a list", variables)
        return
    if len(variables) > limits.environment_variables_max:
        findings.too_many(path, len(variables), limits.environment_variables_max, "variables")
        return
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        if not isinstance(variable, dict):
            findings.wrong_type(f"{path}[{index}]", "a map", variable)
            continue
        _check_variable(variable, f"{path}[{index}]", findings)
        name = variable.get("name")
        if not isinstance(name, str):
            continue
        if name in seen:
            findings.duplicate(f"{path}[{index}].name", name)
        seen.add(name)


def _check_variable(variable: Mapping[str, Any], path: str, findings: Findings) -> None:
    if not variable.keys() <= _VARIABLE_FIELDS:
        for key in variable:
            if key not in _VARIABLE_FIELDS:
                findings.unknown(f"{path}.{key}")
    name, value = variable.get("name"), variable.get("value")
    if name is None:
        findings.required(f"{path}.name")
    elif not isinstance(name, str):
        findings.wrong_type(f"{path}.name", "a string", name)
    elif _VARIABLE.fullmatch(name) is None or name == "." or name.startswith(".."):
        message = f"must consist of letters, digits, '_', '-' and '.', and not start with a digit, got {quoted(name)}"
        findings.invalid(f"{path}.name", message)
    elif name in _SERVER_VARIABLES:
        findings.warn(f"{path}: {name} is set by the server, which replaces this value")
    if value is not None and not isinstance(value, str):
        findings.wrong_type(f"{path}.value", "a string", value)
    if (source := variable.get("valueFrom")) is not None:
        if not isinstance(source, dict):
            findings.wrong_type(f"{path}.valueFrom", "a map", source)
        if value:
            findings.invalid(f"{path}.valueFrom", "may not be set together with value")


def _check_ports(ports: object, path: str, findings: Findings) -> None:
    if not isinstance(ports, list):
        findings.wrong_type(path, "a list", ports)
        return
    for index, port in enumerate(ports):
        if not isinstance(port, dict):
            findings.wrong_type(f"{path}[{index}]", "a map", port)
            continue
        number = port.get("containerPort")
        if number is None:
            findings.required(f"{path}[{index}].containerPort")
        elif not isinstance(number, int) or isinstance(number, bool):
            findings.wrong_type(f"{path}[{index}].containerPort", "a whole number", number)
        elif not 1 <= number <= _PORT_MAX:
            findings.invalid(f"{path}[{index}].containerPort", f"must be between 1 and {_PORT_MAX}, got {number}")
        protocol = port.get("protocol")
        if protocol is not None and protocol not in _PROTOCOLS:
            findings.not_supported(f"{path}[{index}].protocol", protocol, _PROTOCOLS)
