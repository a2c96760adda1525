"""A server inside the benchmark's own process, for figures that need to see every change or the loop's own time.

It is the server that users run: the same composition root, a durable store on a real disk, its gRPC port open. Only
the sets come straight from admission, because what a call costs is measured elsewhere.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from grove_server.admission.admit import admit_pod_clique_set
from grove_server.admission.context import AdmissionContext
from grove_server.app import Server, running
from grove_server.control.clock import SystemClock
from grove_server.resources.schema import parse_pod_clique_set
from grove_server.resources.workload import PodCliqueSet
from grove_server.settings import Settings
from grove_server.store.interface import Applied, Put
from grove_server.telemetry.logs import set_up_logs
from tests.tidy.sources import ROOT
from tests.waiting import until

Json = dict[str, Any]

NAMESPACE: Final = "default"
CLUSTER: Final = """\
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: bench}
spec:
  count: 200
  allocatable: {cpu: "128", memory: 2Ti, pods: "110"}
"""
DEADLINE_S: Final = 300.0


@asynccontextmanager
async def hosted() -> AsyncIterator[Server]:
    """Run a durable server with room for 20,000 pods in this process."""
    # Not the system's temporary folder: that may be memory, and fsync would then be free.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    set_up_logs(log_format="json", level="error")
    try:
        cluster = folder / "cluster.yaml"
        cluster.write_text(CLUSTER, encoding="utf-8")
        flags = {"listen": "127.0.0.1:0", "metrics_listen": "", "data_dir": folder / "data", "cluster": cluster}
        async with running(Settings.model_validate({**flags, "update_settle_s": 0.0})) as server:
            yield server
    finally:
        shutil.rmtree(folder)


def manifest(name: str, *, copies: int, pods: int, image: str = "bench:1", budget: Json | None = None) -> Json:
    """Return a set of *copies* copies of one clique of *pods* pods, all needed; *budget* is its rollingUpdate."""
    requests = {"cpu": "100m", "memory": "80Mi"}
    spec: Json = {
        "roleName": "worker",
        "replicas": pods,
        "minAvailable": pods,
        "podSpec": {"containers": [{"name": "main", "image": image, "resources": {"requests": requests}}]},
    }
    clique: Json = {"name": "worker", "spec": spec}
    if budget is not None:
        clique["rollingUpdate"] = budget
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {"name": name},
        "spec": {"replicas": copies, "template": {"cliques": [clique]}},
    }


async def apply(server: Server, documents: Sequence[Json]) -> None:
    """Apply manifests as the API does, each as a change of its own."""
    reader = server.store.read()
    futures = []
    for document in documents:
        old = reader.get(PodCliqueSet, NAMESPACE, document["metadata"]["name"])
        context = AdmissionContext(now=SystemClock().now(), uid=str(uuid.uuid4()), bindings={})
        admitted = admit_pod_clique_set(parse_pod_clique_set(json.dumps(document).encode()), old, context).resource
        futures.append(server.store.commit_soon([Put(admitted, old.resource_version if old else 0)], cause="bench"))
    for future in futures:
        outcomes = await future
        assert all(isinstance(outcome, Applied) for outcome in outcomes), outcomes


async def until_available(server: Server) -> None:
    """Return once every copy of every set is available."""

    def is_available() -> bool:
        sets = server.store.read().list(PodCliqueSet)
        return all(owner.status.available_replicas == owner.spec.replicas for owner in sets)

    await until(is_available, "all copies are available", within_s=DEADLINE_S)
