"""What admission needs to know of the world, and its bounds; all of it handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from grove_server.resources.manifest import PodCliqueSetSpec
from grove_server.resources.queues import QueueSpec
from grove_server.resources.scaling_policy import ScalingPolicySpec

INT32_MAX: Final = 2**31 - 1
# The name under which this server places pods (and binds them, on Kubernetes).
SCHEDULER_NAME: Final = "grove-scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one resource may hold; all are counts."""

    pods_per_set_max: int = 20_000
    copies_max: int = 20_000
    cliques_max: int = 128
    groups_max: int = 64
    containers_max: int = 64
    environment_variables_max: int = 1_000
    labels_max: int = 256
    sharing_entries_max: int = 64
    metrics_max: int = 32
    topology_levels_max: int = 16
    scheduler_bindings_max: int = 16


Misfit: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, str], int], str]
"""Says why so many pods of a spec and a template's annotations can never run at once; "" if they can."""


TemplatePods: TypeAlias = tuple[Mapping[str, Any], Mapping[str, str], int]
"""Spec and annotations of a template's pods, and how many of them run together at least."""

BeyondLimits: TypeAlias = Callable[[str, Mapping[str, QueueSpec], Iterable[TemplatePods]], str]
"""Says which limits of a queue, or of those above it, so many pods exceed by themselves; "" if none."""


def _within_limits(_queue: str, _queues: Mapping[str, QueueSpec], _pods: Iterable[TemplatePods]) -> str:
    return ""


def _fits_somewhere(_spec: Mapping[str, Any], _annotations: Mapping[str, str], _together: int) -> str:
    return ""


def _none_taken(_normalised: str) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionContext:
    """The world as one request sees it.

    ``bindings`` maps the name of each ClusterTopologyBinding to its domains, broadest first. ``uid`` and ``now`` (epoch
    seconds) go to what is created. ``name_patterns_taken`` answers, for one normalised pattern, the (set name, pattern)
    pairs of the request's namespace that have it. ``global_defaults`` says of each PriorityClass whether it is the
    default, ``node_address`` gives a new node an address that no other has, ``queues`` are the queues by name; those
    of the text at hand are in both, as they are in ``sets`` and ``scaling_policies``, which go by "namespace/name".
    ``schedulers_enabled`` are the backends known here, of which a ClusterTopologyBinding may name those in
    ``schedulers_with_topology`` (by default, those of Grove's chart and ours). ``misfit`` and ``beyond_limits`` make
    warnings only, for nodes come and go, and limits change.
    """

    now: float
    uid: str
    bindings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    default_namespace: str = "default"
    name_patterns_taken: Callable[[str], Iterable[tuple[str, str]]] = _none_taken
    misfit: Misfit = _fits_somewhere
    beyond_limits: BeyondLimits = _within_limits
    node_address: Callable[[], str] = str
    scheduler_name: str = SCHEDULER_NAME
    global_defaults: Mapping[str, bool] = field(default_factory=dict)
    queues: Mapping[str, QueueSpec] = field(default_factory=dict)
    sets: Mapping[str, PodCliqueSetSpec] = field(default_factory=dict)
    scaling_policies: Mapping[str, ScalingPolicySpec] = field(default_factory=dict)
    schedulers_enabled: tuple[str, ...] = (SCHEDULER_NAME, "kai-scheduler", "default-scheduler")
    schedulers_with_topology: tuple[str, ...] = (SCHEDULER_NAME, "kai-scheduler")
