"""One box: fifty real pods on this machine, from Apply to Ready, over a crash of the server, and idle.

`onebox.start`: a set of 50 pods of `sleep`, each with an exec probe, from Apply until a watch said of all that they are
Ready. The baseline starts 50 bare children and one probe process for each the same way: from an asyncio program, all at
once. The best of some rounds counts for both.

`onebox.adopt`: the server is killed and started again: from the start of the process until a watch shows all Ready.
`.kept` is how many of them are the same processes, never started again.

`onebox.idle` is the processor time of server, launcher, keepers and probes together while nothing happens but the
probes, every 5 s; `.server` that of the server alone.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

import grove_client
from grove_client import GroveClient
from tests.bench.figures import Figure, Target, figure
from tests.onebox.box import FLAGS, Box, clique, is_ready, processes, restarts
from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until

_PODS: Final = 50
_ROUNDS: Final = 3
_IDLE_S: Final = 30.0


def run() -> Iterator[Figure]:
    """Measure all of it."""
    yield from asyncio.run(_measure())


async def _measure() -> list[Figure]:
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    flags = (*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0")
    process = ServerProcess(folder / "data", flags=flags)
    try:
        process.start()
        bare = min([await _bare_s() for _ in range(_ROUNDS)])
        start = min([await _start_s(process, f"round-{number}") for number in range(_ROUNDS)])
        async with grove_client.connect(process.address) as grove:
            await _apply(_box(process, grove), "idle")
            idle, idle_server = await _idle_percent(process)
        before = {each.pod_uid: each.pid for each in processes()}
        process.kill()
        adopt, kept = await _adopt_s(process, before)
    finally:
        process.stop()
        shutil.rmtree(folder)
    return [
        figure("onebox.start", start, "s", better="lower", baseline=bare, target=Target(bound=1.5, of="ratio")),
        figure("onebox.adopt", adopt, "s", better="lower", target=Target(bound=2)),
        figure("onebox.adopt.kept", kept, "pods", better="higher", target=Target(bound=_PODS)),
        figure("onebox.idle", idle, "% of a core", better="lower", target=Target(bound=3)),
        figure("onebox.idle.server", idle_server, "% of a core", better="lower"),
    ]


def _box(process: ServerProcess, grove: GroveClient) -> Box:
    return Box(server=process, grove=grove, namespace="bench")


def _container() -> dict[str, Any]:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 5, "timeoutSeconds": 5}
    resources = {"requests": {"cpu": "1m"}}
    return {
        "name": "main",
        "image": "x",
        "command": ["sleep", "1000000"],
        "readinessProbe": probe,
        "resources": resources,
    }


async def _bare_s() -> float:
    began = time.perf_counter()

    async def child() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec("sleep", "1000000")
        probe = await asyncio.create_subprocess_exec("true")
        await probe.wait()
        return process

    children = await asyncio.gather(*(child() for _ in range(_PODS)))
    took = time.perf_counter() - began
    for process in children:
        process.kill()
        await process.wait()
    return took


async def _apply(box: Box, name: str) -> None:
    """Apply the set, and return when all of it is ready."""
    await box.apply(name, clique("pod", _container(), replicas=_PODS))
    await _all_ready(box)


async def _all_ready(box: Box) -> None:
    """Return once all pods are ready; a watch tells, so that nobody has to ask."""
    ready: set[str] = set()
    changes = box.grove.pods.watch(namespace=box.namespace)
    try:
        async for change in changes:
            pod = change.object
            if pod is None:
                continue
            is_there = change.type != "DELETED" and is_ready(pod)
            (ready.add if is_there else ready.discard)(pod.metadata.uid)
            if len(ready) == _PODS:
                return
    finally:
        await changes.aclose()


async def _start_s(process: ServerProcess, name: str) -> float:
    async with grove_client.connect(process.address) as grove:
        box = _box(process, grove)
        began = time.perf_counter()
        await _apply(box, name)
        took = time.perf_counter() - began
        await box.delete(name)
    return took


async def _adopt_s(process: ServerProcess, before: dict[str, int]) -> tuple[float, int]:
    began = time.perf_counter()
    await asyncio.to_thread(process.start)
    async with grove_client.connect(process.address) as grove:
        box = _box(process, grove)
        await _all_ready(box)
        took = time.perf_counter() - began
        after = {each.pod_uid: each.pid for each in processes()}
        kept = [
            pod
            for pod in await box.pods()
            if restarts(pod) == 0 and after.get(pod.metadata.uid, 0) == before.get(pod.metadata.uid)
        ]
    return took, len(kept)


async def _idle_percent(process: ServerProcess) -> tuple[float, float]:
    server = psutil.Process(process.pid)
    launchers = server.children()
    family = [each for launcher in launchers for each in (launcher, *launcher.children())]

    def used_s() -> float:
        # What the launcher has waited for, probes among it, counts as well.
        times = [each.cpu_times() for each in family]
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)

    def server_s() -> float:
        times = server.cpu_times()
        return float(times.user + times.system)

    server_before, others_before = server_s(), used_s()
    until_s = time.monotonic() + _IDLE_S
    await until(lambda: time.monotonic() >= until_s, "time passes", within_s=2 * _IDLE_S)
    of_server, of_others = server_s() - server_before, used_s() - others_before
    return (of_server + of_others) / _IDLE_S * 100, of_server / _IDLE_S * 100
