"""This machine as a node: its capacity, what is reserved, its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grove_server.runtime.process.machine import (
    Machine,
    MachineError,
    allocatable_of,
    capacity_of,
    node_name,
    parse_reservations,
    read_machine,
)

GIB = 1 << 30
MACHINE = Machine(name="box", cpu_count=16, memory_bytes=64 * GIB, storage_bytes=500 * GIB)


def test_the_machine_is_read(tmp_path: Path) -> None:
    """A machine has the processors that this process may use, and no more memory than its control group leaves."""
    machine = read_machine(tmp_path, memory_limit_bytes=1 << 20)
    assert machine.cpu_count == len(os.sched_getaffinity(0))
    assert machine.memory_bytes == 1 << 20
    assert machine.storage_bytes > 0
    assert machine.boot_id
    assert machine.labels["kubernetes.io/os"] == "linux"
    assert read_machine(tmp_path).memory_bytes > 1 << 20


def test_what_is_reserved_is_not_offered() -> None:
    """Reservations come off what pods may use, broken GPUs as well; the capacity stays."""
    capacity = capacity_of(MACHINE, gpu_count=8, pods_max=50)
    left = allocatable_of(capacity, parse_reservations("cpu=1500m, memory=4Gi,nvidia.com/gpu=1"), broken_gpus=2)
    assert left == {
        "cpu": "14500m",
        "memory": str(60 * GIB),
        "ephemeral-storage": str(500 * GIB),
        "pods": "50",
        "nvidia.com/gpu": "5",
    }
    assert capacity["nvidia.com/gpu"] == "8"


@pytest.mark.parametrize("text", ["cpu", "cpu=", "cpu=x", "cpu=-1", "pods=3", "cpu=1,cpu=2", "=1"])
def test_reservations_that_make_no_sense_are_refused(text: str) -> None:
    """Whoever reserves what there is not, or not as a quantity, is told."""
    with pytest.raises(MachineError):
        parse_reservations(text)


def test_no_more_can_be_reserved_than_there_is() -> None:
    """A reservation beyond the capacity is an error, not an empty node."""
    with pytest.raises(MachineError, match="more cpu is reserved"):
        allocatable_of(capacity_of(MACHINE, gpu_count=0, pods_max=1), parse_reservations("cpu=17"), broken_gpus=0)


@pytest.mark.parametrize(
    ("hostname", "name"),
    [("gpu-7.example.com", "gpu-7.example.com"), ("Anna's Laptop", "anna-s-laptop"), ("__", "this-machine")],
)
def test_any_hostname_becomes_the_name_of_a_node(hostname: str, name: str) -> None:
    """What Kubernetes would not take as a name is made to fit."""
    assert node_name(hostname) == name
