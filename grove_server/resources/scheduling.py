"""The schema of what decides whose turn it is: PriorityClass (as Kubernetes has it) and Queue, as users write them.

A PriorityClass has its fields at the top, without a spec. Quantities of a queue may be written as strings or numbers,
as in a pod spec, so their types are admission's. What is made of them and stored is in ``priority`` and ``queues``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from grove_server.resources.manifest import ManifestMetadata
from grove_server.resources.meta import SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityClassManifest:
    """A PriorityClass document."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    api_version: str
    kind: str
    metadata: ManifestMetadata
    value: int
    global_default: bool = False
    description: str = ""
    preemption_policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueManifestSpec:
    """What is asked of a queue; None is what was left out."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    parent: str = ""
    guarantee: Mapping[str, Any] | None = None
    limit: Mapping[str, Any] | None = None
    weight: float | None = None
    priority: int | None = None
    blocking: str | None = None
    earmark_after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueManifest:
    """A Queue document; ``status`` is accepted and ignored."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    api_version: str
    kind: str
    metadata: ManifestMetadata
    spec: QueueManifestSpec = field(default_factory=QueueManifestSpec)
    status: Mapping[str, Any] | None = None
