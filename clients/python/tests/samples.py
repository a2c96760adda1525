"""One of each resource, as the small server keeps them, and how a printed table is read."""

from __future__ import annotations

from typing import Any

from small_server import SmallServer, meta

GROVE = "grove.io/v1alpha1"
SET: dict[str, Any] = {
    "apiVersion": GROVE,
    "kind": "PodCliqueSet",
    "metadata": meta("chat"),
    "spec": {"replicas": 1, "template": {"cliques": []}},
    "status": {"availableReplicas": 1, "updatedReplicas": 1, "phase": "Running"},
}
LABELS = {"app.kubernetes.io/part-of": "chat", "grove.io/podcliqueset-replica-index": "0", "grove.io/podgang": "chat-0"}
CLIQUE: dict[str, Any] = {
    "apiVersion": GROVE,
    "kind": "PodClique",
    "metadata": meta("chat-0-router", labels=LABELS),
    "spec": {"roleName": "router", "replicas": 2, "minAvailable": 1, "podSpec": {}},
    "status": {
        "readyReplicas": 0,
        "scheduledReplicas": 2,
        "updatedReplicas": 2,
        "scheduleGatedReplicas": 0,
        "conditions": [{"type": "MinAvailableBreached", "status": "False"}],
    },
}
GROUP: dict[str, Any] = {
    "apiVersion": GROVE,
    "kind": "PodCliqueScalingGroup",
    "metadata": meta("chat-0-decode", labels=LABELS),
    "spec": {"replicas": 1, "minAvailable": 1, "cliqueNames": ["leader"]},
    "status": {"availableReplicas": 1, "scheduledReplicas": 1, "updatedReplicas": 1},
}
MEMBER: dict[str, Any] = {
    **CLIQUE,
    "metadata": meta(
        "chat-0-decode-0-leader",
        labels={
            **LABELS,
            "grove.io/podcliquescalinggroup": "chat-0-decode",
            "grove.io/podcliquescalinggroup-replica-index": "0",
        },
    ),
}
GANG: dict[str, Any] = {
    "apiVersion": "scheduler.grove.io/v1alpha1",
    "kind": "PodGang",
    "metadata": meta("chat-0", labels={"app.kubernetes.io/part-of": "chat"}),
    "spec": {"podgroups": [{"name": "chat-0-router", "podReferences": [{"namespace": "default", "name": "p"}]}]},
    "status": {
        "phase": "Running",
        "placementScore": 1,
        "topology": [
            {"scope": "chat-0", "level": "block", "key": "k/block", "domain": "b1"},
            {"scope": "chat-0-decode-0", "level": "rack", "key": "k/rack", "domain": "r7"},
        ],
    },
}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        **meta("chat-0-router-abcde", labels={**LABELS, "grove.io/podclique": "chat-0-router"}),
        "annotations": {"grove.io/gpu-ids": "0,1"},
    },
    "spec": {"nodeName": "node-3", "containers": [{"name": "main", "ports": [{"containerPort": 8080}]}]},
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0}],
    },
}
NODE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": meta("node-3", ""),
    "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
}
EVENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": meta("e1"),
    "involvedObject": {"kind": "PodClique", "name": "chat-0-router", "namespace": "default"},
    "reason": "PodCreateSuccessful",
    "message": "created 2 pods",
    "type": "Normal",
    "count": 2,
    "lastTimestamp": "2026-01-01T00:00:00.000Z",
}


def fill(server: SmallServer) -> None:
    """Store a whole set."""
    for manifest in (SET, CLIQUE, GROUP, MEMBER, GANG, POD, NODE, EVENT):
        server.put(manifest)


def table(text: str) -> list[list[str]]:
    """Return the cells of a printed table."""
    return [line.split() for line in text.splitlines()]
