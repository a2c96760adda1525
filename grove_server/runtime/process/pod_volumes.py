"""The volumes of a pod spec and where containers see them. Pure.

Two sources can be had here: ``emptyDir``, a directory of the pod's own, and ``hostPath``, a path of this machine. All
others are told and left out, with their mounts. What a mount asks for beyond its place (read-only, propagation) is told
as well.

Not here: directories and mounting (``volumes``, the launcher).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grove_server.resources.violations import quoted
from grove_server.runtime.process.pod_environment import ExpansionError, expanded
from grove_server.runtime.process.pod_plan import Mount, MountKind
from grove_server.runtime.process.refusals import Fields

# Places that the machine's own processes depend on: a container without them would not start.
_TAKEN: Final = ("/", "/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/lib", "/lib64")
_WHY_NOT: Final[Mapping[str, str]] = {
    "configMap": "there are no ConfigMaps here",
    "downwardAPI": "files about the pod are not made: use variables with a fieldRef",
    "ephemeral": "there are no volume claims here",
    "persistentVolumeClaim": "there are no volume claims here: use a hostPath",
    "projected": "there are no ConfigMaps, Secrets and tokens here",
    "secret": "there are no Secrets here",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePlan:
    """One volume that can be had; ``source`` is the path of a hostPath."""

    name: str
    kind: MountKind
    source: str = ""
    in_memory: bool = False


def read_volumes(spec: Fields) -> dict[str, VolumePlan | None]:
    """Return the volumes by name; None for those that cannot be had, which is told."""
    volumes: dict[str, VolumePlan | None] = {}
    for volume in spec.objects("volumes"):
        name = volume.text("name")
        if not name or "/" in name or name in (".", ".."):
            volume.refusals.refuse_value(volume.at("name"), "a name", name)
        else:
            volumes[name] = _read_volume(volume, name)
    return volumes


def _read_volume(volume: Fields, name: str) -> VolumePlan | None:
    sources = [field for field in volume if field != "name"]
    if "hostPath" in volume:
        return _read_host_path(volume.fields("hostPath"), name)
    if sources and sources != ["emptyDir"]:
        volume.refusals.leave_out(volume.at(sources[0]), _WHY_NOT.get(sources[0], "this volume cannot be had here"))
        return None
    directory = volume.fields("emptyDir")
    medium = directory.text("medium")
    if medium not in ("", "Memory"):
        directory.refusals.leave_out(directory.at("medium"), "the volume is an ordinary directory")
    if "sizeLimit" in directory:
        directory.refusals.leave_out(directory.at("sizeLimit"), "the size of directories is not limited")
    return VolumePlan(name=name, kind=MountKind.EMPTY_DIR, in_memory=medium == "Memory")


def _read_host_path(path: Fields, name: str) -> VolumePlan | None:
    source = path.text("path")
    if not source.startswith("/") or ".." in source.split("/"):
        path.refusals.refuse_value(path.at("path"), "an absolute path without '..'", source)
        return None
    sort = path.text("type")
    if sort.endswith("OrCreate"):
        path.refusals.leave_out(path.at("type"), "what is not there is not made")
    return VolumePlan(name=name, kind=MountKind.HOST_PATH, source=source)


def read_mounts(
    container: Fields, volumes: Mapping[str, VolumePlan | None], variables: Mapping[str, str]
) -> tuple[Mount, ...]:
    """Return where *container* sees which volume; *variables* are for a subPathExpr."""
    mounts = [_read_mount(mount, volumes, variables) for mount in container.objects("volumeMounts")]
    return tuple(mount for mount in mounts if mount is not None)


def _read_mount(mount: Fields, volumes: Mapping[str, VolumePlan | None], variables: Mapping[str, str]) -> Mount | None:
    name, target = mount.text("name"), mount.text("mountPath")
    if name not in volumes:
        mount.refusals.refuse(mount.at("name"), f"must be the name of a volume, got {quoted(name)}")
        return None
    if not target.startswith("/") or ".." in target.split("/"):
        mount.refusals.refuse_value(mount.at("mountPath"), "an absolute path without '..'", target)
        return None
    target = "/" + "/".join(part for part in target.split("/") if part not in ("", "."))
    if target in _TAKEN:
        mount.refusals.refuse(mount.at("mountPath"), "hides what processes of this machine need")
        return None
    volume = volumes[name]
    if volume is None:
        return None
    if mount.flag("readOnly"):
        mount.refusals.leave_out(mount.at("readOnly"), "the container may write there")
    if mount.text("mountPropagation", "None") != "None":
        mount.refusals.leave_out(mount.at("mountPropagation"), "mounts made later are not passed on")
    sub_path = _sub_path(mount, variables)
    if volume.kind is MountKind.HOST_PATH and not sub_path and volume.source.rstrip("/") == target:
        # It is there already.
        return None
    return Mount(
        volume=name,
        kind=volume.kind,
        source=volume.source,
        sub_path=sub_path,
        target=target,
        in_memory=volume.in_memory,
    )


def _sub_path(mount: Fields, variables: Mapping[str, str]) -> str:
    path = mount.text("subPath")
    if "subPathExpr" in mount:
        try:
            path = expanded(mount.text("subPathExpr"), variables)
        except ExpansionError as error:
            mount.refusals.refuse(mount.at("subPathExpr"), str(error))
    if path.startswith("/") or ".." in path.split("/"):
        mount.refusals.refuse_value(mount.at("subPath"), "a relative path without '..'", path)
        return ""
    return path
