"""What people ask of running containers: the answers to logs, exec and top, out of runs, log files and `/proc`.

The latest run of a container is the one that is meant; `previous` is the one before it. A container that has not run
has no output; one that has run without a word has empty output. Following ends with the run: what a restart writes is
another run's output.

Files and `/proc` are read in threads of the console's own, so that a slow disk holds up neither the event loop nor
the threads of others. Use is measured at most once in `_FRESH_S`, whoever asks.

Not here: the messages (the API), what a run is (`runs`), the processes of exec (the launcher).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from grove_server.resources.workload import Pod
from grove_server.runtime.containers import (
    Command,
    CommandSession,
    ContainerRefusedError,
    ContainerUse,
    GpuUse,
    LogQuery,
    NodeUse,
    Opened,
    Output,
    PodUse,
    Refused,
    Use,
    Window,
    container_of,
)
from grove_server.runtime.process.gpus import GpuRoster, GpusSilentError
from grove_server.runtime.process.launching import ExecSession
from grove_server.runtime.process.log_reading import LogReader, attempts, follow
from grove_server.runtime.process.nvml import DeviceUse
from grove_server.runtime.process.runs import LaunchError, Run, RunKey
from grove_server.runtime.process.usage import Sample, cores_between, take_sample
from grove_server.telemetry.logs import get_logger

# A sample is good for so long; between two that cores are computed from lies at least, and at most, so long.
_FRESH_S: Final = 1.0
_WINDOW_MIN_S: Final = 0.5
_WINDOW_MAX_S: Final = 60.0
_THREADS: Final = 2
# What terminals of a command are told to be; nearly all understand it.
_TERMINAL: Final = "xterm"
_WINDOW: Final = Window(80, 24)
_OVER: Final = "RunEnded"

_log = get_logger("runtime")


class Runs(Protocol):
    """What is asked of the launcher."""

    def runs(self) -> tuple[Run, ...]:
        """Return every known run, sorted by key."""

    def find(self, key: RunKey) -> Run | None:
        """Return one of them."""

    def log_path(self, pod_uid: str, container: str, attempt: int) -> Path:
        """Return where a run's log is written."""

    async def attach(
        self,
        run: Run,
        argv: Sequence[str],
        *,
        tty: bool,
        stdin: bool = True,
        environment: Mapping[str, str] | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> ExecSession:
        """Run a command beside a run."""


class Gpus(Protocol):
    """What is asked of the watch over GPUs."""

    @property
    def roster(self) -> GpuRoster:
        """All GPUs."""

    async def use(self) -> dict[int, DeviceUse]:
        """Return how those that answer are used. Raises GpusSilentError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """The node that this machine is."""

    name: str
    cpu_count: int
    memory_bytes: int


class Console:
    """Answers questions about containers. Owned by the event loop."""

    def __init__(self, runs: Runs, node: NodeFacts, gpus: Gpus | None = None) -> None:
        self._runs = runs
        self._node = node
        self._gpus = gpus
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="console")
        self._measuring = asyncio.Lock()
        self._samples: tuple[Sample | None, Sample] | None = None

    def close(self) -> None:
        """Give back the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def logs(self, pod: Pod, container: str, query: LogQuery) -> Opened:
        """Open the output of a container's run. Raises ContainerRefusedError."""
        container = container_of(pod, container)
        key = self._logged_run(pod, container, previous=query.previous)
        reader = LogReader(self._runs.log_path(*key).parent, key[2])
        pieces = follow(reader, query, is_over=lambda: not self._goes_on(key), threads=self._threads)
        return Opened(container, key[2], pieces)

    async def run(self, pod: Pod, container: str, command: Command) -> tuple[str, CommandSession]:
        """Run a command beside the run of a container. Raises ContainerRefusedError."""
        container = container_of(pod, container)
        run = self._latest(pod.metadata.uid, container)
        if run is None or run.ended is not None:
            raise ContainerRefusedError(
                Refused.NOT_RUNNING, f"container {container} of pod {pod.metadata.name} does not run"
            )
        terminal = command.terminal
        try:
            session = await self._runs.attach(
                run,
                command.argv,
                tty=terminal is not None,
                stdin=command.takes_input,
                environment={"TERM": _TERMINAL} if terminal is not None else None,
                rows=(terminal or _WINDOW).rows,
                columns=(terminal or _WINDOW).columns,
            )
        except LaunchError as error:
            why = Refused.NOT_RUNNING if error.reason == _OVER else Refused.CANNOT_START
            raise ContainerRefusedError(why, error.message) from error
        return container, _Session(session)

    async def usage(self, pods: Iterable[Pod]) -> Use:
        """Return what pods with runs, and this machine, use."""
        async with self._measuring:
            before, after = await self._sampled()
        elapsed_s = after.taken_s - before.taken_s if before is not None else 0.0
        gpus = await self._gpu_uses()
        by_pod: dict[str, list[ContainerUse]] = {}
        for key, sample in sorted(after.runs.items()):
            cores = cores_between(before.runs.get(key) if before is not None else None, sample, elapsed_s)
            use = ContainerUse(key[1], cores, sample.memory_bytes, sample.process_count)
            by_pod.setdefault(key[0], []).append(use)
        busy = None if before is None else max(0.0, after.busy_s - before.busy_s) / elapsed_s
        node = self._node
        return Use(
            [
                PodUse(
                    pod, by_pod[pod.metadata.uid], [gpus[gpu_id] for gpu_id in sorted(pod.gpu_ids) if gpu_id in gpus]
                )
                for pod in pods
                if pod.metadata.uid in by_pod
            ],
            [
                NodeUse(
                    node.name,
                    busy,
                    float(node.cpu_count),
                    after.memory_bytes,
                    node.memory_bytes,
                    [gpus[gpu_id] for gpu_id in sorted(gpus)],
                )
            ],
            elapsed_s,
        )

    def _attempts(self, pod_uid: str, container: str) -> dict[int, Run]:
        return {run.attempt: run for run in self._runs.runs() if (run.pod_uid, run.container) == (pod_uid, container)}

    def _latest(self, pod_uid: str, container: str) -> Run | None:
        found = self._attempts(pod_uid, container)
        return found[max(found)] if found else None

    def _goes_on(self, key: RunKey) -> bool:
        run = self._runs.find(key)
        return run is not None and run.ended is None

    def _logged_run(self, pod: Pod, container: str, *, previous: bool) -> RunKey:
        """Return the run whose output is meant; the files count, too, since records of runs are forgotten earlier."""
        uid = pod.metadata.uid
        known = {*self._attempts(uid, container), *attempts(self._runs.log_path(uid, container, 0).parent)}
        if not known:
            raise ContainerRefusedError(
                Refused.NO_OUTPUT, f"container {container} of pod {pod.metadata.name} has not started yet"
            )
        if previous and len(known) == 1:
            raise ContainerRefusedError(
                Refused.NO_OUTPUT, f"container {container} of pod {pod.metadata.name} has no run before this one"
            )
        return uid, container, sorted(known)[-2 if previous else -1]

    async def _sampled(self) -> tuple[Sample | None, Sample]:
        """Return two samples far enough apart, the last one fresh."""
        now_s = time.monotonic()
        if self._samples is not None and now_s - self._samples[1].taken_s < _FRESH_S:
            return self._samples
        before = self._samples[1] if self._samples is not None else None
        if before is None or now_s - before.taken_s > _WINDOW_MAX_S:
            before = await self._sample()
            await asyncio.sleep(_WINDOW_MIN_S)
        self._samples = before, await self._sample()
        return self._samples

    async def _sample(self) -> Sample:
        runs = self._runs.runs()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: take_sample(runs, time.monotonic()))

    async def _gpu_uses(self) -> Mapping[int, GpuUse]:
        if self._gpus is None:
            return {}
        try:
            found = await self._gpus.use()
        except GpusSilentError as error:
            _log.warning("gpus_not_measured", reason=str(error))
            return {}
        sizes = {gpu.id: gpu.memory_bytes for gpu in self._gpus.roster.gpus}
        return {
            gpu_id: GpuUse(gpu_id, use.busy_percent, use.memory_used_bytes, sizes.get(gpu_id, 0))
            for gpu_id, use in found.items()
        }


class _Session:
    """A session of the launcher under the names that the API knows."""

    def __init__(self, session: ExecSession) -> None:
        self._session = session

    async def read(self) -> Output | None:
        output = await self._session.read()
        return None if output is None else Output(output.data, output.is_error)

    async def write(self, content: bytes) -> None:
        await self._session.write(content)

    async def end_input(self) -> None:
        self._session.close_input()

    def resize(self, window: Window) -> None:
        self._session.resize(rows=window.rows, columns=window.columns)

    async def wait(self) -> int:
        return await self._session.wait()

    async def close(self) -> None:
        await self._session.close()
