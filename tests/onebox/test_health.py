"""Probes, crashes and ends of real processes, seen from outside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from grove.v1.pod_pb2 import Pod
from tests.onebox.box import (
    Box,
    clique,
    condition,
    health_probe,
    is_ready,
    journal,
    processes_of,
    restarts,
    tell_to_exit,
    worker,
)
from tests.waiting import until

GRPC_WORKER = Path(__file__).with_name("grpc_worker.py")


def last_exit_code(pod: Pod) -> int:
    """Return what the container of a pod last exited with; -1 if it never did."""
    status = pod.status.container_statuses[0]
    return status.last_state.terminated.exit_code if status.last_state.HasField("terminated") else -1


def probe_of(kind: str, sick: Path) -> dict[str, Any]:
    """Return a probe of this kind, that fails while *sick* exists."""
    if kind == "exec":
        script = f"import os, sys; sys.exit(os.path.exists({str(sick)!r}))"
        return {"exec": {"command": [sys.executable, "-S", "-c", script]}, "timeoutSeconds": 10}
    if kind == "grpc":
        return {"grpc": {"port": 8000}, "timeoutSeconds": 10}
    return {"httpGet": {"path": "/health", "port": 8000}, "timeoutSeconds": 10}


@pytest.mark.parametrize("kind", ["http", "exec", "grpc"])
async def test_readiness_follows_its_probe(box: Box, tmp_path: Path, journal_path: Path, kind: str) -> None:
    """A pod whose probe fails is not ready and not restarted, and is ready again once the probe succeeds."""
    sick = tmp_path / "sick"
    probe = {**probe_of(kind, sick), "periodSeconds": 1, "failureThreshold": 1}
    container = worker(journal_path, container={"readinessProbe": probe}, UNHEALTHY=str(sick))
    if kind == "grpc":
        container["command"] = [sys.executable, str(GRPC_WORKER)]
    await box.apply(f"health-{kind}", clique("pod", container))
    before = await box.ready(1)
    pids = {process.pid for process in processes_of(before[0])}
    sick.touch()
    await box.see(lambda pods: condition(pods[0], "Ready")[0] == "False", "the pod is not ready")
    sick.unlink()
    after = await box.ready(1)
    assert restarts(after[0]) == 0
    assert {process.pid for process in processes_of(after[0])} == pids


async def test_a_tcp_probe_needs_somebody_who_listens(box: Box, journal_path: Path) -> None:
    """A pod is ready once its port opens; one that asks for another port never is."""
    probe = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    other = {"tcpSocket": {"port": 8001}, "periodSeconds": 1}
    await box.apply(
        "tcp",
        clique("open", worker(journal_path, container={"readinessProbe": probe})),
        clique("closed", worker(journal_path, container={"readinessProbe": other})),
    )
    pods = await box.see(lambda pods: len(pods) == 2 and any(map(is_ready, pods)), "one pod is ready")
    assert [pod.spec["hostname"] for pod in pods if is_ready(pod)] == ["tcp-0-open-0"]


async def test_liveness_restarts_a_container(box: Box, tmp_path: Path, journal_path: Path) -> None:
    """A container whose liveness probe fails is ended in good order and started again as another process."""
    sick = tmp_path / "sick"
    container = worker(journal_path, container={"livenessProbe": health_probe(failureThreshold=2)}, UNHEALTHY=str(sick))
    await box.apply("live", clique("pod", container))
    before = processes_of((await box.ready(1))[0])
    await until(lambda: "listening" in [entry["event"] for entry in journal(journal_path)], "the worker listens")
    sick.touch()
    pods = await box.see(lambda pods: restarts(pods[0]) == 1, "the container was started again")
    sick.unlink()
    after = processes_of(pods[0])
    assert {process.pid for process in before}.isdisjoint(process.pid for process in after)
    assert [entry["event"] for entry in journal(journal_path)].count("term") >= 1
    await box.event("Unhealthy", "liveness probe failed")


async def test_a_startup_probe_holds_the_others_back(box: Box, tmp_path: Path, journal_path: Path) -> None:
    """While the startup probe fails, a liveness probe that would fail as well ends nothing."""
    sick = tmp_path / "sick"
    sick.touch()
    container = worker(
        journal_path,
        container={
            "startupProbe": health_probe(failureThreshold=60),
            "livenessProbe": health_probe(failureThreshold=1),
        },
        UNHEALTHY=str(sick),
    )
    await box.apply("startup", clique("pod", container))
    await until(lambda: "listening" in [entry["event"] for entry in journal(journal_path)], "the worker listens")
    pods = await box.pods()
    assert not is_ready(pods[0])
    sick.unlink()
    ready = await box.ready(1)
    assert restarts(ready[0]) == 0


async def test_a_crash_is_counted_and_backs_off(box: Box, journal_path: Path) -> None:
    """The first crash is followed by a start at once, the second by a back-off; the exit code is told."""
    await box.apply("crash", clique("pod", worker(journal_path, container={"readinessProbe": health_probe()})))
    pods = await box.ready(1)
    await tell_to_exit(pods[0], 3)
    pods = await box.see(lambda pods: restarts(pods[0]) == 1 and is_ready(pods[0]), "the container runs again")
    assert last_exit_code(pods[0]) == 3
    await tell_to_exit(pods[0], 4)
    pods = await box.see(
        lambda pods: pods[0].status.container_statuses[0].state.waiting.reason == "CrashLoopBackOff",
        "the pod waits out a back-off",
    )
    assert processes_of(pods[0]) == []
    await box.event("ContainersExited", "exit code 4")


async def test_the_hook_runs_before_the_signal(box: Box, tmp_path: Path, journal_path: Path) -> None:
    """A pod that is deleted runs its preStop hook to its end, then gets SIGTERM, then is gone."""
    hook = (
        f"import json, os; print(json.dumps({{'event': 'hook', 'pod': '', 'pid': 0}}), "
        f"file=open({str(journal_path)!r}, 'a'))"
    )
    container = worker(
        journal_path,
        container={
            "readinessProbe": health_probe(),
            "lifecycle": {"preStop": {"exec": {"command": [sys.executable, "-S", "-c", hook]}}},
        },
    )
    await box.apply("hook", clique("pod", container, terminationGracePeriodSeconds=20))
    pods = await box.ready(1)
    await box.delete("hook")
    assert [entry["event"] for entry in journal(journal_path)][-2:] == ["hook", "term"]
    assert processes_of(pods[0]) == []
    assert list(tmp_path.iterdir()) == [journal_path]


async def test_who_ignores_sigterm_is_killed_when_its_grace_is_over(box: Box, journal_path: Path) -> None:
    """SIGKILL comes after the grace period, and not before."""
    container = worker(journal_path, container={"readinessProbe": health_probe()}, IGNORE_SIGTERM="1")
    await box.apply("stubborn", clique("pod", container, terminationGracePeriodSeconds=1))
    pods = await box.ready(1)
    await box.delete("stubborn")
    entries = journal(journal_path)
    assert [entry["event"] for entry in entries] == ["start", "listening", "term"]
    assert processes_of(pods[0]) == []


async def test_a_memory_limit_holds_where_it_can(box: Box, journal_path: Path) -> None:
    """A container that takes more than its limit is killed for it; where that is not to be had, a condition says so."""
    script = "x = bytearray(256 << 20); print(len(x))"
    greedy = {
        "name": "main",
        "image": "x",
        "command": [sys.executable, "-S", "-c", script],
        "resources": {"limits": {"memory": "48Mi"}},
    }
    await box.apply("memory", clique("pod", greedy, restartPolicy="Never"))
    pods = await box.see(
        lambda pods: bool(pods) and pods[0].status.phase in ("Failed", "Succeeded"), "the container ended"
    )
    is_enforced = condition(pods[0], "LimitsEnforced")[0] == "True"
    ended = pods[0].status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == ((137, "OOMKilled") if is_enforced else (0, "Completed"))
    assert not journal_path.exists()
