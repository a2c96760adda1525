"""What a gang is made of: its pod groups, and the topology constraints on it and on parts of it.

Not here: the gang itself and what is true of it (``workload``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from grove_server.resources.meta import SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelConstraint:
    """A topology constraint translated to node label keys; None where nothing is asked."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    required: str | None = None
    preferred: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodGroup:
    """One clique's part of a gang: its pods, and how many of them the gang cannot do without."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    pods: tuple[str, ...] = ()
    min_replicas: int
    topology_constraint: LevelConstraint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyGroup:
    """Pod groups that share a constraint (one group replica)."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    pod_group_names: tuple[str, ...]
    topology_constraint: LevelConstraint | None = None
