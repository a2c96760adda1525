"""Where it runs: the cluster as arrays, the gang solver, its verdicts. Pure.

`Cluster` owns the state, `place` decides one gang, `Cluster.reserve` makes the decision real.
"""

from grove_server.placement.cluster import (
    Cluster,
    ClusterError,
    GpuConflictError,
    NodeInvalidError,
    StalePlacementError,
    UnknownNodeError,
)
from grove_server.placement.nodes import Effect, NodeState, Taint
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.requests import (
    GPU_RESOURCE,
    Budget,
    CliqueRequest,
    DomainPath,
    GangRequest,
    GroupRequest,
    InvalidRequestError,
    Operator,
    PodShape,
    Preference,
    Requirement,
    SelectorTerm,
    Toleration,
)
from grove_server.placement.results import (
    CliquePlacement,
    DomainChoice,
    DomainReport,
    Exclusion,
    ExclusionKind,
    LevelReport,
    Placement,
    PodBinding,
    Reason,
    Remedy,
    RemedyKind,
    ScopeKind,
    Verdict,
    VerdictCode,
)
from grove_server.placement.stranding import Mix

__all__ = [
    "DEFAULT_BUDGET",
    "GPU_RESOURCE",
    "Budget",
    "CliquePlacement",
    "CliqueRequest",
    "Cluster",
    "ClusterError",
    "DomainChoice",
    "DomainPath",
    "DomainReport",
    "Effect",
    "Exclusion",
    "ExclusionKind",
    "GangRequest",
    "GpuConflictError",
    "GroupRequest",
    "InvalidRequestError",
    "LevelReport",
    "Mix",
    "NodeInvalidError",
    "NodeState",
    "Operator",
    "Placement",
    "PodBinding",
    "PodShape",
    "Preference",
    "Reason",
    "Remedy",
    "RemedyKind",
    "Requirement",
    "ScopeKind",
    "SelectorTerm",
    "StalePlacementError",
    "Taint",
    "Toleration",
    "UnknownNodeError",
    "Verdict",
    "VerdictCode",
    "place",
]
