"""The directories of pods' emptyDir volumes: made before the first container of a pod, gone with the pod.

Each volume is one directory of the pod, which its containers see at their mount points (bind mounts of their own mount
namespaces); one that asks for memory lies in the machine's shared memory. Names come from admitted manifests, sub paths
are kept inside their volume.

Not here: which containers see what (``pod_plan.Mount``), the mounting (the launcher).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from grove_server.runtime.process.pod_plan import Mount, MountKind

MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 -- a file system in memory is what is asked for


class VolumeError(RuntimeError):
    """A mount cannot be had; the text says which and why."""


class Volumes:
    """The volumes of all pods of one server."""

    def __init__(self, folder: Path, server_id: str, memory_folder: Path = MEMORY_FOLDER) -> None:
        self._folder = folder
        self._memory_folder = memory_folder / f"grove-{server_id}"

    def binds(self, pod_uid: str, mounts: Iterable[Mount]) -> tuple[tuple[str, str], ...]:
        """Make what is missing of a pod's directories; return (source, target) of each mount. Raises VolumeError."""
        return tuple((str(self._source(pod_uid, mount)), mount.target) for mount in mounts)

    def remove(self, pod_uid: str) -> None:
        """Remove the directories of a pod, with all that is in them; harmless if there are none."""
        for folder in (self._folder, self._memory_folder):
            shutil.rmtree(folder / pod_uid, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._memory_folder.rmdir()

    def leftovers(self) -> set[str]:
        """Return the uids of the pods that have directories."""
        found: set[str] = set()
        for folder in (self._folder, self._memory_folder):
            with contextlib.suppress(OSError):
                found.update(entry.name for entry in folder.iterdir())
        return found

    def _source(self, pod_uid: str, mount: Mount) -> Path:
        if mount.kind is MountKind.HOST_PATH:
            base = Path(mount.source)
        else:
            base = (self._memory_folder if mount.in_memory else self._folder) / pod_uid / mount.volume
        source = Path(os.path.normpath(base / mount.sub_path)) if mount.sub_path else base
        if not source.is_relative_to(base):
            raise VolumeError(f"volume {mount.volume}: the sub path {mount.sub_path} leads out of it")
        if mount.kind is MountKind.EMPTY_DIR:
            try:
                # As in Kubernetes, everybody in the pod may write; the parents are the server's alone.
                base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                source.mkdir(mode=0o777, parents=True, exist_ok=True)
            except OSError as error:
                raise VolumeError(f"volume {mount.volume}: {error.filename}: {error.strerror}") from error
            if not source.resolve().is_relative_to(base.resolve()):
                raise VolumeError(f"volume {mount.volume}: the sub path {mount.sub_path} leads out of it")
        return source
