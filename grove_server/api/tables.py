"""Who may call which method, and how long it may take: one line per RPC of the contract.

A test walks the service descriptors and fails for a method that is missing here. Health and reflection are open to
everybody who can connect.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple


class Access(enum.IntEnum):
    """Roles, each including those before it. NONE asks for nothing but a connection."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


class Deadline(NamedTuple):
    """Seconds for one call: when the client gives no deadline, and at most. None: a stream without an end."""

    default_s: float | None
    max_s: float | None


_READ: Final = Deadline(10.0, 60.0)
_LIST: Final = Deadline(30.0, 120.0)
_CHANGE: Final = Deadline(30.0, 120.0)
_QUESTION: Final = Deadline(30.0, 300.0)
_ENDLESS: Final = Deadline(None, None)

# Kinds that belong to the whole cluster: everybody may look, changing them is an operator's business.
_OPERATORS: Final[Mapping[str, tuple[Access, Deadline]]] = {
    "Apply": (Access.ADMIN, _CHANGE),
    "Create": (Access.ADMIN, _CHANGE),
    "Get": (Access.READ, _READ),
    "List": (Access.READ, _LIST),
    "Update": (Access.ADMIN, _CHANGE),
    "Delete": (Access.ADMIN, _CHANGE),
    "Watch": (Access.READ, _ENDLESS),
}

_SERVICES: Final[Mapping[str, Mapping[str, tuple[Access, Deadline]]]] = {
    "PodCliqueSetService": {
        "Apply": (Access.WRITE, _CHANGE),
        "Create": (Access.WRITE, _CHANGE),
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Update": (Access.WRITE, _CHANGE),
        "Delete": (Access.WRITE, _CHANGE),
        "Watch": (Access.READ, _ENDLESS),
        "Scale": (Access.WRITE, _CHANGE),
        "PauseRollout": (Access.WRITE, _CHANGE),
        "ResumeRollout": (Access.WRITE, _CHANGE),
        "UndoRollout": (Access.WRITE, _CHANGE),
        "RestartRollout": (Access.WRITE, _CHANGE),
        "ListRevisions": (Access.READ, _READ),
    },
    "PodCliqueService": {
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Watch": (Access.READ, _ENDLESS),
        "Scale": (Access.WRITE, _CHANGE),
    },
    "PodCliqueScalingGroupService": {
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Watch": (Access.READ, _ENDLESS),
        "Scale": (Access.WRITE, _CHANGE),
    },
    "PodGangService": {
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Watch": (Access.READ, _ENDLESS),
        "Explain": (Access.READ, _QUESTION),
    },
    "PodService": {
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Watch": (Access.READ, _ENDLESS),
        "Delete": (Access.WRITE, _CHANGE),
    },
    # Nodes belong to the whole cluster, too.
    "NodeService": {
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Watch": (Access.READ, _ENDLESS),
        "Cordon": (Access.ADMIN, _CHANGE),
        "Drain": (Access.ADMIN, _CHANGE),
        "Uncordon": (Access.ADMIN, _CHANGE),
        "MarkDown": (Access.ADMIN, _CHANGE),
        "MarkUp": (Access.ADMIN, _CHANGE),
        "Label": (Access.ADMIN, _CHANGE),
        "Taint": (Access.ADMIN, _CHANGE),
        "Delete": (Access.ADMIN, _CHANGE),
    },
    "ClusterTopologyBindingService": _OPERATORS,
    "PriorityClassService": _OPERATORS,
    "QueueService": _OPERATORS,
    # A policy is a part of the system that it scales. Only the autoscaler writes its status.
    "ScalingPolicyService": {
        "Apply": (Access.WRITE, _CHANGE),
        "Create": (Access.WRITE, _CHANGE),
        "Get": (Access.READ, _READ),
        "List": (Access.READ, _LIST),
        "Update": (Access.WRITE, _CHANGE),
        "Delete": (Access.WRITE, _CHANGE),
        "Watch": (Access.READ, _ENDLESS),
        "UpdateStatus": (Access.WRITE, _CHANGE),
        "Explain": (Access.READ, _QUESTION),
        "Pause": (Access.WRITE, _CHANGE),
        "Override": (Access.WRITE, _CHANGE),
    },
    "AutoscalerRegistryService": {
        "Register": (Access.WRITE, _CHANGE),
        "Deregister": (Access.WRITE, _CHANGE),
        "List": (Access.READ, _READ),
    },
    # Whoever runs a pod may ask whether it may start.
    "StartOrderService": {"Wait": (Access.READ, _ENDLESS)},
    # A router that watches is waited for, so watching drains is a router's business, not a reader's.
    "EndpointService": {
        "WatchDrains": (Access.WRITE, _ENDLESS),
        "AcknowledgeDrain": (Access.WRITE, _CHANGE),
        "RenewLease": (Access.WRITE, _CHANGE),
        "ListRouters": (Access.READ, _READ),
        "EndLease": (Access.WRITE, _CHANGE),
        "ReportLoad": (Access.WRITE, _CHANGE),
    },
    "EventService": {
        "List": (Access.READ, _LIST),
        "Watch": (Access.READ, _ENDLESS),
    },
    # Manifests with cluster-scoped kinds ask for ADMIN; the service checks that itself.
    "ManifestService": {
        "Apply": (Access.WRITE, _CHANGE),
        "Delete": (Access.WRITE, _CHANGE),
    },
    "PlacementService": {
        "Simulate": (Access.READ, _QUESTION),
        "GetMap": (Access.READ, _QUESTION),
        "PlanConsolidation": (Access.READ, _QUESTION),
    },
    # Whoever may write sets decides what their containers run anyway. Output is for those who may look.
    "ContainerService": {
        "Logs": (Access.READ, _ENDLESS),
        "Exec": (Access.WRITE, _ENDLESS),
        "GetUsage": (Access.READ, _QUESTION),
    },
    "StoryService": {"Get": (Access.READ, _READ)},
    # A dump shows every pod's specification, and whatever secrets people wrote there.
    "DebugService": {"Dump": (Access.ADMIN, _ENDLESS)},
    "ServerService": {"GetInfo": (Access.NONE, _READ)},
}


AUTHORIZATION: Final[Mapping[str, Access]] = {
    f"/grove.v1.{service}/{method}": access
    for service, methods in _SERVICES.items()
    for method, (access, _) in methods.items()
}
DEADLINES: Final[Mapping[str, Deadline]] = {
    f"/grove.v1.{service}/{method}": deadline
    for service, methods in _SERVICES.items()
    for method, (_, deadline) in methods.items()
}
