"""A server with the process runtime, for tests: what is applied to it, what it says, and what really runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from grove.v1.pod_pb2 import Pod
from grove_client import GroveClient, NotFoundError
from tests.server import ServerProcess
from tests.waiting import until_seen

WORKER: Final = Path(__file__).with_name("worker.py")
RUN_VARIABLE: Final = b"GROVE_RUN="
FLAGS: Final = ("--runtime", "process")


def condition(pod: Pod, type_: str) -> tuple[str, str, str]:
    """Return status, reason and message of a condition of a pod; empty if it has none of that type."""
    for each in pod.status.conditions:
        if each.type == type_:
            return each.status, each.reason, each.message
    return "", "", ""


def is_ready(pod: Pod) -> bool:
    """Return whether a pod serves."""
    return condition(pod, "Ready")[0] == "True"


def restarts(pod: Pod) -> int:
    """Return how often the containers of a pod were started again."""
    return sum(status.restart_count for status in pod.status.container_statuses)


def worker(journal: Path, *, container: Mapping[str, Any] | None = None, **variables: str) -> dict[str, Any]:
    """Return a container that runs the worker, with these variables; *container* adds fields to it."""
    variables = {"JOURNAL": str(journal), **variables}
    return {
        "name": "main",
        "image": "worker",
        "command": [sys.executable, "-S", "-E", str(WORKER)],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": name, "value": value} for name, value in variables.items()),
        ],
        **(container or {}),
    }


def health_probe(**fields: int) -> dict[str, Any]:
    """Return a probe that asks the worker each second whether it is well."""
    return {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, **fields}


def clique(name: str, *containers: dict[str, Any], replicas: int = 1, after: tuple[str, ...] = (), **spec: Any) -> Any:  # noqa: ANN401 -- any field of a pod spec, and a piece of a manifest
    """Return a clique of a manifest; *spec* are fields of its pod spec."""
    fields: dict[str, Any] = {
        "roleName": name,
        "replicas": replicas,
        "podSpec": {"terminationGracePeriodSeconds": 2, "containers": list(containers), **spec},
    }
    if after:
        fields["startsAfter"] = list(after)
    return {"name": name, "spec": fields}


@dataclass(slots=True)
class Box:
    """One namespace of a server. Sets that are applied are gone when it is left."""

    server: ServerProcess
    grove: GroveClient
    namespace: str
    sets: list[str] = field(default_factory=list)

    async def apply(self, name: str, *cliques: Any, replicas: int = 1, startup: str = "", **template: Any) -> None:  # noqa: ANN401 -- pieces of a manifest
        """Apply a set of these cliques."""
        manifest = {
            "apiVersion": "grove.io/v1alpha1",
            "kind": "PodCliqueSet",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "replicas": replicas,
                "template": {
                    **({"cliqueStartupType": startup} if startup else {}),
                    "cliques": list(cliques),
                    **template,
                },
            },
        }
        if name not in self.sets:
            self.sets.append(name)
        await self.grove.apply_manifest(yaml.safe_dump(manifest))

    async def pods(self) -> list[Pod]:
        """Return the pods of the namespace, by name."""
        return [pod async for pod in self.grove.pods.list(namespace=self.namespace)]

    async def see(self, accepts: Callable[[list[Pod]], bool], what: str, *, within_s: float = 30.0) -> list[Pod]:
        """Wait until the pods are as wanted, and return them."""
        return await until_seen(
            self.pods, accepts, lambda pods: f"{what}; seen {[describe(pod) for pod in pods]}", within_s=within_s
        )

    async def ready(self, count: int) -> list[Pod]:
        """Wait until there are *count* pods, all of them ready."""
        return await self.see(lambda pods: len(pods) == count and all(map(is_ready, pods)), f"{count} pods are ready")

    async def delete(self, *names: str) -> None:
        """Delete sets and wait until their pods are gone."""
        await self.grove.pod_clique_sets.delete(list(names), namespace=self.namespace)
        self.sets = [name for name in self.sets if name not in names]
        await self.see(lambda pods: not pods or bool(self.sets), "no pod is left")

    async def close(self) -> None:
        """Delete all sets, and see that nothing of them runs."""
        uids = {pod.metadata.uid for pod in await self.pods()}
        for name in list(self.sets):
            try:
                await self.delete(name)
            except NotFoundError:
                continue
        await until_seen(
            processes_later,
            lambda found: not uids & {process.pod_uid for process in found},
            lambda found: f"no process is left, found {found}",
        )

    async def event(self, reason: str, words: str) -> None:
        """Wait for an event of the namespace with this reason whose message has *words*."""
        await until_seen(
            lambda: self._events(reason),
            lambda messages: any(words in message for message in messages),
            lambda messages: f"an event {reason} says {words!r}, seen {messages}",
        )

    async def _events(self, reason: str) -> list[str]:
        return [
            event.message async for event in self.grove.events.list(namespace=self.namespace) if event.reason == reason
        ]


def describe(pod: Pod) -> str:
    """Return the outlines of a pod, for the message of a failure."""
    states = [f"{each.type}={each.status}:{each.reason}:{each.message}" for each in pod.status.conditions]
    return f"{pod.metadata.name} {pod.status.phase} restarts {restarts(pod)} {' '.join(states)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that belongs to a container."""

    pid: int
    pod_uid: str
    container: str
    attempt: int
    command: str


async def processes_later() -> list[Process]:
    """Return what runs now."""
    await asyncio.sleep(0)
    return processes()


def processes() -> list[Process]:
    """Return all processes of this machine that belong to containers, however they detached themselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        mark = next((word for word in environment if word.startswith(RUN_VARIABLE)), None)
        if mark is not None and command:
            uid, container, attempt = mark.removeprefix(RUN_VARIABLE).decode().split("/")
            process = Process(
                pid=int(entry.name), pod_uid=uid, container=container, attempt=int(attempt), command=command
            )
            found.append(process)
    return found


def processes_of(pod: Pod) -> list[Process]:
    """Return the processes of a pod."""
    return [process for process in processes() if process.pod_uid == pod.metadata.uid]


def journal(path: Path) -> list[dict[str, Any]]:
    """Return what workers wrote, in order."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def get(pod: Pod, path: str, port: int = 8000) -> tuple[int, bytes]:
    """Ask a pod over HTTP; return status and body. OSError if nobody answers."""
    reader, writer = await asyncio.open_connection(pod.status.pod_ip, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {pod.status.pod_ip}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


async def tell_to_exit(pod: Pod, code: int) -> None:
    """Let the worker of a pod end itself."""
    await get(pod, f"/exit/{code}")


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
