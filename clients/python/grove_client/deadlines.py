"""How long each unary call may take, and which calls may be sent again when the server is away.

gRPC waits for ever by default, so every call of this client has a deadline from the table; a caller can give another.
Watches have none. A call is retried (by gRPC itself, through the service config) only on UNAVAILABLE and only if doing
it twice equals doing it once: Create, Update and Delete would answer a lost first answer with a refusal.
"""

from __future__ import annotations

import json
from typing import Final

READ_S: Final = 15.0
LIST_S: Final = 30.0
WRITE_S: Final = 30.0
BATCH_S: Final = 60.0

_DEADLINE_BY_VERB: Final = {
    "Get": READ_S,
    "GetInfo": READ_S,
    "Explain": READ_S,
    "List": LIST_S,
    "Apply": WRITE_S,
    "Create": WRITE_S,
    "Update": WRITE_S,
    "Delete": WRITE_S,
    "Scale": WRITE_S,
    "PauseRollout": WRITE_S,
    "ResumeRollout": WRITE_S,
    "UndoRollout": WRITE_S,
    "RestartRollout": WRITE_S,
    "ListRevisions": READ_S,
    "Cordon": WRITE_S,
    "Drain": WRITE_S,
    "Uncordon": WRITE_S,
    "MarkDown": WRITE_S,
    "MarkUp": WRITE_S,
    "Label": WRITE_S,
    "Taint": WRITE_S,
    "ListRouters": READ_S,
    "AcknowledgeDrain": WRITE_S,
    "RenewLease": WRITE_S,
    "EndLease": WRITE_S,
    "ReportLoad": WRITE_S,
    "Simulate": BATCH_S,
    "GetMap": LIST_S,
    "GetUsage": LIST_S,
    "PlanConsolidation": BATCH_S,
    "GetRecommendation": READ_S,
    "UpdateStatus": WRITE_S,
    "Pause": WRITE_S,
    "Override": WRITE_S,
    "Register": READ_S,
    "Deregister": READ_S,
}
_DEADLINE_BY_METHOD: Final = {
    "/grove.v1.ManifestService/Apply": BATCH_S,
    "/grove.v1.ManifestService/Delete": BATCH_S,
}
_IDEMPOTENT_VERBS: Final = frozenset(
    {
        "Get",
        "GetInfo",
        "Explain",
        "List",
        "Apply",
        "Scale",
        "PauseRollout",
        "ResumeRollout",
        "ListRevisions",
        "Cordon",
        "Drain",
        "Uncordon",
        "MarkDown",
        "MarkUp",
        "Label",
        "Taint",
        "Simulate",
        "GetMap",
        "GetUsage",
        "PlanConsolidation",
        "ListRouters",
        "AcknowledgeDrain",
        "RenewLease",
        "EndLease",
        "ReportLoad",
        "GetRecommendation",
        "UpdateStatus",
        "Pause",
        "Override",
        "Register",
        "Deregister",
    }
)


def deadline_s(method: str) -> float:
    """Return the deadline in seconds of a unary method such as "/grove.v1.PodService/Get"; KeyError if unknown."""
    return _DEADLINE_BY_METHOD.get(method) or _DEADLINE_BY_VERB[method.rpartition("/")[2]]


def is_idempotent(method: str) -> bool:
    """Return whether sending a call of *method* again changes nothing more."""
    return method.rpartition("/")[2] in _IDEMPOTENT_VERBS


def service_config(methods: list[str]) -> str:
    """Return the gRPC service config (JSON) that retries the idempotent ones of *methods* on UNAVAILABLE.

    Four attempts within about a second and a half; throttled, so that a server in trouble is not buried in retries.
    """
    names = []
    for method in methods:
        if is_idempotent(method):
            _, service, verb = method.split("/")
            names.append({"service": service, "method": verb})
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps(
        {
            "methodConfig": [{"name": names, "retryPolicy": policy}],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }
    )
