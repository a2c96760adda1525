"""Pods as real processes: side by side on one port, found by name, in start order, with nothing of the server's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from grove.v1.pod_pb2 import Pod
from grove_client import FailedPreconditionError
from tests.onebox.box import (
    Box,
    clique,
    condition,
    get,
    health_probe,
    journal,
    processes_later,
    processes_of,
    restarts,
    worker,
)
from tests.waiting import until_seen


async def test_pods_share_a_port_and_find_each_other(box: Box, journal_path: Path) -> None:
    """Each pod answers on the same port of its own address, and its names resolve inside the others."""
    await box.apply(
        "web", clique("server", worker(journal_path, container={"readinessProbe": health_probe()}), replicas=3)
    )
    pods = await box.ready(3)
    addresses = {pod.status.pod_ip for pod in pods}
    assert len(addresses) == 3
    assert {(await get(pod, "/"))[1].decode() for pod in pods} == {f"web-0-server-{index}" for index in range(3)}
    names = (await get(pods[0], "/resolve/web-0-server-1.web-0"))[1]
    assert len(json.loads(names)) == 1
    assert set(json.loads(names)) <= addresses
    service = f"/resolve/web-0.{box.namespace}.svc.cluster.local"
    assert set(json.loads((await get(pods[1], service))[1])) == addresses
    assert condition(pods[0], "NamesResolve")[0] == "True"


async def test_who_starts_after_others_can_connect_to_them(box: Box, journal_path: Path) -> None:
    """A clique that starts after another finds it listening."""
    await box.apply(
        "ordered",
        clique("first", worker(journal_path, container={"readinessProbe": health_probe()})),
        clique(
            "second",
            worker(
                journal_path,
                container={"readinessProbe": health_probe()},
                CONNECT_TO="ordered-0-first-0.ordered-0:8000",
            ),
            after=("first",),
        ),
        startup="CliqueStartupTypeExplicit",
    )
    await box.ready(2)
    events = [(entry["pod"], entry["event"]) for entry in journal(journal_path)]
    assert ("ordered-0-second-0", "connected") in events
    assert events.index(("ordered-0-first-0", "listening")) < events.index(("ordered-0-second-0", "start"))


async def test_a_process_sees_its_manifest_and_nothing_of_the_server(box: Box, journal_path: Path) -> None:
    """The environment has what the manifest says, GROVE_ variables, and none of the server's own variables."""
    container = worker(journal_path, ADDRESS="http://$(POD_IP):8000", NAME="$(GROVE_PCLQ_NAME)")
    await box.apply("env", clique("pod", container))
    pods = await box.ready(1)
    entries = await until_seen(lambda: asked(pods[0]), bool, lambda found: f"the worker answers, found {found}")
    assert entries["ADDRESS"] == f"http://{pods[0].status.pod_ip}:8000"
    assert entries["NAME"] == "env-0-pod"
    assert entries["GROVE_PCS_NAME"] == "env"
    assert "PYTEST_CURRENT_TEST" not in entries


async def test_init_containers_run_before_and_leave_their_files(box: Box, tmp_path: Path) -> None:
    """An init container ends before the main one starts, which sees what it wrote into an empty directory."""
    place = tmp_path / "scratch"
    place.mkdir()
    mount = [{"name": "scratch", "mountPath": str(place)}]
    write = f"import pathlib; pathlib.Path('{place}/note').write_text('yes')"
    check = f"import pathlib, signal; assert pathlib.Path('{place}/note').exists(); signal.pause()"
    await box.apply(
        "init",
        clique(
            "pod",
            {"name": "main", "image": "x", "command": [sys.executable, "-c", check], "volumeMounts": mount},
            initContainers=[
                {"name": "make", "image": "x", "command": [sys.executable, "-c", write], "volumeMounts": mount}
            ],
            volumes=[{"name": "scratch", "emptyDir": {}}],
        ),
    )
    pods = await box.ready(1)
    seen = await box.grove.pods.get(pods[0].metadata.name, namespace=box.namespace)
    assert (restarts(seen), list(place.iterdir())) == (0, [])


async def test_a_container_without_a_command_says_why_it_cannot_run(box: Box) -> None:
    """An image alone is nothing that this machine can run, which a condition says; nothing is started."""
    await box.apply("image", clique("pod", {"name": "main", "image": "vllm/vllm-openai"}))
    pods = await box.see(
        lambda pods: len(pods) == 1 and condition(pods[0], "PodSpecHonoured")[0] == "False", "the pod says why"
    )
    status, reason, message = condition(pods[0], "PodSpecHonoured")
    assert (status, reason) == ("False", "CannotRun")
    assert "command" in message
    assert processes_of(pods[0]) == []


async def test_a_field_that_cannot_be_honoured_is_named(box: Box, journal_path: Path) -> None:
    """A pod runs without what this machine cannot give, and says so."""
    container = worker(journal_path, container={"securityContext": {"runAsUser": 1234}})
    await box.apply("field", clique("pod", container))
    pods = await box.ready(1)
    status, reason, message = condition(pods[0], "PodSpecHonoured")
    assert (status, reason) == ("False", "FieldsNotHonoured")
    assert "securityContext" in message


async def test_what_detaches_itself_ends_with_its_pod(box: Box, journal_path: Path) -> None:
    """Processes with sessions of their own, which ignore SIGTERM, are gone when the pod is."""
    await box.apply("daemons", clique("pod", worker(journal_path, DAEMONS="3")))
    pods = await box.ready(1)
    await until_seen(
        processes_later,
        lambda found: len([each for each in found if each.pod_uid == pods[0].metadata.uid]) == 4,
        lambda found: f"a worker and three daemons run, found {found}",
    )
    await box.delete("daemons")
    assert processes_of(pods[0]) == []


async def test_a_program_that_is_not_there_is_told(box: Box) -> None:
    """A start that fails backs off, and says what was wrong."""
    await box.apply("missing", clique("pod", {"name": "main", "image": "x", "command": ["/nowhere/program"]}))
    pods = await box.see(
        lambda pods: bool(pods) and "CrashLoopBackOff" in str(pods[0].status), "the pod waits out a back-off"
    )
    assert "/nowhere/program" in str(pods[0].status)
    assert condition(pods[0], "Ready")[0] == "False"


async def test_the_machine_cannot_be_marked_down(box: Box) -> None:
    """Readiness of the real machine is what is seen of it."""
    nodes = [node async for node in box.grove.nodes.list()]
    assert len(nodes) == 1
    with pytest.raises(FailedPreconditionError):
        await box.grove.nodes.mark_down([nodes[0].metadata.name])


async def asked(pod: Pod) -> dict[str, str]:
    """Return the environment that a worker tells, empty while it does not answer."""
    try:
        return dict(json.loads((await get(pod, "/environment"))[1]))
    except OSError:
        return {}
