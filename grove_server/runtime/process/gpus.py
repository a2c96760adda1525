"""The GPUs of this machine as pods know them: ids that stay, who belongs together, which are out of service.

A pod's row names GPUs by small ids, and NVML's own numbers move when a GPU disappears. So ids are bound to UUIDs: the
list of UUIDs by id is kept with the node, a known UUID keeps its id, and a GPU that is missing keeps its place in the
list, out of service. After a reboot of the machine nothing runs that holds an id, and the list is made anew.

Out of service, with the reason in words, is a GPU that

* is missing, or does not answer (lost),
* is partitioned (MIG): only whole GPUs are given out,
* reported a critical XID error. Errors that applications cause themselves are no fault of the GPU; which ones is taken
  from the health check of NVIDIA's Kubernetes device plugin, and so is that a GPU with an error stays out until the
  server is started anew.

``GpuRoster`` is pure, ``GpuWatch`` looks at the machine in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from grove_server.runtime.process.nvml import LIBRARY, Device, DeviceUse, Nvml, NvmlAbsentError, NvmlError

# NVIDIA k8s-device-plugin, internal/rm/health.go: graphics engine exception, memory page fault, stopped processing,
# preemptive cleanup, video processor exception, context switch timeout.
APPLICATION_XIDS: Final = frozenset({13, 31, 43, 45, 68, 109})
# Pairs are asked for; past this many GPUs the answer would take long, and no single machine has them.
_PAIRED_GPUS_MAX: Final = 64
# A driver that answers later than this hangs.
ANSWER_MAX_S: Final = 20.0


T = TypeVar("T")


class GpusSilentError(RuntimeError):
    """NVML is there and does not answer, or fails as a whole; the text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of this machine; ``problem`` says why it is out of service, empty if it is not."""

    id: int
    uuid: str
    model: str = ""
    memory_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRoster:
    """All GPUs by id, and which belong together. ``islands`` are ids, each at most once, in order."""

    gpus: tuple[Gpu, ...] = ()
    islands: tuple[tuple[int, ...], ...] = ()

    @property
    def uuids(self) -> tuple[str, ...]:
        """The UUIDs by id."""
        return tuple(gpu.uuid for gpu in self.gpus)

    @property
    def broken_ids(self) -> tuple[int, ...]:
        """The ids that are out of service."""
        return tuple(gpu.id for gpu in self.gpus if gpu.problem)

    def visible_devices(self, gpu_ids: Sequence[int]) -> str:
        """Return CUDA_VISIBLE_DEVICES for a pod with these ids: UUIDs, since indices depend on what else is there."""
        known = {gpu.id: gpu.uuid for gpu in self.gpus}
        return ",".join(known[gpu_id] for gpu_id in gpu_ids if gpu_id in known)


def roster_of(devices: Sequence[Device], known_uuids: Sequence[str]) -> GpuRoster:
    """Return the roster of *devices*; UUIDs of *known_uuids* keep their place, new ones come behind them."""
    by_uuid = {device.uuid: device for device in devices}
    known = list(dict.fromkeys(known_uuids))
    uuids = known + [device.uuid for device in devices if device.uuid not in set(known)]
    return GpuRoster(gpus=tuple(_gpu(number, uuid, by_uuid.get(uuid)) for number, uuid in enumerate(uuids)))


def islands_of(count: int, pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of the ids 0 … *count* - 1 that *pairs* join, ascending; ids that nothing joins are alone."""
    island = list(range(count))
    for first, second in pairs:
        low, high = sorted((island[first], island[second]))
        island = [low if number == high else number for number in island]
    groups: dict[int, list[int]] = {}
    for gpu_id, number in enumerate(island):
        groups.setdefault(number, []).append(gpu_id)
    return tuple(tuple(group) for group in groups.values())


def islands_text(islands: Sequence[Sequence[int]]) -> str:
    """Return the annotation ``grove.io/gpu-islands`` that lists *islands*."""
    return ",".join("+".join(map(str, island)) for island in islands)


def _look_away(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


def _gpu(gpu_id: int, uuid: str, device: Device | None) -> Gpu:
    if device is None:
        return Gpu(id=gpu_id, uuid=uuid, problem="it is not there any more")
    problem = "it is partitioned (MIG is on), and only whole GPUs are given out" if device.is_partitioned else ""
    return Gpu(id=gpu_id, uuid=uuid, model=device.model, memory_bytes=device.memory_bytes, problem=problem)


class GpuWatch:
    """NVML in a thread of its own: finds the GPUs once, then says again and again how they are."""

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = library
        self._thread: ThreadPoolExecutor | None = None
        self._pending: asyncio.Future[Any] | None = None
        self._nvml: Nvml | None = None
        self.roster = GpuRoster()

    async def start(self, known_uuids: Sequence[str]) -> GpuRoster:
        """Find the GPUs; none without NVML, unless some are known, which are then missing.

        Raises GpusSilentError when NVML is there and fails.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nvml")
        self.roster = await self._ask(lambda: self._find(tuple(known_uuids)))
        return self.roster

    async def look(self) -> GpuRoster:
        """Return the roster as it is now. Raises GpusSilentError when NVML does not answer."""
        if self._nvml is not None:
            self.roster = await self._ask(self._looked)
        return self.roster

    async def use(self) -> dict[int, DeviceUse]:
        """Return how the GPUs that answer are used, by id. Raises GpusSilentError when NVML does not answer."""
        return {} if self._nvml is None else await self._ask(self._used)

    @property
    def is_there(self) -> bool:
        """Whether there is a library that can be asked."""
        return self._nvml is not None

    async def stop(self) -> None:
        """Give NVML back; a thread that hangs in the driver is left behind."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(GpusSilentError):
            nvml, self._nvml = self._nvml, None
            if nvml is not None:
                self._thread = thread
                await self._ask(nvml.close)
                self._thread = None
        thread.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, question: Callable[[], T]) -> T:
        """Return what *question* answers in NVML's thread; it is not asked while another one hangs."""
        assert self._thread is not None, "the watch was not started"
        if self._pending is not None and not self._pending.done():
            raise GpusSilentError("the NVIDIA driver hangs")
        answer = asyncio.get_running_loop().run_in_executor(self._thread, question)
        self._pending = answer
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                # Shielded, so that a call that hangs is seen to be under way still.
                return await asyncio.shield(answer)
        except TimeoutError as error:
            answer.add_done_callback(_look_away)
            raise GpusSilentError(f"the NVIDIA driver did not answer within {ANSWER_MAX_S:g} s") from error
        except NvmlError as error:
            raise GpusSilentError(str(error)) from error

    def _find(self, known_uuids: tuple[str, ...]) -> GpuRoster:
        try:
            nvml = Nvml(self._library)
        except NvmlAbsentError:
            return roster_of((), known_uuids)
        self._nvml = nvml
        roster = roster_of(nvml.devices(), known_uuids)
        nvml.watch_errors()
        return replace(roster, islands=_islands(nvml, roster))

    def _looked(self) -> GpuRoster:
        assert self._nvml is not None
        nvml = self._nvml
        faults: dict[str, str] = {}
        for uuid, xid in nvml.errors():
            if xid in APPLICATION_XIDS:
                continue
            # An error without a GPU could be anybody's; the device plugin takes them all out, and so do we.
            for affected in (uuid,) if uuid else self.roster.uuids:
                faults.setdefault(affected, f"it reported the critical error XID {xid}")
        return replace(self.roster, gpus=tuple(self._checked(nvml, gpu, faults) for gpu in self.roster.gpus))

    def _checked(self, nvml: Nvml, gpu: Gpu, faults: dict[str, str]) -> Gpu:
        if gpu.problem:
            return gpu
        problem = faults.get(gpu.uuid, "")
        if not problem:
            try:
                nvml.check(gpu.uuid)
            except NvmlError as error:
                problem = f"it is lost: {error}" if error.is_gone else f"it does not answer: {error}"
        return replace(gpu, problem=problem) if problem else gpu

    def _used(self) -> dict[int, DeviceUse]:
        assert self._nvml is not None
        uses = {}
        for gpu in self.roster.gpus:
            if not gpu.problem:
                with contextlib.suppress(NvmlError):
                    uses[gpu.id] = self._nvml.use(gpu.uuid)
        return uses


def _islands(nvml: Nvml, roster: GpuRoster) -> tuple[tuple[int, ...], ...]:
    """Return who reaches whom over NVLink; without any link, who shares a NUMA node; () if nothing is known."""
    there = [gpu for gpu in roster.gpus if gpu.model]
    if not 1 < len(there) <= _PAIRED_GPUS_MAX:
        return ()
    for joins in (nvml.is_linked, nvml.shares_numa_node):
        pairs = []
        for position, first in enumerate(there):
            for second in there[position + 1 :]:
                try:
                    if joins(first.uuid, second.uuid):
                        pairs.append((first.id, second.id))
                except NvmlError:
                    continue
        if pairs:
            return islands_of(len(roster.gpus), pairs)
    return ()
