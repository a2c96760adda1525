"""What a pod runs on this machine, read from its row and its template. Pure.

Everything in the pod spec is either honoured, without meaning here, or told: a field that is not known to be one of the
first two is listed in the plan, so that nothing is ignored in silence. A container without a command cannot run: what
it would run is in its image, and images are not used here.

Without meaning on one machine without images: what places pods (the server has done that), what fetches images, and
what shares namespaces with the host, which processes do anyhow.

Not here: variables (``pod_environment``), probes and hooks (``probe_reading``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grove_server.lifecycle.pod_manifest import pod_spec
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.workload import Pod
from grove_server.runtime.process.pod_environment import ExpansionError, environment_of, expanded, with_gpus
from grove_server.runtime.process.pod_plan import (
    SIGTERM,
    ContainerPlan,
    Mount,
    NodeFacts,
    PodPlan,
    ProbeKind,
    ProbePlan,
)
from grove_server.runtime.process.pod_volumes import VolumePlan, read_mounts, read_volumes
from grove_server.runtime.process.probe_reading import read_hook, read_probe
from grove_server.runtime.process.refusals import Fields, Refusals

GPU: Final = "nvidia.com/gpu"

# Read here, or by placement, or without meaning where there are no images and one machine.
_POD_FIELDS: Final = frozenset(
    {
        "affinity",
        "containers",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostname",
        "imagePullSecrets",
        "initContainers",
        "nodeName",
        "nodeSelector",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "restartPolicy",
        "schedulerName",
        "schedulingGates",
        "schedulingGroup",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
        "workloadRef",
    }
)
_CONTAINER_FIELDS: Final = frozenset(
    {
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resizePolicy",
        "resources",
        "startupProbe",
        "volumeMounts",
        "workingDir",
    }
)
# Values that ask for nothing beyond what is anyhow so.
_MEANINGLESS: Final[Mapping[str, tuple[object, ...]]] = {
    "automountServiceAccountToken": (False,),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default"),
    "enableServiceLinks": (True, False),
    "hostUsers": (True,),
    "os": ({"name": "linux"},),
    "serviceAccount": ("", "default"),
    "serviceAccountName": ("", "default"),
    "setHostnameAsFQDN": (False,),
    "stdin": (False,),
    "stdinOnce": (False,),
    "terminationMessagePath": ("", "/dev/termination-log"),
    "terminationMessagePolicy": ("", "File"),
    "tty": (False,),
}
_REASONS: Final[Mapping[str, str]] = {
    "activeDeadlineSeconds": "a deadline for the pod is not kept",
    "automountServiceAccountToken": "there are no service accounts here",
    "dnsConfig": "names are looked up as this machine does",
    "dnsPolicy": "names are looked up as this machine does",
    "hostAliases": "no names are added to those of the pods",
    "readinessGates": "conditions of others do not count for readiness",
    "resourceClaims": "there is no dynamic allocation of devices here",
    "resources": "limits are kept for each container, not for the pod as a whole",
    "restartPolicy": "only the restart policy of the pod counts",
    "restartPolicyRules": "only the restart policy of the pod counts",
    "runtimeClassName": "containers are processes of this machine",
    "securityContext": "containers run as the user of the server, with its rights",
    "serviceAccount": "there are no service accounts here",
    "serviceAccountName": "there are no service accounts here",
    "setHostnameAsFQDN": "processes see the name of this machine",
    "stdin": "the standard input is empty",
    "terminationMessagePath": "messages of containers that end are not read",
    "terminationMessagePolicy": "messages of containers that end are not read",
    "tty": "containers have no terminal",
    "volumeDevices": "block devices are not mapped",
}
_IMAGE_ALONE: Final = "has no command: what it would run is in its image, and the process runtime uses no images"

# Linux on the machines that are supported; lifecycle.stopSignal names them.
_SIGNALS: Final[Mapping[str, int]] = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGABRT": 6,
    "SIGKILL": 9,
    "SIGUSR1": 10,
    "SIGUSR2": 12,
    "SIGALRM": 14,
    "SIGTERM": SIGTERM,
    "SIGCONT": 18,
    "SIGWINCH": 28,
}


def read_plan(pod: Pod, facts: NodeFacts, *, pod_ip: str) -> PodPlan:
    """Return what *pod* runs on the machine that *facts* tell of, with *pod_ip* as its address."""
    refusals = Refusals()
    spec = Fields(pod_spec(pod), "", refusals)
    for name in spec:
        if name not in _POD_FIELDS:
            _leave_out(spec, name)
    hostname = spec.text("hostname")
    reader = _ContainerReader(pod, facts, spec, refusals, pod_ip=pod_ip, hostname=hostname)
    inits = tuple(reader.read(container, is_init=True) for container in spec.objects("initContainers"))
    mains = tuple(reader.read(container, is_init=False) for container in spec.objects("containers"))
    if not mains:
        refusals.refuse("containers", "must not be empty")
    policy = spec.text("restartPolicy", "Always")
    if policy not in ("Always", "OnFailure", "Never"):
        refusals.refuse_value("restartPolicy", "Always, OnFailure or Never", policy)
    return PodPlan(
        init_containers=inits,
        containers=mains,
        restart_policy=policy,
        grace_s=float(spec.number("terminationGracePeriodSeconds", 30, least=0)),
        hostname=hostname,
        subdomain=spec.text("subdomain"),
        not_honoured=refusals.not_honoured,
        cannot_run=refusals.cannot_run,
    )


def _leave_out(holder: Fields, name: str) -> None:
    value = holder.raw(name)
    if value in _MEANINGLESS.get(name, ()) or value in ({}, []):
        return
    holder.refusals.leave_out(holder.at(name), _REASONS.get(name, "the process runtime does not know this field"))


class _ContainerReader:
    """Reads the containers of one pod."""

    def __init__(
        self, pod: Pod, facts: NodeFacts, spec: Fields, refusals: Refusals, *, pod_ip: str, hostname: str
    ) -> None:
        self._pod = pod
        self._facts = facts
        self._refusals = refusals
        self._pod_ip = pod_ip
        self._hostname = hostname
        self._volumes: Mapping[str, VolumePlan | None] = read_volumes(spec)
        everyone = [*spec.objects("initContainers"), *spec.objects("containers")]
        self._siblings = {container.text("name"): container for container in everyone}
        self._asks_for_gpus = any(_gpu_count(container) for container in everyone)
        self._gpus_given = 0

    def read(self, container: Fields, *, is_init: bool) -> ContainerPlan:
        """Return the plan of one container."""
        self._tell_unknown(container, is_init=is_init)
        whole, declared = environment_of(
            container,
            self._pod,
            self._facts,
            pod_ip=self._pod_ip,
            hostname=self._hostname,
            siblings=self._siblings,
        )
        is_sidecar = self._is_sidecar(container, is_init=is_init)
        gpu_ids = self._gpus_of(container, keeps=not is_init or is_sidecar)
        limits = container.fields("resources").fields("limits")
        return ContainerPlan(
            name=container.text("name"),
            is_init=is_init,
            is_sidecar=is_sidecar,
            argv=self._argv(container, declared),
            environment=with_gpus(whole, gpu_ids, container),
            working_dir=self._working_dir(container),
            mounts=self._mounts(container, declared),
            startup=self._probe(container, ProbeKind.STARTUP, may_have=not is_init or is_sidecar),
            readiness=self._probe(container, ProbeKind.READINESS, may_have=not is_init or is_sidecar),
            liveness=self._probe(container, ProbeKind.LIVENESS, may_have=not is_init or is_sidecar),
            post_start=read_hook(container, "postStart", pod_ip=self._pod_ip),
            pre_stop=read_hook(container, "preStop", pod_ip=self._pod_ip),
            stop_signal=_stop_signal(container),
            memory_bytes_max=_amount(limits, "memory"),
            cpu_milli_max=_amount(limits, "cpu"),
        )

    def _tell_unknown(self, container: Fields, *, is_init: bool) -> None:
        for name in container:
            if name not in _CONTAINER_FIELDS and not (name == "restartPolicy" and is_init):
                _leave_out(container, name)
        for port in container.objects("ports"):
            if port.raw("hostPort") not in (None, 0, port.raw("containerPort")) or port.raw("hostIP"):
                self._refusals.leave_out(port.path, "ports are reached at the address of the pod alone")

    def _is_sidecar(self, container: Fields, *, is_init: bool) -> bool:
        policy = container.text("restartPolicy") if is_init else ""
        if policy not in ("", "Always"):
            self._refusals.leave_out(container.at("restartPolicy"), "only the restart policy of the pod counts")
        return policy == "Always"

    def _argv(self, container: Fields, declared: Mapping[str, str]) -> tuple[str, ...]:
        command = container.texts("command")
        if not command:
            self._refusals.refuse(container.path, _IMAGE_ALONE)
            return ()
        try:
            argv = tuple(expanded(text, declared) for text in (*command, *container.texts("args")))
        except ExpansionError as error:
            self._refusals.refuse(container.at("args"), f"an argument {error}")
            return ()
        if not argv[0]:
            self._refusals.refuse(container.at("command"), "must name a program")
        return argv

    def _working_dir(self, container: Fields) -> str:
        path = container.text("workingDir")
        if path and not path.startswith("/"):
            self._refusals.refuse_value(container.at("workingDir"), "an absolute path", path)
        return path

    def _mounts(self, container: Fields, declared: Mapping[str, str]) -> tuple[Mount, ...]:
        return read_mounts(container, self._volumes, declared)

    def _probe(self, container: Fields, kind: ProbeKind, *, may_have: bool) -> ProbePlan | None:
        probe = read_probe(container, kind, pod_ip=self._pod_ip)
        if probe is not None and not may_have:
            self._refusals.refuse(container.at(f"{kind}Probe"), "may not be set for an init container that ends")
            return None
        return probe

    def _gpus_of(self, container: Fields, *, keeps: bool) -> tuple[int, ...]:
        """Return the GPUs of one container: its share of the pod's, in order; all of them if none asks for any."""
        ids = self._pod.gpu_ids
        if not self._asks_for_gpus:
            # The pod has a share of a GPU, or none.
            return ids
        count = _gpu_count(container)
        first = self._gpus_given
        if keeps:
            self._gpus_given += count
        return ids[first : first + count]


def _gpu_count(container: Fields) -> int:
    resources = container.fields("resources")
    for sort in ("limits", "requests"):
        amount = _amount(resources.fields(sort), GPU)
        if amount:
            return amount
    return 0


def _amount(limits: Fields, name: str) -> int | None:
    """Return a limit: thousandths of a core, bytes, or GPUs; None if there is none."""
    value = limits.raw(name)
    if value is None:
        return None
    try:
        amount = parse_quantity(str(value))
    except QuantityError as error:
        limits.refusals.refuse(limits.at(name), str(error))
        return None
    return amount.milli() if name == "cpu" else amount.whole()


def _stop_signal(container: Fields) -> int:
    lifecycle = container.fields("lifecycle")
    name = lifecycle.text("stopSignal", "SIGTERM")
    number = _SIGNALS.get(name)
    if number is None:
        lifecycle.refusals.leave_out(lifecycle.at("stopSignal"), "this signal is not known here: SIGTERM is sent")
        return SIGTERM
    return number
