"""What a pod runs on this machine, and what of its spec is told because it cannot be honoured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.resources.workload import Pod
from grove_server.runtime.process.pod_environment import TEXT_BYTES_MAX, ExpansionError, expanded
from grove_server.runtime.process.pod_plan import (
    Exec,
    GrpcHealth,
    HttpGet,
    Mount,
    MountKind,
    PodPlan,
    ProbeKind,
    ProbePlan,
    Sleep,
    TcpSocket,
)
from tests.unit.runtime.process.played import POD_IP, container, plan_of, pod_of


def plan(*containers: dict[str, Any], **spec: Any) -> PodPlan:  # noqa: ANN401 -- any field of a pod spec
    """Return what a pod with these containers runs."""
    return plan_of(pod_of(*containers, **spec))


def environment(*env: dict[str, Any], subject: Pod | None = None, **fields: Any) -> dict[str, str]:  # noqa: ANN401 -- any field of a container
    """Return the environment of a container with these variables."""
    subject = subject or pod_of(container(env=list(env), **fields))
    read = plan_of(subject)
    assert read.cannot_run == ()
    return dict(read.containers[0].environment)


def field(path: str) -> dict[str, Any]:
    """Return a variable that takes its value from a field."""
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, divisor: object = None, of: str = "") -> dict[str, Any]:
    """Return a variable that takes its value from an amount."""
    reference: dict[str, Any] = {"resource": name, "divisor": divisor}
    if of:
        reference["containerName"] = of
    return {"name": "X", "valueFrom": {"resourceFieldRef": reference}}


def refused(read: PodPlan) -> dict[str, str]:
    """Return why a pod cannot run, by path."""
    return {refusal.path: refusal.why for refusal in read.cannot_run}


def left_out(read: PodPlan) -> set[str]:
    """Return the paths of what is not honoured; the pod runs nevertheless."""
    assert read.cannot_run == ()
    return {refusal.path for refusal in read.not_honoured}


# Expansion; the cases are those of Kubernetes' own test of it (third_party/forked/golang/expansion).


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$(A)", "a"),
        ("$(A)-$(B)", "a-b"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("foo$", "foo$"),
        ("$(A)$", "a$"),
        ("$()", "$()"),
        ("$(A)$(", "a$("),
        ("$(DOLLAR)", "$(A)"),
    ],
)
def test_references_are_replaced_as_in_kubernetes(text: str, value: str) -> None:
    """``$(VAR)`` is replaced, ``$$`` stands for ``$``, and what is not defined stays."""
    assert expanded(text, {"A": "a", "B": "b", "DOLLAR": "$(A)"}) == value


def test_an_expansion_has_an_end() -> None:
    """Variables that double each other end in a refusal, not in a machine without memory."""
    with pytest.raises(ExpansionError):
        expanded("$(A)$(A)", {"A": "x" * TEXT_BYTES_MAX})
    doubling = [{"name": "V0", "value": "xxxxxxxx"}]
    doubling += [{"name": f"V{n}", "value": f"$(V{n - 1})$(V{n - 1})"} for n in range(1, 40)]
    assert "containers[0].env[V14].value" in refused(plan(container(env=doubling)))


def test_variables_refer_to_those_before_them() -> None:
    """A variable may refer to GROVE_ ones, POD_IP and those before it; not to later ones nor to the machine's."""
    read = environment(
        {"name": "URL", "value": "http://$(POD_IP):$(GROVE_PCLQ_POD_INDEX)/$(LATER)"},
        {"name": "LATER", "value": "$(URL)!"},
        {"name": "OWN", "value": "$(PATH)"},
    )
    assert read["URL"] == f"http://{POD_IP}:0/$(LATER)"
    assert read["LATER"] == f"http://{POD_IP}:0/$(LATER)!"
    assert (read["OWN"], read["PATH"]) == ("$(PATH)", "/usr/bin:/bin")


def test_a_container_has_what_its_pod_view_shows_and_nothing_of_the_server() -> None:
    """The environment is GROVE_ variables, POD_IP, HOSTNAME, the machine's few and the pinning; a manifest wins."""
    assert environment({"name": "PATH", "value": "/opt/bin"}) == {
        "PATH": "/opt/bin",
        "HOSTNAME": "s-0-router-0",
        "POD_IP": POD_IP,
        "GROVE_PCS_NAME": "s",
        "GROVE_PCS_INDEX": "0",
        "GROVE_PCLQ_NAME": "s-0-router",
        "GROVE_PCLQ_POD_INDEX": "0",
        "GROVE_HEADLESS_SERVICE": "s-0.default.svc.cluster.local",
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p0"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "uid-p0"),
        ("metadata.labels['app']", "chat"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['grove.io/gpu-ids']", "2,3"),
        ("spec.nodeName", "n0"),
        ("status.podIP", POD_IP),
        ("status.hostIP", "192.0.2.1"),
    ],
)
def test_fields_of_the_pod_become_values(path: str, value: str) -> None:
    """A fieldRef names identity, labels, annotations, node and addresses."""
    subject = pod_of(container(env=[field(path)]))
    subject = replace(subject, gpu_ids=(2, 3), metadata=replace(subject.metadata, labels={"app": "chat"}))
    assert environment(subject=subject)["X"] == value


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (resource("limits.cpu"), "2"),
        (resource("limits.cpu", "1m"), "1500"),
        (resource("requests.cpu", "1m"), "1500"),
        (resource("limits.memory", "1Mi"), "512"),
        (resource("requests.memory"), "1000"),
        (resource("requests.ephemeral-storage"), "0"),
        (resource("limits.memory", "1Gi", "other"), "16"),
        (resource("limits.cpu", "0", "other"), "8"),
    ],
)
def test_amounts_become_values_in_units_of_their_divisor(variable: dict[str, Any], value: str) -> None:
    """A resourceFieldRef rounds up; without a limit it is what the node has."""
    amounts = {"limits": {"cpu": "1500m", "memory": "512Mi"}, "requests": {"memory": 1000}}
    read = plan(container(env=[variable], resources=amounts), container("other"))
    assert read.containers[0].environment["X"] == value


def test_arguments_are_expanded_and_no_shell_sees_them() -> None:
    """Command and args become one list, each with its references replaced."""
    read = plan({"name": "m", "command": ["serve", "--host=$(POD_IP)"], "args": ["$(A)", "; rm -rf $HOME"], "env": []})
    assert read.containers[0].argv == ("serve", f"--host={POD_IP}", "$(A)", "; rm -rf $HOME")


# GPUs.


def test_containers_share_the_gpus_of_their_pod_in_order() -> None:
    """Each container sees as many GPUs as it asks for, one without a request sees none."""
    wants = {"limits": {"nvidia.com/gpu": 1}}
    more = {"limits": {"nvidia.com/gpu": "2"}}
    subject = pod_of(
        container("a", resources=wants),
        container("b"),
        container("c", resources=more),
        inits=[container("i", resources=more)],
    )
    read = plan_of(replace(subject, gpu_ids=(1, 4, 6)))
    seen = {each.name: each.environment["CUDA_VISIBLE_DEVICES"] for each in read.all_containers}
    assert seen == {"i": "1,4", "a": "1", "b": "", "c": "4,6"}


def test_a_share_of_a_gpu_is_seen_by_all_containers() -> None:
    """A pod with a GPU that no container asks for by number has a share of it."""
    read = plan_of(replace(pod_of(container("a"), container("b")), gpu_ids=(5,)))
    assert {each.environment["CUDA_VISIBLE_DEVICES"] for each in read.containers} == {"5"}


def test_the_pinning_of_gpus_cannot_be_undone_by_a_manifest() -> None:
    """A CUDA_VISIBLE_DEVICES of the manifest is replaced, and told."""
    read = plan(container(env=[{"name": "CUDA_VISIBLE_DEVICES", "value": "0,1"}]))
    assert read.containers[0].environment["CUDA_VISIBLE_DEVICES"] == ""
    assert left_out(read) == {"containers[0].env[CUDA_VISIBLE_DEVICES]"}


# Probes and hooks.


def test_probes_have_the_defaults_of_kubernetes() -> None:
    """Period 10 s, timeout 1 s, three failures, one success, no delay."""
    read = plan(container(readinessProbe={"tcpSocket": {"port": 80}})).containers[0]
    assert read.readiness == ProbePlan(kind=ProbeKind.READINESS, action=TcpSocket(host=POD_IP, port=80))
    assert (read.readiness.period_s, read.readiness.timeout_s, read.readiness.failures_needed) == (10, 1, 3)


def test_probes_are_read_in_full() -> None:
    """Every field of the four kinds of probes and of hooks is kept; named ports are looked up."""
    read = plan(
        container(
            ports=[{"name": "web", "containerPort": 8000}],
            startupProbe={"grpc": {"port": 9000, "service": "s"}, "terminationGracePeriodSeconds": 7},
            readinessProbe={
                "httpGet": {"path": "health", "port": "web", "httpHeaders": [{"name": "A", "value": "b"}]},
                "initialDelaySeconds": 1,
                "periodSeconds": 2,
                "timeoutSeconds": 3,
                "successThreshold": 4,
                "failureThreshold": 5,
            },
            livenessProbe={"exec": {"command": ["check", "$(POD_IP)"]}},
            lifecycle={
                "postStart": {"httpGet": {"port": "9", "host": "127.0.0.9", "scheme": "HTTPS"}},
                "preStop": {"sleep": {"seconds": 6}},
                "stopSignal": "SIGINT",
            },
        )
    ).containers[0]
    assert read.startup is not None
    assert (read.startup.action, read.startup.grace_s) == (GrpcHealth(host=POD_IP, port=9000, service="s"), 7)
    assert read.readiness == ProbePlan(
        kind=ProbeKind.READINESS,
        action=HttpGet(host=POD_IP, port=8000, path="/health", headers=(("A", "b"),)),
        initial_delay_s=1,
        period_s=2,
        timeout_s=3,
        successes_needed=4,
        failures_needed=5,
    )
    assert read.liveness is not None
    assert read.liveness.action == Exec(argv=("check", "$(POD_IP)"))
    assert read.post_start == HttpGet(host="127.0.0.9", port=9, scheme="HTTPS")
    assert (read.pre_stop, read.stop_signal) == (Sleep(duration_s=6), 2)


# What cannot be had.


def test_a_container_without_a_command_is_refused() -> None:
    """What it would run is in its image, with arguments or without."""
    read = plan({"name": "m", "image": "vllm/vllm-openai", "args": ["--model", "x"]}, container("other"))
    assert refused(read) == {
        "containers[0]": "has no command: what it would run is in its image, and the process runtime uses no images"
    }


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"securityContext": {"runAsUser": 1000}}, "securityContext"),
        ({"dnsPolicy": "None"}, "dnsPolicy"),
        ({"hostAliases": [{"ip": "127.0.0.1", "hostnames": ["x"]}]}, "hostAliases"),
        ({"serviceAccountName": "admin"}, "serviceAccountName"),
        ({"activeDeadlineSeconds": 60}, "activeDeadlineSeconds"),
        ({"runtimeClassName": "kata"}, "runtimeClassName"),
        ({"fieldOfTheFuture": 1}, "fieldOfTheFuture"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "volumes[0].secret"),
        ({"volumes": [{"name": "v", "configMap": {"name": "s"}}]}, "volumes[0].configMap"),
        ({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}, "volumes[0].emptyDir.sizeLimit"),
    ],
)
def test_fields_of_the_pod_that_cannot_be_honoured_are_told(spec: dict[str, Any], path: str) -> None:
    """The pod runs without them, and its plan lists each with its path."""
    assert left_out(plan(**spec)) == {path}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"securityContext": {"privileged": True}}, "securityContext"),
        ({"tty": True}, "tty"),
        ({"stdin": True}, "stdin"),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, "envFrom"),
        (
            {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            "env[K].valueFrom.secretKeyRef",
        ),
        ({"lifecycle": {"stopSignal": "SIGRTMIN+3"}}, "lifecycle.stopSignal"),
        ({"terminationMessagePath": "/tmp/message"}, "terminationMessagePath"),
        ({"ports": [{"containerPort": 80, "hostPort": 8080}]}, "ports[0]"),
        ({"restartPolicy": "Never"}, "restartPolicy"),
    ],
)
def test_fields_of_a_container_that_cannot_be_honoured_are_told(fields: dict[str, Any], path: str) -> None:
    """As those of the pod; a variable from a Secret is left out."""
    read = plan(container(**fields))
    assert left_out(read) == {f"containers[0].{path}"}
    assert "K" not in read.containers[0].environment


def test_what_is_without_meaning_here_is_not_told() -> None:
    """Defaults, optional references, what places pods, and what concerns images are no news."""
    read = plan(
        container(
            image="x",
            imagePullPolicy="Always",
            ports=[{"containerPort": 80}],
            terminationMessagePath="/dev/termination-log",
            env=[{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}],
        ),
        dnsPolicy="ClusterFirst",
        nodeSelector={"a": "b"},
        imagePullSecrets=[{"name": "s"}],
        hostNetwork=True,
        securityContext={},
    )
    assert left_out(read) == set()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"livenessProbe": {}}, "livenessProbe"),
        ({"livenessProbe": {"httpGet": {"port": "nowhere"}}}, "livenessProbe.httpGet.port"),
        ({"livenessProbe": {"tcpSocket": {"port": 70000}}}, "livenessProbe.tcpSocket.port"),
        ({"livenessProbe": {"exec": {"command": []}}}, "livenessProbe.exec.command"),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": "5"}}, "livenessProbe.periodSeconds"),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}, "livenessProbe.successThreshold"),
        ({"livenessProbe": {"httpGet": {"port": 1, "path": "/a b"}}}, "livenessProbe.httpGet.path"),
        (
            {"livenessProbe": {"httpGet": {"port": 1, "httpHeaders": [{"name": "A", "value": "b\r\nC: d"}]}}},
            "livenessProbe.httpGet.httpHeaders[0]",
        ),
        ({"lifecycle": {"preStop": {}}}, "lifecycle.preStop"),
        ({"workingDir": "here"}, "workingDir"),
        ({"command": ["a\x00b"]}, "command"),
        ({"command": "sleep"}, "command"),
        ({"env": [field("spec.secrets")]}, "env[X].valueFrom.fieldRef.fieldPath"),
        ({"env": [resource("limits.cpu", None, "nobody")]}, "env[X].valueFrom.resourceFieldRef.containerName"),
        ({"volumeMounts": [{"name": "nowhere", "mountPath": "/x"}]}, "volumeMounts[0].name"),
    ],
)
def test_what_has_not_the_form_of_the_api_keeps_the_pod_from_running(fields: dict[str, Any], path: str) -> None:
    """A probe or reference that cannot be read is no probe at all: the pod is not started, and told why."""
    assert f"containers[0].{path}" in refused(plan(container(**fields)))


def test_a_probe_of_an_init_container_that_ends_is_refused() -> None:
    """Only sidecars may have probes among the init containers."""
    probe = {"tcpSocket": {"port": 1}}
    assert "initContainers[0].readinessProbe" in refused(plan(inits=[container("i", readinessProbe=probe)]))
    assert refused(plan(inits=[container("i", readinessProbe=probe, restartPolicy="Always")])) == {}


# Volumes and limits.


def test_directories_of_the_pod_and_of_the_machine_are_mounted() -> None:
    """An emptyDir and a hostPath can be had; what is at its place already needs no mount."""
    mounts = [
        {"name": "scratch", "mountPath": "/scratch/", "subPathExpr": "of-$(GROVE_PCS_NAME)"},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "models", "mountPath": "/models", "readOnly": True},
        {"name": "same", "mountPath": "/srv/data"},
        {"name": "token", "mountPath": "/token"},
    ]
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "models", "hostPath": {"path": "/srv/models"}},
        {"name": "same", "hostPath": {"path": "/srv/data"}},
        {"name": "token", "projected": {"sources": []}},
    ]
    read = plan(container(volumeMounts=mounts), volumes=volumes)
    assert read.containers[0].mounts == (
        Mount(volume="scratch", kind=MountKind.EMPTY_DIR, sub_path="of-s", target="/scratch"),
        Mount(volume="shm", kind=MountKind.EMPTY_DIR, target="/dev/shm", in_memory=True),
        Mount(volume="models", kind=MountKind.HOST_PATH, source="/srv/models", target="/models"),
    )
    assert left_out(read) == {"containers[0].volumeMounts[2].readOnly", "volumes[4].projected"}


@pytest.mark.parametrize("path", ["/", "/etc/", "//proc", "/usr/../etc", "relative"])
def test_what_a_process_needs_is_not_hidden_from_it(path: str) -> None:
    """Mounts over the machine's own places, and paths that climb, keep the pod from running."""
    mounts = [{"name": "v", "mountPath": path}]
    read = plan(container(volumeMounts=mounts), volumes=[{"name": "v", "emptyDir": {}}])
    assert set(refused(read)) == {"containers[0].volumeMounts[0].mountPath"}


def test_limits_are_bytes_and_thousandths_of_a_core() -> None:
    """Limits of memory and cpu are read per container; without one there is none."""
    read = plan(container(resources={"limits": {"cpu": "1.5", "memory": "1Ki"}}), container("b")).containers
    assert [(each.cpu_milli_max, each.memory_bytes_max) for each in read] == [(1500, 1024), (None, None)]


def test_the_pod_says_how_it_restarts_and_how_long_it_takes_to_stop() -> None:
    """Restart policy, grace period, hostname and subdomain are those of the pod's view."""
    read = plan(restartPolicy="OnFailure", terminationGracePeriodSeconds=5)
    assert (read.restart_policy, read.grace_s, read.hostname, read.subdomain) == ("OnFailure", 5, "s-0-router-0", "s-0")
