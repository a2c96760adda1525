"""Servers that come and go while their pods run: adoption after kill -9, pods that stay, pods that end with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import grove_client
from tests.onebox.box import (
    FLAGS,
    Box,
    clique,
    health_probe,
    is_alive,
    journal,
    processes,
    processes_of,
    restarts,
    tell_to_exit,
    worker,
)
from tests.server import ServerProcess
from tests.waiting import until


@asynccontextmanager
async def opened(process: ServerProcess) -> AsyncIterator[Box]:
    """Give the namespace of a running server."""
    async with grove_client.connect(process.address) as grove:
        yield Box(server=process, grove=grove, namespace="restarts")


@asynccontextmanager
async def box_of(folder: Path, *flags: str) -> AsyncIterator[ServerProcess]:
    """Start a server; in the end it stops with all its pods, however the test left it."""
    process = ServerProcess(folder / "data", flags=(*FLAGS, *flags))
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        await asyncio.to_thread(process.stop)
        known = {entry.name for entry in (folder / "data" / "process" / "pods").glob("*")}
        if any(each.pod_uid in known for each in processes()):
            last = ServerProcess(folder / "data", flags=(*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0"))
            await asyncio.to_thread(last.start)
            await asyncio.to_thread(last.stop)


async def test_kill_9_loses_no_process(tmp_path: Path, journal_path: Path) -> None:
    """A server that is killed and started again has the same processes, and restarted none."""
    async with box_of(tmp_path) as server:
        async with opened(server) as box:
            await box.apply(
                "kept", clique("pod", worker(journal_path, container={"readinessProbe": health_probe()}), replicas=3)
            )
            pods = await box.ready(3)
            before = sorted(process.pid for pod in pods for process in processes_of(pod))
        server.kill()
        assert all(map(is_alive, before))
        await asyncio.to_thread(server.start)
        async with opened(server) as box:
            pods = await box.ready(3)
            assert sorted(process.pid for pod in pods for process in processes_of(pod)) == before
            assert [restarts(pod) for pod in pods] == [0, 0, 0]
            await box.delete("kept")
            assert not any(map(is_alive, before))


async def test_an_end_that_no_server_saw_is_told_by_the_next(tmp_path: Path, journal_path: Path) -> None:
    """A container that ends while there is no server is started again by the next one, its exit code known."""
    async with box_of(tmp_path) as server:
        async with opened(server) as box:
            await box.apply("unseen", clique("pod", worker(journal_path, container={"readinessProbe": health_probe()})))
            pods = await box.ready(1)
        pid = processes_of(pods[0])[0].pid
        server.kill()
        await tell_to_exit(pods[0], 42)
        await until(lambda: not is_alive(pid), "the worker ended")
        await asyncio.to_thread(server.start)
        async with opened(server) as box:
            pods = await box.see(lambda pods: restarts(pods[0]) == 1, "the container was started again")
            assert pods[0].status.container_statuses[0].last_state.terminated.exit_code == 42


async def test_pods_outlive_a_server_that_stops(tmp_path: Path, journal_path: Path) -> None:
    """SIGTERM ends the server and leaves its pods running, and a server that only plays them does not start there."""
    async with box_of(tmp_path) as server:
        async with opened(server) as box:
            await box.apply("kept", clique("pod", worker(journal_path)))
            pods = await box.ready(1)
            await until(lambda: "listening" in [entry["event"] for entry in journal(journal_path)], "it listens")
        assert await asyncio.to_thread(server.stop) == 0
        assert len(processes_of(pods[0])) == 1
        assert "term" not in [entry["event"] for entry in journal(journal_path)]
        fake = ServerProcess(tmp_path / "data")
        fake.launch()
        assert await asyncio.to_thread(fake.wait) == 1
        assert "1 containers of an earlier --runtime process still run" in fake.errors


async def test_pods_end_with_the_server_if_told_so(tmp_path: Path, journal_path: Path) -> None:
    """With --pods-on-exit stop nothing of any pod is left: who listens to SIGTERM ends, all else is killed."""
    async with box_of(tmp_path, "--pods-on-exit", "stop", "--pods-exit-grace-s", "1") as server:
        async with opened(server) as box:
            container = worker(journal_path, container={"readinessProbe": health_probe()}, DAEMONS="2")
            stubborn = worker(journal_path, container={"readinessProbe": health_probe()}, IGNORE_SIGTERM="1")
            await box.apply("gone", clique("pod", container), clique("stubborn", stubborn))
            pods = await box.ready(2)
        uids = {pod.metadata.uid for pod in pods}
        assert await asyncio.to_thread(server.stop) == 0
        assert [process for process in processes() if process.pod_uid in uids] == []
        assert [entry["event"] for entry in journal(journal_path)].count("term") == 2


def pod_with_init(journal_path: Path) -> Any:  # noqa: ANN401 -- a piece of a manifest
    """Return a clique whose init container leaves a line in the journal."""
    note = f"import json; open({str(journal_path)!r}, 'a').write(json.dumps({{'event': 'init'}}) + chr(10))"
    init = {"name": "init", "image": "x", "command": [sys.executable, "-S", "-E", "-c", note]}
    container = worker(journal_path, container={"readinessProbe": health_probe()})
    return clique("pod", container, initContainers=[init])


def events(path: Path, *wanted: str) -> list[str]:
    """Return the events of a journal that are among the wanted ones."""
    return [entry["event"] for entry in journal(path) if entry["event"] in wanted]


async def test_a_stop_on_purpose_is_no_restart(tmp_path: Path, journal_path: Path) -> None:
    """Pods that were stopped with the server start anew with the next one, init containers first, and count nothing."""
    async with box_of(tmp_path, "--pods-on-exit", "stop") as server:
        async with opened(server) as box:
            await box.apply("anew", pod_with_init(journal_path))
            first = await box.ready(1)
        for _ in range(2):
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            async with opened(server) as box:
                (pod,) = await box.ready(1)
                assert (restarts(pod), pod.metadata.uid) == (0, first[0].metadata.uid)
                await box.event("StartedAnew", "stopped with the server")
        assert events(journal_path, "init", "listening", "term") == ["init", "listening", "term"] * 2 + [
            "init",
            "listening",
        ]


async def test_init_containers_run_again_after_a_reboot(tmp_path: Path, journal_path: Path) -> None:
    """After a boot of the machine a pod starts anew, which counts as a restart of what had run."""
    async with box_of(tmp_path) as server:
        async with opened(server) as box:
            await box.apply("booted", pod_with_init(journal_path))
            pods = await box.ready(1)
        server.kill()
        mine = processes_of(pods[0])
        for process in mine:
            os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not any(is_alive(process.pid) for process in mine), "nothing runs")
        runs = tmp_path / "data/process/pods" / pods[0].metadata.uid
        await until(lambda: len(list(runs.glob("*/*/exit.json"))) == 2, "their ends are written")
        for file in runs.glob("*/*/run.json"):
            record = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps({**record, "boot_id": "another"}), encoding="utf-8")
        # A machine that goes down leaves no record of the end.
        (runs / "main/0/exit.json").unlink()
        await asyncio.to_thread(server.start)
        async with opened(server) as box:
            pods = await box.ready(1)
            assert restarts(pods[0]) == 1
            await box.event("StartedAnew", "the machine was started anew")
        assert events(journal_path, "init", "listening") == ["init", "listening"] * 2


async def test_hooks_run_before_pods_are_stopped_with_the_server(tmp_path: Path, journal_path: Path) -> None:
    """With --pods-on-exit stop a preStop hook is done before its container gets SIGTERM."""
    note = f"import json; open({str(journal_path)!r}, 'a').write(json.dumps({{'event': 'hook'}}) + chr(10))"
    hook = {"preStop": {"exec": {"command": [sys.executable, "-S", "-E", "-c", note]}}}
    async with box_of(tmp_path, "--pods-on-exit", "stop") as server:
        async with opened(server) as box:
            container = worker(journal_path, container={"readinessProbe": health_probe(), "lifecycle": hook})
            await box.apply("hooked", clique("pod", container, terminationGracePeriodSeconds=20))
            await box.ready(1)
        assert await asyncio.to_thread(server.stop) == 0
        assert events(journal_path, "hook", "term") == ["hook", "term"]


async def test_the_row_of_a_pod_that_vanished_takes_its_processes_along(tmp_path: Path, journal_path: Path) -> None:
    """A server that finds processes without a pod ends them."""
    async with box_of(tmp_path) as server:
        async with opened(server) as box:
            await box.apply("gone", clique("pod", worker(journal_path)))
            pods = await box.ready(1)
        await asyncio.to_thread(server.stop)
        assert len(processes_of(pods[0])) == 1
        for file in (tmp_path / "data").glob("grove.db*"):
            file.unlink()
        await asyncio.to_thread(server.start)
        await until(lambda: processes_of(pods[0]) == [], "the process was ended")


@pytest.mark.parametrize("flags", [("--reserve", "cpu=x"), ("--reserve", "cpu=100000")])
async def test_reservations_that_make_no_sense_refuse_the_start(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The server says what is wrong and does not start."""
    process = ServerProcess(tmp_path / "data", flags=(*FLAGS, *flags))
    process.launch()
    assert await asyncio.to_thread(process.wait) != 0
    assert "cpu" in process.errors


async def test_a_cluster_file_with_nodes_refuses_the_start(tmp_path: Path) -> None:
    """The node is this machine; a file that describes others is a mistake."""
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("apiVersion: v1\nkind: Node\nmetadata: {name: x}\n", encoding="ascii")
    process = ServerProcess(tmp_path / "data", cluster=cluster, flags=FLAGS)
    process.launch()
    assert await asyncio.to_thread(process.wait) != 0
    assert "the node is this machine" in process.errors
