"""The row of this machine's node: made at the start of a server, kept true while it runs.

Rules:

* One node, whose name stays: that of the row that is there, unless a setting gives another.
* What people decided (cordon, drain) is theirs. What the machine is, and which of its GPUs are in service, is written
  here alone.
* GPU ids outlive the server: the row keeps the UUID behind each id, for as long as the machine is not booted anew.
* GPUs are looked at every few seconds. One that is out of service is no longer offered, which a condition of the node
  and an event say; a driver that does not answer changes nothing but the condition.

Not here: what becomes of pods on a broken GPU (the node agent), the library (``nvml``) and its verdicts (``gpus``).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from grove_server.lifecycle.plan import EVENT_WARNING, Note
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.resources.cluster import Node
from grove_server.resources.labels import GPU_ISLANDS, label_value_problem
from grove_server.resources.meta import Condition, Kind, Metadata, with_condition
from grove_server.runtime.interface import Clock
from grove_server.runtime.process.gpus import Gpu, GpuRoster, GpusSilentError, GpuWatch, islands_text
from grove_server.runtime.process.machine import Machine, allocatable_of, capacity_of
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Applied, Put, Store
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

GPUS_IN_SERVICE: Final = "GpusInService"
LIMITS_ENFORCED: Final = "LimitsEnforced"
BOOT_ID: Final = "grove.io/boot-id"
GPU_UUIDS: Final = "grove.io/gpu-uuids"
POD_BLOCK: Final = "grove.io/pod-cidr"
LOOPBACK: Final = "127.0.0.1"

# The levels of the built-in topology: a machine is a domain of its own at each of them.
_TOPOLOGY_LABELS: Final = (
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.grove.io/block",
    "topology.grove.io/rack",
)
_LOOK_INTERVAL_S: Final = 5.0
_RETRY_S: Final = 1.0

_log = get_logger("runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOrder:
    """How this machine is to be offered.

    ``name`` is empty for that of the machine; ``reserved`` is by resource, thousandths for cpu and bytes or pieces for
    the rest; ``limits_missing`` says what cannot be limited here.
    """

    name: str = ""
    pods_max: int
    reserved: Mapping[str, int] = field(default_factory=dict)
    limits_missing: str = ""
    pod_block: str = ""


def kept_node(store: Store) -> Node | None:
    """Return the row that an earlier server of this kind wrote for its machine, if there is one."""
    return next((node for node in store.read().sorted_list(Node) if BOOT_ID in node.metadata.annotations), None)


def kept_pod_block(store: Store) -> str:
    """Return the block of the pods' addresses that an earlier server chose; empty if there was none."""
    node = kept_node(store)
    return "" if node is None else node.metadata.annotations.get(POD_BLOCK, "")


class NodeKeeper:
    """Keeps the node of this machine."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        machine: Machine,
        order: NodeOrder,
        gpus: GpuWatch,
        note: Callable[[Iterable[Note]], None],
    ) -> None:
        """Offer *machine* as *order* says; *note* takes what people should know."""
        self._store = store
        self._clock = clock
        self._machine = machine
        self._order = order
        self._note = note
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        # What was seen before anybody could be told.
        self._untold: list[Note] = []
        self.gpus = gpus
        kept = kept_node(store)
        self.name = order.name or (machine.name if kept is None else kept.metadata.name)

    @property
    def roster(self) -> GpuRoster:
        """The GPUs as last seen."""
        return self.gpus.roster

    async def find(self) -> Node:
        """Look at the machine and return its node, for the store to be seeded with.

        Raises MachineError when more is reserved than there is.
        """
        kept = kept_node(self._store)
        annotations = {} if kept is None else kept.metadata.annotations
        known = [uuid for uuid in annotations.get(GPU_UUIDS, "").split(",") if uuid]
        is_same_boot = annotations.get(BOOT_ID) == self._machine.boot_id
        try:
            roster = await self.gpus.start(known if is_same_boot else ())
        except GpusSilentError as error:
            self._trouble = str(error)
            roster = self.roster
            _log.warning("gpus_silent", error=self._trouble)
        if not is_same_boot and (gone := sorted(set(known) - set(roster.uuids))):
            self._tell("GpusChanged", f"since the machine was booted anew these GPUs are missing: {', '.join(gone)}")
        self._tell_broken(roster.gpus)
        return self._node(() if kept is None else kept.conditions)

    async def start(self) -> None:
        """Call the machine ready, and look at its GPUs from now on."""
        await self._update(ready=True)
        self._note(self._untold)
        self._untold = []
        if self._task is None and self.gpus.is_there:
            self._task = asyncio.create_task(self._run(), name="node-keeper")

    async def stop(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.gpus.stop()

    def _node(self, conditions: tuple[Condition, ...]) -> Node:
        gpus = self.roster.gpus
        # Whoever reserves GPUs keeps the last ones for himself.
        offered = len(gpus) - self._order.reserved.get(GPU_RESOURCE, 0)
        broken = tuple(gpu_id for gpu_id in self.roster.broken_ids if gpu_id < offered)
        capacity = capacity_of(self._machine, gpu_count=len(gpus), pods_max=self._order.pods_max)
        metrics.GPUS_OUT_OF_SERVICE.set(len(self.roster.broken_ids))
        for condition in self._conditions():
            conditions = with_condition(conditions, condition)
        return Node(
            metadata=Metadata(name=self.name, labels=self._labels(), annotations=self._annotations()),
            capacity=capacity,
            allocatable=allocatable_of(capacity, self._order.reserved, broken_gpus=len(broken)),
            address=LOOPBACK,
            broken_gpus=broken,
            conditions=conditions,
        )

    def _labels(self) -> dict[str, str]:
        labels = {**dict.fromkeys(_TOPOLOGY_LABELS, self.name), **self._machine.labels}
        models = {gpu.model for gpu in self.roster.gpus if gpu.model}
        if models:
            labels["nvidia.com/gpu.present"] = "true"
            # As NVIDIA's GPU feature discovery words it.
            product = re.sub(r"[^A-Za-z0-9_.-]+", "-", min(models)).strip("-_.")
            if label_value_problem(product) is None:
                labels["nvidia.com/gpu.product"] = product
        return labels

    def _annotations(self) -> dict[str, str]:
        annotations = {BOOT_ID: self._machine.boot_id}
        if self._order.pod_block:
            annotations[POD_BLOCK] = self._order.pod_block
        if self.roster.gpus:
            annotations[GPU_UUIDS] = ",".join(self.roster.uuids)
        if self.roster.islands:
            annotations[GPU_ISLANDS] = islands_text(self.roster.islands)
        return annotations

    def _conditions(self) -> Iterable[Condition]:
        now = self._clock.now()
        missing = self._order.limits_missing
        yield Condition(
            type=LIMITS_ENFORCED,
            status="False" if missing else "True",
            reason="ControlGroupsMissing" if missing else "ControlGroups",
            message=missing or "memory, processor time and processes of containers are limited by control groups",
            last_transition_at=now,
        )
        gpus = self.roster.gpus
        if not gpus and not self._trouble:
            return
        broken = [f"GPU {gpu.id} ({gpu.uuid}): {gpu.problem}" for gpu in gpus if gpu.problem]
        status, reason, message = "True", "AllInService", f"all {len(gpus)} GPUs are in service"
        if broken:
            status, reason, message = "False", "GpusOutOfService", "; ".join(broken)
        if self._trouble:
            status, reason = ("False" if broken else "Unknown"), "DriverSilent"
            message = "; ".join([self._trouble, *broken])
        yield Condition(type=GPUS_IN_SERVICE, status=status, reason=reason, message=message, last_transition_at=now)

    # While the server runs.

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_INTERVAL_S)
            try:
                await self._look()
            except StoreUnavailableError as error:
                _log.warning("node_not_written", error=str(error))
            except Exception:  # noqa: BLE001 -- a supervised loop: it reports, pauses and goes on
                metrics.INTERNAL_ERRORS.labels("node-keeper").inc()
                _log.exception("node_keeper_failed")

    async def _look(self) -> None:
        before, trouble = self.roster, self._trouble
        try:
            await self.gpus.look()
            self._trouble = ""
        except GpusSilentError as error:
            self._trouble = str(error)
        known = {gpu.uuid for gpu in before.gpus if gpu.problem}
        self._tell_broken(gpu for gpu in self.roster.gpus if gpu.uuid not in known)
        self._note(self._untold)
        self._untold = []
        # A write that failed is made up for at a later look: the row is compared, not the roster.
        await self._update()
        if self._trouble and self._trouble != trouble:
            _log.warning("gpus_silent", error=self._trouble)

    async def _update(self, *, ready: bool | None = None) -> None:
        """Bring the row up to date, however often somebody else changes it meanwhile."""
        while True:
            row = self._store.read().get(Node, "", self.name)
            if row is None:
                return
            wanted = self._node(row.conditions)
            changed = replace(
                row,
                metadata=replace(row.metadata, annotations=wanted.metadata.annotations, labels=wanted.metadata.labels),
                capacity=wanted.capacity,
                allocatable=wanted.allocatable,
                broken_gpus=wanted.broken_gpus,
                conditions=wanted.conditions,
            )
            if ready is not None and row.ready is not ready:
                changed = replace(changed, ready=ready, ready_changed_at=self._clock.now())
            if changed == row:
                return
            outcomes = await self._store.commit([Put(changed, row.resource_version)], cause="runtime.node")
            if isinstance(outcomes[0], Applied):
                return
            await self._clock.sleep(_RETRY_S)

    def _tell_broken(self, gpus: Iterable[Gpu]) -> None:
        for gpu in gpus:
            if gpu.problem:
                self._tell("GpuOutOfService", f"GPU {gpu.id} ({gpu.uuid}) is out of service: {gpu.problem}")
                _log.warning("gpu_out_of_service", gpu=gpu.id, uuid=gpu.uuid, problem=gpu.problem)

    def _tell(self, reason: str, message: str) -> None:
        note = Note(
            kind=Kind.NODE,
            namespace="",
            name=self.name,
            uid="",
            reason=reason,
            message=message,
            type=EVENT_WARNING,
        )
        self._untold.append(note)
