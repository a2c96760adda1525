"""What a container is started with: its plan as an order for the launcher, with the groups and directories it needs.

Rules: a container sees the environment of its plan and nothing of the server's. What this machine cannot give is told
with the order where the container runs without it (limits), and refused where it must not (volumes).

Not here: what a container should be (``pod_reading``), starting it (the launcher).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from grove_server.resources.workload import Pod
from grove_server.runtime.process.cgroups import ControlGroups, Limits
from grove_server.runtime.process.gpus import GpuRoster
from grove_server.runtime.process.names import HostsFiles
from grove_server.runtime.process.pod_plan import ContainerPlan, PodPlan
from grove_server.runtime.process.runs import LaunchOrder
from grove_server.runtime.process.volumes import Volumes

VISIBLE_DEVICES: Final = "CUDA_VISIBLE_DEVICES"

# What people who start a server expect its containers to see of their own environment: where programs are, in which
# language and time zone to speak. Everything else may be a secret and is nobody's business.
_HANDED_ON: Final = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
_PATH_DEFAULT: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a container may have at most: bytes of a log file, log files, processes and threads, open files.

    ``file_count`` None leaves the limit that the server has.
    """

    log_bytes: int
    log_files: int
    process_count: int
    file_count: int | None = None


class Outfitter:
    """Makes orders."""

    def __init__(self, *, hosts: HostsFiles, groups: ControlGroups, volumes: Volumes, bounds: Bounds) -> None:
        self.hosts = hosts
        self.groups = groups
        self.volumes = volumes
        self._bounds = bounds

    def order(self, pod: Pod, container: ContainerPlan, attempt: int) -> tuple[LaunchOrder, tuple[str, ...]]:
        """Return the order for one start, and which limits the system refused. Raises VolumeError."""
        metadata = pod.metadata
        bounds = self._bounds
        limits = Limits(
            memory_bytes=container.memory_bytes_max,
            cpu_milli=container.cpu_milli_max,
            process_count=bounds.process_count,
        )
        groups = self.groups.prepare(metadata.uid, container.name, limits)
        order = LaunchOrder(
            pod_uid=metadata.uid,
            namespace=metadata.namespace,
            pod_name=metadata.name,
            container=container.name,
            attempt=attempt,
            argv=container.argv,
            environment=container.environment,
            working_dir=container.working_dir or "/",
            hosts_path=str(self.hosts.path(metadata.namespace)),
            binds=self.volumes.binds(metadata.uid, container.mounts),
            cgroup_dir=None if groups.unified is None else str(groups.unified),
            more_cgroup_dirs=tuple(map(str, groups.others)),
            file_count_max=bounds.file_count,
            # Where control groups count a container's processes, the kernel's count by user would only be in the way.
            process_count_max=None if "pids" in self.groups.enforced else bounds.process_count,
            log_bytes_max=bounds.log_bytes,
            log_files_max=bounds.log_files,
        )
        return order, groups.problems

    def discard(self, pod_uid: str) -> None:
        """Remove the directories and groups of a pod of which nothing runs any more. May take long."""
        self.volumes.remove(pod_uid)
        self.groups.remove(pod_uid)


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what containers see of the server's *environment*."""
    kept = {name: value for name, value in environment.items() if name in _HANDED_ON or name.startswith("LC_")}
    kept.setdefault("PATH", _PATH_DEFAULT)
    return kept


def pinned(plan: PodPlan, roster: GpuRoster) -> PodPlan:
    """Return *plan* with the UUIDs of GPUs where their ids stood, as far as they are known.

    Ids are ours, and CUDA's own numbers move when a GPU disappears.
    """

    def pin(containers: tuple[ContainerPlan, ...]) -> tuple[ContainerPlan, ...]:
        return tuple(_pinned(container, roster) for container in containers)

    return replace(plan, init_containers=pin(plan.init_containers), containers=pin(plan.containers))


def _pinned(container: ContainerPlan, roster: GpuRoster) -> ContainerPlan:
    ids = [word for word in container.environment.get(VISIBLE_DEVICES, "").split(",") if word.isdigit()]
    visible = roster.visible_devices([int(word) for word in ids])
    if not visible:
        return container
    return replace(container, environment={**container.environment, VISIBLE_DEVICES: visible})
