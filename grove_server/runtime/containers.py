"""What can be asked about containers that run here: their output, commands beside them, what they use.

The words that a runtime and the API share, and the answer of a runtime that runs no processes. Pure data but for the
sessions, which are the runtime's own. Times of output are text in one fixed width, so that they compare as they stand.

Not here: reading log files, starting commands and measuring (the runtime's), messages of the wire (the API's).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from grove_server.resources.workload import Pod

# "2026-11-24T14:00:00.123456789Z": as container runtimes write it; shorter ones never compare as later.
STAMP_LENGTH: Final = 30
_NANOS_LENGTH: Final = 9


class Refused(enum.StrEnum):
    """Why a question about a container has no answer."""

    NO_PROCESSES = "NoProcesses"
    NO_CONTAINER = "NoContainer"
    NOT_RUNNING = "NotRunning"
    NO_OUTPUT = "NoOutput"
    CANNOT_START = "CannotStart"
    TOO_MANY = "TooMany"


class ContainerRefusedError(Exception):
    """A question about a container is refused; the text is for the person who asked."""

    def __init__(self, why: Refused, message: str) -> None:
        super().__init__(message)
        self.why = why


class LogLine(NamedTuple):
    """A line that a container wrote, or a part of a long one (``is_partial``: the next one goes on).

    ``time`` is the stamp as written. ``content`` is as the container wrote it, without the end of the line.
    """

    time: str
    is_stderr: bool
    content: bytes
    is_partial: bool


class LogPiece(NamedTuple):
    """Some output, in order; ``has_gap`` says that output before it was discarded unread."""

    lines: Sequence[LogLine]
    has_gap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which output: of which run, how many last lines (None: all), from which stamp on (empty: all), for how long."""

    previous: bool = False
    follow: bool = False
    tail_lines: int | None = None
    since: str = ""


class Opened(NamedTuple):
    """Output of a run being read, its number counted from 0; closing the generator closes the files."""

    container: str
    attempt: int
    pieces: AsyncGenerator[LogPiece, None]


class Window(NamedTuple):
    """Size of a terminal, in characters."""

    columns: int
    rows: int


class Output(NamedTuple):
    """Bytes of a command's output."""

    content: bytes
    is_stderr: bool = False


class CommandSession(Protocol):
    """A command beside a container. Whoever opened it closes it; that kills the command with all that it started."""

    async def read(self) -> Output | None:
        """Return the next output, at most 64 KiB; None when there is no more."""

    async def write(self, content: bytes) -> None:
        """Hand bytes to its standard input; waits while the command does not read them, drops them once it is gone."""

    async def end_input(self) -> None:
        """Say that nothing more comes."""

    def resize(self, window: Window) -> None:
        """Tell its terminal, if it has one, the size."""

    async def wait(self) -> int:
        """Return its exit code, 128 + signal if one ended it."""

    async def close(self) -> None:
        """Kill what still runs; harmless when it ended, or called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to run: argv, whether input comes, and the terminal that it gets, if any."""

    argv: tuple[str, ...]
    takes_input: bool = False
    terminal: Window | None = None


class GpuUse(NamedTuple):
    """What is done on a GPU. ``utilization_percent`` None: unknown. Sizes are bytes."""

    gpu_id: int
    utilization_percent: int | None
    memory_bytes: int
    memory_capacity_bytes: int


class ContainerUse(NamedTuple):
    """What a container uses: cores (None until there are two samples), bytes, processes."""

    name: str
    cpu_cores: float | None
    memory_bytes: int
    process_count: int


class PodUse(NamedTuple):
    """What a pod uses."""

    pod: Pod
    containers: Sequence[ContainerUse]
    gpus: Sequence[GpuUse]


class NodeUse(NamedTuple):
    """What a node uses, all its processes together; cores and bytes."""

    name: str
    cpu_cores: float | None
    cpu_capacity_cores: float
    memory_bytes: int
    memory_capacity_bytes: int
    gpus: Sequence[GpuUse]


class Use(NamedTuple):
    """What pods and nodes use; the cores are the mean of the last ``window_s`` seconds."""

    pods: Sequence[PodUse]
    nodes: Sequence[NodeUse]
    window_s: float


def container_of(pod: Pod, name: str) -> str:
    """Return the name of the container meant: the first one if *name* is empty. Raises ContainerRefusedError."""
    names = container_names(pod.template.pod_spec)
    if not name:
        return names[0] if names else ""
    if name not in names:
        raise ContainerRefusedError(
            Refused.NO_CONTAINER, f"pod {pod.metadata.name} has no container {name!r}; it has {', '.join(names)}"
        )
    return name


def container_names(pod_spec: Mapping[str, object]) -> list[str]:
    """Return the names of all containers of a spec: the main ones, then the init containers."""
    found = []
    for field in ("containers", "initContainers"):
        listed = pod_spec.get(field)
        if isinstance(listed, Sequence):
            found += [str(each["name"]) for each in listed if isinstance(each, Mapping) and each.get("name")]
    return found


def stamp_of(text: str) -> str:
    """Return an RFC 3339 time as a stamp, to the nanosecond. Raises ValueError."""
    head, point, tail = text.strip().partition(".")
    digits = ""
    if point:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        if not digits:
            raise ValueError(f"{text!r} is not a time")
        tail = tail[len(digits) :]
        head += tail
    moment = datetime.fromisoformat(head)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    whole = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{digits[:_NANOS_LENGTH].ljust(_NANOS_LENGTH, '0')}Z"


def stamp_at(epoch_s: float) -> str:
    """Return the stamp of a moment, to the microsecond."""
    return f"{datetime.fromtimestamp(epoch_s, UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z"


class NoContainers:
    """The answer of a runtime that runs no processes."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime

    def logs(self, _pod: Pod, _container: str, _query: LogQuery) -> Opened:
        """Refuse."""
        raise self._refusal()

    async def run(self, _pod: Pod, _container: str, _command: Command) -> tuple[str, CommandSession]:
        """Refuse."""
        raise self._refusal()

    async def usage(self, _pods: Iterable[Pod]) -> Use:
        """Refuse."""
        raise self._refusal()

    def _refusal(self) -> ContainerRefusedError:
        return ContainerRefusedError(
            Refused.NO_PROCESSES,
            f"the {self._runtime} runtime runs no processes: there are no logs, no exec and no top",
        )
