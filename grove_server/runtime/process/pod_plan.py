"""What to run for one pod on this machine: its containers, their probes and hooks. Pure.

A plan is read once from the pod's row and its template (``pod_reading``) and never changes while the pod lives. All
that is said of a process is here: arguments, environment, directories, limits. Times are seconds, amounts are bytes and
thousandths of a core.

Not here: what has become of the pod (``pod_course``), how processes are started (``launching``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SIGTERM: Final = 15

# Kubernetes' defaults (core/v1 Probe).
PROBE_PERIOD_DEFAULT_S: Final = 10.0
PROBE_TIMEOUT_DEFAULT_S: Final = 1.0
PROBE_FAILURES_DEFAULT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """A GET request; an answer from 200 to 399 in time is a success. ``host`` is the pod's address if none was given.

    ``headers`` are sent as they are; a ``Host`` among them replaces ours. ``scheme`` is HTTP or HTTPS, whose
    certificate is not verified, as the kubelet does.
    """

    host: str
    port: int
    path: str = "/"
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """A connection; that it opens in time is a success."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """A program run beside the container; exit code 0 in time is a success."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcHealth:
    """A call of ``grpc.health.v1.Health/Check`` without TLS; SERVING in time is a success."""

    host: str
    port: int
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """A hook that only waits, in seconds."""

    duration_s: float


ProbeAction = HttpGet | TcpSocket | Exec | GrpcHealth
HookAction = HttpGet | TcpSocket | Exec | Sleep


class ProbeKind(enum.StrEnum):
    """What a probe is asked for."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """One probe of a container; counts are of results in a row.

    ``grace_s`` is what a container gets for its end after this probe failed, None if that is the pod's grace period.
    """

    kind: ProbeKind
    action: ProbeAction
    initial_delay_s: float = 0.0
    period_s: float = PROBE_PERIOD_DEFAULT_S
    timeout_s: float = PROBE_TIMEOUT_DEFAULT_S
    successes_needed: int = 1
    failures_needed: int = PROBE_FAILURES_DEFAULT
    grace_s: float | None = None


class MountKind(enum.StrEnum):
    """Where what is mounted comes from."""

    EMPTY_DIR = "emptyDir"
    HOST_PATH = "hostPath"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file that the container sees at ``target``.

    ``source`` is the path on this machine for HOST_PATH and empty for EMPTY_DIR, where the directory is the pod's own,
    one for each ``volume``; ``sub_path`` lies below either. ``in_memory`` asks for a file system in memory.
    """

    volume: str
    kind: MountKind
    source: str = ""
    sub_path: str = ""
    target: str
    in_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """One container: a process to run.

    ``argv`` is empty if it cannot run here (then ``PodPlan.cannot_run`` says why). ``environment`` is whole: nothing
    of the server's is added. ``working_dir`` is empty if the manifest gives none. ``is_sidecar`` is an init container
    with restartPolicy Always: it is started in its turn and keeps running. Limits are None where there are none.
    """

    name: str
    is_init: bool = False
    is_sidecar: bool = False
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    mounts: tuple[Mount, ...] = ()
    startup: ProbePlan | None = None
    readiness: ProbePlan | None = None
    liveness: ProbePlan | None = None
    post_start: HookAction | None = None
    pre_stop: HookAction | None = None
    stop_signal: int = SIGTERM
    memory_bytes_max: int | None = None
    cpu_milli_max: int | None = None

    @property
    def probes(self) -> tuple[ProbePlan, ...]:
        """Its probes, startup first."""
        return tuple(probe for probe in (self.startup, self.readiness, self.liveness) if probe is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A field of the pod spec that cannot be honoured here: its path below the pod's ``spec``, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """What to run for a pod: ``init_containers`` one after the other, then ``containers`` side by side.

    ``not_honoured`` are fields without which it runs, ``cannot_run`` those for which it is never started.
    """

    init_containers: tuple[ContainerPlan, ...] = ()
    containers: tuple[ContainerPlan, ...]
    restart_policy: str = "Always"
    grace_s: float = 30.0
    hostname: str = ""
    subdomain: str = ""
    not_honoured: tuple[Refusal, ...] = ()
    cannot_run: tuple[Refusal, ...] = ()

    @property
    def all_containers(self) -> tuple[ContainerPlan, ...]:
        """All containers in the order they start in."""
        return (*self.init_containers, *self.containers)

    def container(self, name: str) -> ContainerPlan:
        """Return the container called *name*; KeyError if there is none."""
        for container in self.all_containers:
            if container.name == name:
                return container
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a plan needs to know of this machine; quantities are Kubernetes strings.

    ``environment`` is what every container gets unless its manifest says otherwise (PATH, HOME, LANG and the like,
    chosen by whoever runs the server; never the server's own environment as it is).
    """

    name: str
    address: str = ""
    allocatable: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
