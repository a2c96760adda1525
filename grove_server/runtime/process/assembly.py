"""The process runtime, put together: one machine, its agent, and who answers questions about its containers.

Everything it keeps lies in ``<data-dir>/process``: records of runs and their logs (the launcher's), hosts files, empty
directories of pods. What lies elsewhere (control groups, directories in memory) is called after the data directory, so
that several servers on one machine do not meet.

Not here: the parts, and the order in which a server starts and stops (``app``).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from grove_server.lifecycle.plan import Note
from grove_server.runtime.interface import Clock
from grove_server.runtime.process.agent import Parts, ProcessRuntime
from grove_server.runtime.process.cgroups import ControlGroups, memory_limit_bytes, open_groups
from grove_server.runtime.process.console import Console
from grove_server.runtime.process.console import NodeFacts as ConsoleFacts
from grove_server.runtime.process.gpus import GpuWatch
from grove_server.runtime.process.launching import Launcher
from grove_server.runtime.process.machine import MachineError, parse_reservations, read_machine
from grove_server.runtime.process.names import HostsFiles, LoopbackAddresses, choose_block, listening_addresses
from grove_server.runtime.process.node_keeping import LOOPBACK, NodeKeeper, NodeOrder, kept_pod_block
from grove_server.runtime.process.outfit import Bounds, Outfitter, handed_on
from grove_server.runtime.process.pod_plan import NodeFacts
from grove_server.runtime.process.probing import Prober
from grove_server.runtime.process.program import records
from grove_server.runtime.process.volumes import Volumes
from grove_server.store.interface import Store

FOLDER: Final = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What people decide about the process runtime; ``reserve`` is text such as ``cpu=1,memory=2Gi``."""

    data_dir: Path
    node_name: str = ""
    pods_max: int
    reserve: str = ""
    bounds: Bounds
    exit_grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OneBox:
    """The parts that a server deals with."""

    runtime: ProcessRuntime
    node: NodeKeeper
    console: Console
    groups: ControlGroups

    def close(self) -> None:
        """Give back what was taken to put it together; to be called when the runtime has stopped, or never began."""
        self.console.close()
        self.groups.close()


def count_running(data_dir: Path) -> int:
    """Return how many containers run that a server with this data directory started."""
    folder = str(data_dir.resolve())
    return sum(records.is_locked(f"{records.run_dir(folder, key)}/{records.LOCK_FILE}") for key in records.keys(folder))


def assemble(
    store: Store,
    clock: Clock,
    options: Options,
    *,
    note: Callable[[Iterable[Note]], None],
    breathe: Callable[[], Awaitable[None]],
) -> OneBox:
    """Put the runtime of this machine together over an open *store*; nothing runs yet. Raises MachineError."""
    if sys.platform != "linux":
        raise MachineError("--runtime process needs Linux")
    reserved = parse_reservations(options.reserve)
    folder = options.data_dir.resolve() / FOLDER
    try:
        for name in ("hosts", "volumes"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{error.filename}: {error.strerror}") from error
    server_id = hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    groups = open_groups(server_id)
    machine = read_machine(options.data_dir, memory_limit_bytes=memory_limit_bytes())
    kept = kept_pod_block(store)
    block = IPv4Network(kept) if kept else choose_block(options.data_dir, listening_addresses())
    launcher = Launcher(options.data_dir.resolve())
    gpus = GpuWatch()
    node = NodeKeeper(
        store,
        clock,
        machine=machine,
        order=NodeOrder(
            name=options.node_name,
            pods_max=options.pods_max,
            reserved=reserved,
            limits_missing=groups.missing,
            pod_block=str(block),
        ),
        gpus=gpus,
        note=note,
    )
    outfitter = Outfitter(
        hosts=HostsFiles(folder / "hosts"),
        groups=groups,
        volumes=Volumes(folder / "volumes", server_id),
        bounds=options.bounds,
    )
    runtime = ProcessRuntime(
        store,
        clock,
        parts=Parts(
            launcher=launcher,
            prober=Prober(launcher),
            outfitter=outfitter,
            addresses=LoopbackAddresses(block),
            node=node,
            facts=NodeFacts(name=node.name, address=LOOPBACK, environment=handed_on(os.environ)),
        ),
        note=note,
        exit_grace_s=options.exit_grace_s,
        breathe=breathe,
    )
    facts = ConsoleFacts(name=node.name, cpu_count=machine.cpu_count, memory_bytes=machine.memory_bytes)
    return OneBox(runtime=runtime, node=node, console=Console(launcher, facts, gpus), groups=groups)
