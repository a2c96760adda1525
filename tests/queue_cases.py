"""Queues and priority classes for tests, and a short way from a manifest to what admission says about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted
from grove_server.admission.priority_class import admit_priority_class
from grove_server.admission.queue import admit_queue, queue_spec
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue, QueueSpec
from grove_server.resources.schema import parse_priority_class, parse_queue
from tests.manifest_cases import CONTEXT, Json

GPU: Final = "nvidia.com/gpu"


def queue(name: str, **spec: Any) -> Json:  # noqa: ANN401 -- any JSON
    """Return a Queue manifest."""
    return {"apiVersion": "grove.io/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec}


def priority_class(name: str = "high", value: object = 1000, **fields: object) -> Json:
    """Return a PriorityClass manifest."""
    head = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
    return {**head, "value": value, **fields}


def admit_queue_among(manifest: Json, *others: Json, old: Queue | None = None) -> Admitted[Queue]:
    """Parse and admit a Queue in a world that has it and *others*."""
    parsed = parse_queue(json.dumps(manifest).encode())
    specs = {each["metadata"]["name"]: queue_spec(parse_queue(json.dumps(each).encode()).spec) for each in others}
    context = world_of(specs | {parsed.metadata.name: queue_spec(parsed.spec)})
    return admit_queue(parsed, old, context)


def world_of(specs: Mapping[str, QueueSpec]) -> AdmissionContext:
    """Return the context of tests with these queues."""
    return replace(CONTEXT, queues=specs)


def admit_class(manifest: Json, *, old: PriorityClass | None = None, **defaults: bool) -> Admitted[PriorityClass]:
    """Parse and admit a PriorityClass in a world with *defaults*: of each class whether it is the default."""
    return admit_priority_class(
        parse_priority_class(json.dumps(manifest).encode()), old, replace(CONTEXT, global_defaults=defaults)
    )
