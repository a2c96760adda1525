"""This machine as a node: what it has, what pods may use of it, and how it is labelled.

Rules: what limits this process limits the node: the processors it may run on, the memory of its control group. What is
reserved (``--reserve``) is taken from what pods are offered, never from what the machine has. A node keeps its name,
whatever the machine is called later: pods are bound to it.

Not here: finding GPUs (``gpus``), keeping the node's row in the store (``node_keeping``).
"""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from grove_server.placement.requests import GPU_RESOURCE
from grove_server.resources.names import LABEL_LENGTH_MAX, dns_subdomain_problem
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.violations import quoted

RESERVABLE: Final = ("cpu", "memory", "ephemeral-storage", GPU_RESOURCE)
NAME_DEFAULT: Final = "this-machine"

_MEMORY_TOTAL: Final = re.compile(r"^MemTotal:\s+([0-9]+) kB$", re.MULTILINE)
# What Kubernetes calls the architectures that Python names differently.
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class MachineError(ValueError):
    """The machine cannot be a node, or a reservation makes no sense; the text is for whoever started the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine has, before GPUs: processors (whole), memory and storage in bytes."""

    name: str
    cpu_count: int
    memory_bytes: int
    storage_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)
    boot_id: str = ""


def read_machine(data_dir: Path, *, proc: Path = Path("/proc"), memory_limit_bytes: int | None = None) -> Machine:
    """Look at this machine. *memory_limit_bytes* is what its control group leaves to this process, None: all."""
    try:
        memory = _MEMORY_TOTAL.search((proc / "meminfo").read_text(encoding="ascii"))
        boot_id = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        disk = os.statvfs(data_dir)
    except OSError as error:
        raise MachineError(f"this machine cannot be looked at: {error}") from error
    if memory is None:
        raise MachineError(f"{proc / 'meminfo'} does not say how much memory there is")
    memory_bytes = int(memory[1]) * 1024
    if memory_limit_bytes is not None:
        memory_bytes = min(memory_bytes, memory_limit_bytes)
    machine = platform.machine()
    return Machine(
        name=node_name(socket.gethostname()),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=memory_bytes,
        storage_bytes=disk.f_frsize * disk.f_blocks,
        labels={"kubernetes.io/arch": _ARCHITECTURES.get(machine, machine), "kubernetes.io/os": "linux"},
        boot_id=boot_id,
    )


def node_name(hostname: str) -> str:
    """Return the name of the node of a machine called *hostname*: the same where that is a name for a node."""
    text = re.sub(r"[^a-z0-9.-]+", "-", hostname.lower())[:LABEL_LENGTH_MAX].strip("-.")
    return NAME_DEFAULT if dns_subdomain_problem(text) is not None else text


def parse_reservations(text: str) -> dict[str, int]:
    """Return what is reserved by resource: thousandths for cpu, bytes or pieces for the rest.

    *text* is ``cpu=1,memory=2Gi``; empty reserves nothing. Raises MachineError for what makes no sense.
    """
    reserved: dict[str, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        resource, separator, amount = part.partition("=")
        if not separator or resource not in RESERVABLE:
            raise MachineError(f"{quoted(part)} is not RESOURCE=AMOUNT with one of {', '.join(RESERVABLE)}")
        if resource in reserved:
            raise MachineError(f"{resource} is reserved twice")
        try:
            quantity = parse_quantity(amount)
        except QuantityError as error:
            raise MachineError(f"{resource}: {quoted(amount)} {error}") from error
        if quantity.nano < 0:
            raise MachineError(f"{resource}: {quoted(amount)} must not be negative")
        reserved[resource] = quantity.milli() if resource == "cpu" else quantity.whole()
    return reserved


def capacity_of(machine: Machine, *, gpu_count: int, pods_max: int) -> dict[str, str]:
    """Return all that *machine* has, as Kubernetes quantities."""
    capacity = {
        "cpu": str(machine.cpu_count),
        "memory": str(machine.memory_bytes),
        "ephemeral-storage": str(machine.storage_bytes),
        "pods": str(pods_max),
    }
    if gpu_count:
        capacity[GPU_RESOURCE] = str(gpu_count)
    return capacity


def allocatable_of(capacity: Mapping[str, str], reserved: Mapping[str, int], *, broken_gpus: int) -> dict[str, str]:
    """Return what pods may use of *capacity*. Raises MachineError when more is reserved than there is."""
    left = dict(capacity)
    for resource, amount in reserved.items():
        there = parse_quantity(capacity.get(resource, "0"))
        is_cpu = resource == "cpu"
        rest = (there.milli() if is_cpu else there.whole()) - amount
        if rest < 0:
            raise MachineError(f"more {resource} is reserved than the {capacity.get(resource, '0')} that there is")
        left[resource] = f"{rest}m" if is_cpu and rest % 1000 else str(rest // 1000 if is_cpu else rest)
    if broken_gpus:
        left[GPU_RESOURCE] = str(max(int(left[GPU_RESOURCE]) - broken_gpus, 0))
    return left
