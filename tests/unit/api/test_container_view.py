"""How the containers of a pod look from outside where its runtime knows them one by one."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from grove_server.api.conversions.pods import pod_message
from grove_server.resources.codec import decode, encode
from grove_server.resources.containers import ContainerEnd, ContainerStatus
from grove_server.resources.meta import Condition, Kind
from grove_server.resources.workload import Pod, PodPhase
from grovectl.columns import pod_ready, pod_status
from tests.unit.runtime.simulated import EPOCH_S, pod, template

END = ContainerEnd(
    exit_code=137,
    signal=9,
    reason="OOMKilled",
    message="out of memory",
    started_at=EPOCH_S,
    finished_at=EPOCH_S + 2,
)
DONE = ContainerEnd(exit_code=0, reason="Completed", started_at=EPOCH_S, finished_at=EPOCH_S + 1)
AT = "1970-01-12T13:46:4{}.000Z"
TEMPLATE = template(
    containers=[{"name": "model", "image": "x"}, {"name": "proxy"}],
    initContainers=[{"name": "load"}, {"name": "check"}],
)


def of(*containers: ContainerStatus, **fields: Any) -> Pod:  # noqa: ANN401 -- any field of the resource
    """Return a pod with these containers."""
    return pod(template=TEMPLATE, containers=containers, **fields)


def status_of(subject: Pod) -> dict[str, Any]:
    """Return the status as JSON."""
    shown: dict[str, Any] = json_format.MessageToDict(pod_message(subject))["status"]
    return shown


LOAD = ContainerStatus(name="load", is_init=True, last_end=DONE)
CHECK = ContainerStatus(name="check", is_init=True, last_end=DONE)
PROXY = ContainerStatus(name="proxy", started_at=EPOCH_S + 3, is_started=True, is_ready=True)


def test_each_container_has_its_own_state() -> None:
    """One waits for its next start, with the end before; the other runs, and the pod's column counts both."""
    model = ContainerStatus(
        name="model", restart_count=3, waiting_reason="CrashLoopBackOff", waiting_message="back-off 40s", last_end=END
    )
    subject = of(LOAD, CHECK, model, PROXY, phase=PodPhase.RUNNING)
    shown = status_of(subject)
    assert shown["containerStatuses"] == [
        {
            "name": "model",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
            "lastState": {
                "terminated": {
                    "exitCode": 137,
                    "signal": 9,
                    "reason": "OOMKilled",
                    "message": "out of memory",
                    "startedAt": AT.format(0),
                    "finishedAt": AT.format(2),
                }
            },
            "ready": False,
            "restartCount": 3,
            "image": "x",
            "started": False,
        },
        {
            "name": "proxy",
            "state": {"running": {"startedAt": AT.format(3)}},
            "ready": True,
            "restartCount": 0,
            "started": True,
        },
    ]
    assert (pod_status(pod_message(subject)), pod_ready(pod_message(subject))) == ("CrashLoopBackOff", "1/2")


def test_a_container_that_is_over_has_ended_state_and_no_other() -> None:
    """Without a next start the last end is the state; an init container that ended well counts as ready."""
    shown = status_of(of(LOAD, CHECK, PROXY))
    (load, check) = shown["initContainerStatuses"]
    assert (load["state"]["terminated"]["reason"], "lastState" in load, load["ready"]) == ("Completed", False, True)
    assert check["name"] == "check"


def test_a_pod_is_initialized_once_its_init_containers_are_through() -> None:
    """Until then the condition names those that are not."""
    waiting = ContainerStatus(name="check", is_init=True, waiting_reason="PodInitializing")
    model = ContainerStatus(name="model", waiting_reason="PodInitializing")
    conditions = {each["type"]: each for each in status_of(of(LOAD, waiting, model))["conditions"]}
    assert (conditions["Initialized"]["status"], conditions["Initialized"]["reason"]) == (
        "False",
        "ContainersNotInitialized",
    )
    assert conditions["Initialized"]["message"] == "containers with incomplete status: [check]"
    conditions = {each["type"]: each for each in status_of(of(LOAD, CHECK, model))["conditions"]}
    assert (conditions["Initialized"]["status"], conditions["Initialized"]["lastTransitionTime"]) == (
        "True",
        AT.format(1),
    )


def test_the_conditions_of_the_runtime_stand_behind_ours() -> None:
    """What the runtime says of a pod is shown with its reason, its words and its time."""
    said = Condition(
        type="PodSpecHonoured",
        status="False",
        reason="FieldsNotHonoured",
        message="tty: no terminal",
        last_transition_at=EPOCH_S,
    )
    conditions = status_of(pod(conditions=(said,)))["conditions"]
    assert [each["type"] for each in conditions] == [
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "Ready",
        "PodSpecHonoured",
    ]
    assert (conditions[-1]["status"], conditions[-1]["message"]) == ("False", "tty: no terminal")


def test_rows_keep_containers_and_are_no_longer_without_them() -> None:
    """What a runtime knows of containers survives the disk; a pod without it has the row it had before."""
    subject = of(LOAD, PROXY, conditions=(Condition(type="A", status="False", reason="B"),))
    assert decode(Kind.POD, encode(subject), {"default/router-x": TEMPLATE}.__getitem__) == subject
    assert b"containers" not in encode(pod())
    assert b"conditions" not in encode(pod())
