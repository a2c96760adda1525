"""The environment of a container, and ``$(VAR)`` in what refers to it. Pure.

Sources: Kubernetes, "Define Dependent Environment Variables" and "Expose Pod Information to Containers Through
Environment Variables"; the expansion is that of its ``third_party/forked/golang/expansion``: ``$$`` stands for ``$``,
and a reference to what is not defined stays as it is written.

Order, later ones win: what the machine gives every container, ``HOSTNAME`` and ``POD_IP``, the container's own list
(the ``GROVE_*`` variables first), the pinning of GPUs. ``$(VAR)`` refers to ``POD_IP`` and to what stands earlier in
the list, never to the machine's variables: a manifest means the same on every machine.

Not here: what a container runs (``pod_reading``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

from grove_server.lifecycle.pod_manifest import pod_annotations
from grove_server.resources.labels import POD_INDEX
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.violations import quoted
from grove_server.resources.workload import Pod
from grove_server.runtime.process.pod_plan import NodeFacts
from grove_server.runtime.process.refusals import Fields, Refusals

POD_IP: Final = "POD_IP"
HOSTNAME: Final = "HOSTNAME"
GPU_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
GPU_ORDER_VARIABLE: Final = "CUDA_DEVICE_ORDER"
# NVML numbers GPUs by their places on the bus; CUDA does so only when asked.
GPU_ORDER: Final = "PCI_BUS_ID"

# Linux: one string handed to a program (MAX_ARG_STRLEN), its name and the separator included.
TEXT_BYTES_MAX: Final = 128 * 1024 - 1
# Half of what Linux hands to a program by default (a quarter of an 8 MiB stack), so that arguments have room too.
ENVIRONMENT_BYTES_MAX: Final = 1024 * 1024

_SOURCES: Final = ("fieldRef", "resourceFieldRef", "secretKeyRef", "configMapKeyRef")
_ENTRY: Final = re.compile(r"metadata\.(?P<map>labels|annotations)\['(?P<key>[^']*)'\]")


class ExpansionError(ValueError):
    """An expansion is longer than what can be handed to a program."""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return *text* with its references replaced; raise ExpansionError if it gets too long."""
    if "$" not in text:
        return text
    parts: list[str] = []
    size = position = 0
    while True:
        dollar = text.find("$", position)
        part = text[position:] if dollar < 0 else text[position:dollar]
        if dollar >= 0:
            value, position = _reference(text, dollar, variables)
            part += value
        parts.append(part)
        size += len(part)
        if size > TEXT_BYTES_MAX:
            raise ExpansionError(f"is longer than {TEXT_BYTES_MAX} bytes when it is expanded")
        if dollar < 0:
            return "".join(parts)


def _reference(text: str, dollar: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """Return what stands for the reference at *dollar*, and where the text goes on."""
    follower = text[dollar + 1 : dollar + 2]
    if follower == "$":
        return "$", dollar + 2
    if follower != "(":
        return f"${follower}", dollar + 2
    end = text.find(")", dollar)
    if end < 0:
        return "$(", dollar + 2
    name = text[dollar + 2 : end]
    return variables.get(name, f"$({name})"), end + 1


def environment_of(
    container: Fields, pod: Pod, facts: NodeFacts, *, pod_ip: str, hostname: str, siblings: Mapping[str, Fields]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return (whole environment, the variables that ``$(VAR)`` may refer to) of one container.

    *siblings* are all containers by name, for a resourceFieldRef.
    """
    declared = {POD_IP: pod_ip}
    refusals = container.refusals
    for variable in container.objects("env"):
        name = variable.text("name")
        if not name or "=" in name:
            refusals.refuse_value(variable.at("name"), "the name of a variable", name)
            continue
        # By name: the GROVE_ variables in front shift the numbers that the manifest's author knows.
        variable.path = f"{container.at('env')}[{name}]"
        if "valueFrom" in variable:
            value = _referred(variable.fields("valueFrom"), container, pod, facts, pod_ip, siblings)
        else:
            value = _expanded_at(variable.text("value"), declared, variable.at("value"), refusals)
        if value is not None:
            declared[name] = value
    if "envFrom" in container:
        refusals.leave_out(container.at("envFrom"), "there are no ConfigMaps and Secrets here")
    whole = {**facts.environment, HOSTNAME: hostname, **declared}
    if sum(len(name) + len(value) for name, value in whole.items()) > ENVIRONMENT_BYTES_MAX:
        refusals.refuse(container.at("env"), f"must not be larger than {ENVIRONMENT_BYTES_MAX} bytes")
    return whole, declared


def with_gpus(environment: dict[str, str], gpu_ids: tuple[int, ...], container: Fields) -> dict[str, str]:
    """Return *environment* with the container pinned to its GPUs; one without GPUs sees none."""
    pinned = ",".join(map(str, gpu_ids))
    own = {variable.raw("name") for variable in container.objects("env")}
    if GPU_VARIABLE in own and environment.get(GPU_VARIABLE) != pinned:
        why = f"the server pins containers to their GPUs: {quoted(pinned)} is set"
        container.refusals.leave_out(f"{container.at('env')}[{GPU_VARIABLE}]", why)
    return {**environment, GPU_VARIABLE: pinned, GPU_ORDER_VARIABLE: GPU_ORDER}


def _expanded_at(text: str, variables: Mapping[str, str], path: str, refusals: Refusals) -> str:
    try:
        return expanded(text, variables)
    except ExpansionError as error:
        refusals.refuse(path, str(error))
        return ""


def _referred(
    source: Fields, container: Fields, pod: Pod, facts: NodeFacts, pod_ip: str, siblings: Mapping[str, Fields]
) -> str | None:
    """Return the value that a valueFrom stands for; None if there is none."""
    if "fieldRef" in source:
        reference = source.fields("fieldRef")
        path = reference.text("fieldPath")
        value = _field(path, pod, facts, pod_ip)
        if value is None:
            reference.refusals.refuse_value(reference.at("fieldPath"), "a field that a fieldRef can name", path)
        return value
    if "resourceFieldRef" in source:
        reference = source.fields("resourceFieldRef")
        name = reference.text("containerName")
        named = siblings.get(name) if name else container
        if named is None:
            reference.refusals.refuse_value(reference.at("containerName"), "the name of a container", name)
            return None
        return _resource(reference, named, facts)
    for name in source:
        reference = source.fields(name)
        if name not in _SOURCES:
            source.refusals.leave_out(source.at(name), "this source of a value is not known here")
        elif not reference.flag("optional"):
            source.refusals.leave_out(source.at(name), "there are no ConfigMaps and Secrets here")
    return None


def _field(path: str, pod: Pod, facts: NodeFacts, pod_ip: str) -> str | None:
    entry = _ENTRY.fullmatch(path)
    if entry is not None:
        key = entry["key"]
        if entry["map"] == "annotations":
            return pod_annotations(pod).get(key, "")
        return pod.metadata.labels.get(key, str(pod.index) if key == POD_INDEX else "")
    readers: Mapping[str, Callable[[], str]] = {
        "metadata.name": lambda: pod.metadata.name,
        "metadata.namespace": lambda: pod.metadata.namespace,
        "metadata.uid": lambda: pod.metadata.uid,
        "spec.nodeName": lambda: facts.name,
        "spec.serviceAccountName": lambda: "",
        "status.hostIP": lambda: facts.address,
        "status.hostIPs": lambda: facts.address,
        "status.podIP": lambda: pod_ip,
        "status.podIPs": lambda: pod_ip,
    }
    reader = readers.get(path)
    return None if reader is None else reader()


def _resource(reference: Fields, container: Fields, facts: NodeFacts) -> str | None:
    """Return limits or requests in units of the divisor, rounded up; without a limit, what the node has."""
    path = reference.text("resource")
    sort, _, name = path.partition(".")
    if sort not in ("limits", "requests") or not name:
        reference.refusals.refuse_value(reference.at("resource"), "such as limits.memory", path)
        return None
    resources = container.fields("resources")
    amount: Any = resources.fields(sort).raw(name)
    if amount is None:
        amount = resources.fields("limits").raw(name) if sort == "requests" else facts.allocatable.get(name)
    divisor = reference.raw("divisor")
    try:
        units = parse_quantity(str(divisor)) if divisor else parse_quantity("1")
        value = parse_quantity(str(amount)) if amount is not None else parse_quantity("0")
    except QuantityError as error:
        reference.refusals.refuse(reference.path, f"an amount of {path} {error}")
        return None
    if units.nano <= 0:
        # As in Kubernetes, where "0" stands for 1.
        units = parse_quantity("1")
    return str(-(-Fraction(value.nano, units.nano) // 1))
