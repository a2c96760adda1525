"""Logs and use of containers over gRPC: real files in the keeper's format, real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc
import pytest

from grove.v1 import container_pb2 as pb
from grove_server.api.services import containers as service
from grove_server.runtime.containers import stamp_at
from grove_server.runtime.process.console import Console, NodeFacts
from grove_server.runtime.process.launching import ExecSession
from grove_server.runtime.process.log_reading import PIECE_BYTES
from grove_server.runtime.process.program.log_files import LINE_BYTES_MAX, LogFiles
from grove_server.runtime.process.runs import Ended, LaunchError, Run
from grove_server.telemetry import metrics
from tests.rpc.harness import Harness, refused, serving
from tests.unit.runtime.simulated import pod, template
from tests.waiting import until

NODE: Final = NodeFacts(name="n0", cpu_count=8, memory_bytes=16 << 30)
CONTAINERS: Final = [{"name": "main"}, {"name": "side"}]


class Book:
    """Runs that a test writes down, with log files below *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[str, str, int], Run] = {}

    def begin(self, container: str = "main", attempt: int = 0, *, pod_name: str = "p", keeper: int = 1) -> Run:
        """Note that a run of a container began."""
        run = Run(
            pod_uid=f"uid-{pod_name}",
            namespace="default",
            pod_name=pod_name,
            container=container,
            attempt=attempt,
            keeper_pid=keeper,
            keeper_ticks=_ticks(keeper),
            pid=keeper,
            pid_ticks=_ticks(keeper),
            started_at=1.0,
        )
        self.known[run.key] = run
        return run

    def end(self, run: Run) -> None:
        """Note that it ended."""
        ended = Ended(exit_code=0, signal=None, finished_at=2.0, reason="Completed")
        self.known[run.key] = replace(run, ended=ended)

    def output(self, run: Run, *, file_bytes_max: int = 1 << 20) -> LogFiles:
        """Return where the keeper of a run writes what it reads."""
        return LogFiles(str(self.log_path(*run.key)), file_bytes_max=file_bytes_max, files_max=3)

    def runs(self) -> tuple[Run, ...]:
        """Return all."""
        return tuple(self.known[key] for key in sorted(self.known))

    def find(self, key: tuple[str, str, int]) -> Run | None:
        """Return one."""
        return self.known.get(key)

    def log_path(self, pod_uid: str, container: str, attempt: int) -> Path:
        """Return where a run's log is."""
        return self.folder / pod_uid / container / f"{attempt}.log"

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
        """Refuse: this book has no launcher."""
        raise LaunchError("Resources", f"{run.container} {argv} {tty} {stdin} {environment} {rows} {columns}")


def _ticks(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return int(text[text.rindex(")") + 2 :].split()[19])


@asynccontextmanager
async def boxed(folder: Path, book: Book) -> AsyncIterator[Harness]:
    """Serve the book, with one pod `p` of two containers."""
    console = Console(book, NODE)
    try:
        async with serving(folder, containers=console) as harness:
            await harness.put(pod("p", template=template(containers=CONTAINERS)))
            yield harness
    finally:
        console.close()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """Give an empty book."""
    return Book(tmp_path / "logs")


@pytest.fixture
async def box(tmp_path: Path, book: Book) -> AsyncIterator[Harness]:
    """Give a server over the book."""
    async with boxed(tmp_path, book) as harness:
        yield harness


def asked(**fields: object) -> pb.ContainerServiceLogsRequest:
    """Return a request for the logs of `p`."""
    return pb.ContainerServiceLogsRequest(**{"pod": "p", **fields})  # type: ignore[arg-type]  # any field


async def read(box: Harness, **fields: object) -> list[bytes]:
    """Return the lines that one call gives."""
    lines = []
    async for piece in box.containers.Logs(asked(**fields), timeout=20):
        lines += [line.content for line in piece.lines]
    return lines


async def test_the_latest_run_is_shown_and_the_one_before_on_request(box: Harness, book: Book) -> None:
    """Each run of a container has output of its own; the first container is meant if none is named."""
    for attempt, container in ((0, "main"), (1, "main"), (2, "main"), (0, "side")):
        files = book.output(book.begin(container, attempt))
        files.take(b"stdout", b"%s %d\n" % (container.encode(), attempt))
        files.finish()
    assert await read(box) == [b"main 2"]
    assert await read(box, previous=True) == [b"main 1"]
    assert await read(box, container="side") == [b"side 0"]
    first = await anext(aiter(box.containers.Logs(asked(previous=True), timeout=20)))
    assert (first.container, first.run) == ("main", 1)


async def test_a_silent_run_has_empty_output(box: Harness, book: Book) -> None:
    """A run that wrote nothing does not show what the run before it wrote."""
    files = book.output(book.begin(attempt=0))
    files.take(b"stdout", b"old\n")
    book.begin(attempt=1)
    assert await read(box) == []
    assert await read(box, previous=True) == [b"old"]


async def test_what_cannot_be_shown_is_refused_with_a_reason(box: Harness, book: Book) -> None:
    """No pod, no container, no run yet, no run before: each is told apart."""
    cases = {
        "NOT_FOUND": asked(pod="q"),
        "INVALID_REQUEST": asked(container="none"),
        "NO_OUTPUT": asked(),
    }
    for reason, request in cases.items():
        assert (await refused(box.containers.Logs(request, timeout=20).read())).reason == reason
    book.begin()
    refusal = await refused(box.containers.Logs(asked(previous=True), timeout=20).read())
    assert (refusal.reason, refusal.code) == ("NO_OUTPUT", grpc.StatusCode.FAILED_PRECONDITION)
    assert "no run before" in refusal.message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"since": "soon"}, "since"),
        ({"since": "5m", "since_time": "2026-01-01T00:00:00Z"}, "since"),
        ({"since_time": "yesterday"}, "sinceTime"),
        ({"tail_lines": -1}, "tailLines"),
        ({"container": "x"}, "container"),
    ],
)
async def test_wrong_questions_name_the_field(box: Harness, fields: dict[str, object], path: str) -> None:
    """A question that makes no sense is refused with the field's path."""
    assert (await refused(box.containers.Logs(asked(**fields), timeout=20).read())).fields == [path]


async def test_times_choose_lines(box: Harness, book: Book) -> None:
    """A duration is counted back from now, a time is exact."""
    files = book.output(book.begin())
    path = book.log_path("uid-p", "main", 0)
    path.parent.mkdir(parents=True)
    path.write_text(f"{stamp_at(1_000_000_000)} stdout F old\n", encoding="utf-8")
    files.take(b"stdout", b"new\n")
    assert await read(box, since="1h") == [b"new"]
    assert await read(box, since_time="2001-09-09T01:46:40Z") == [b"old", b"new"]
    assert await read(box, since_time="2001-09-09T01:46:40.000000001Z") == [b"new"]
    assert await read(box, since_time="2001-09-09T01:46:40Z", tail_lines=1) == [b"new"]


async def test_following_ends_with_the_run_and_loses_nothing(box: Harness, book: Book) -> None:
    """What is written while somebody follows comes as it is, bytes of any value, and the end of the run ends it."""
    run = book.begin()
    files = book.output(run, file_bytes_max=50_000)
    lines: list[bytes] = []
    partial = 0
    written = [bytes([number % 256]) * (number * 7 % 300) for number in range(2_000) if number % 256 != 10]
    written.append(b"long" * LINE_BYTES_MAX + b"!")

    async def follow() -> None:
        nonlocal partial
        whole = b""
        async for piece in box.containers.Logs(asked(follow=True), timeout=60):
            assert not piece.has_gap
            for line in piece.lines:
                whole += line.content
                partial += line.is_partial
                if not line.is_partial:
                    lines.append(whole)
                    whole = b""

    following = asyncio.create_task(follow())
    for number in range(0, len(written) - 1, 100):
        files.take(b"stdout", b"".join(line + b"\n" for line in written[:-1][number : number + 100]))
        wanted = min(number + 100, len(written) - 1)
        await until(lambda wanted=wanted: len(lines) >= wanted, "all is read")  # type: ignore[misc]  # a bound default
    files.take(b"stdout", written[-1])
    files.finish()
    book.end(run)
    await asyncio.wait_for(following, 20)
    assert lines == written
    assert partial == 4


async def test_a_slow_reader_costs_what_the_transport_takes(box: Harness, book: Book) -> None:
    """A reader that does not read lets the server read no more than the transport takes, however much there is."""
    files = book.output(book.begin(), file_bytes_max=1 << 30)
    for _ in range(64):
        files.take(b"stdout", (b"x" * 1_000 + b"\n") * 1_000)
    files.finish()
    before = _bytes_read()
    call = aiter(box.containers.Logs(asked(follow=True)))
    for _ in range(2):
        await anext(call)
    seen: list[int] = []

    def rests() -> bool:
        seen.append(_bytes_read())
        # Looking takes some hundred bytes itself.
        return len(seen) > 50 and seen[-1] - seen[-50] < PIECE_BYTES

    await until(rests, "nothing is read any more")
    assert seen[-1] - before < 16 << 20
    lines = 0
    async for piece in call:
        lines += len(piece.lines)
        if lines > 60_000:
            break


def _bytes_read() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(fields["rchar"])


def _streams(kind: str) -> float:
    (family,) = metrics.CONTAINER_STREAMS.collect()
    return sum(sample.value for sample in family.samples if sample.labels == {"kind": kind})


async def test_readers_are_bounded(box: Harness, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader too many is told to come back, and the place of one that went is free."""
    monkeypatch.setattr(service, "LOG_READERS_MAX", 1)
    book.begin()
    call = box.containers.Logs(asked(follow=True))
    await call.read()
    refusal = await refused(box.containers.Logs(asked(), timeout=20).read())
    assert (refusal.reason, refusal.code) == ("TOO_MANY_CALLS", grpc.StatusCode.RESOURCE_EXHAUSTED)
    call.cancel()
    await until(lambda: _streams("logs") == 0, "no reader is left")
    assert await read(box) == []


async def test_the_end_of_the_server_ends_readers(tmp_path: Path, book: Book) -> None:
    """Who follows a quiet container learns at once that the server stops, and to come back."""
    book.begin()
    async with boxed(tmp_path, book) as box:
        call = box.containers.Logs(asked(follow=True))
        await call.read()
        stopping = asyncio.create_task(box.api.stop())
        refusal = await refused(asyncio.wait_for(call.read(), 20))
        assert (refusal.reason, refusal.code) == ("SERVER_DRAINING", grpc.StatusCode.UNAVAILABLE)
        await asyncio.wait_for(stopping, 20)


async def test_a_runtime_without_processes_says_so(rpc: Harness) -> None:
    """The fake runtime refuses all three with a reason of their own, whatever the pod."""
    await rpc.put(pod("p"))
    answers: list[Awaitable[object]] = [
        rpc.containers.Logs(asked(), timeout=20).read(),
        rpc.containers.GetUsage(pb.ContainerServiceGetUsageRequest(), timeout=20),
    ]
    talk = rpc.containers.Exec(timeout=20)
    await talk.write(pb.ContainerServiceExecRequest(start=pb.ExecStart(pod="p", argv=["ls"])))
    answers.append(talk.read())
    for answer in answers:
        refusal = await refused(answer)
        assert (refusal.reason, refusal.code) == ("NO_PROCESSES", grpc.StatusCode.FAILED_PRECONDITION)
        assert "fake runtime runs no processes" in refusal.message


BUSY: Final = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
held = bytearray(b"x") * (64 << 20)
print("ready", flush=True)
sys.stdin.read()
child.kill()
"""


@pytest.fixture
def busy() -> Iterator[int]:
    """Run a process that holds 64 MiB and has a child that uses a whole core; give the pid of their parent."""
    keeper = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import subprocess,sys\nsubprocess.run([sys.executable, '-I', '-S', '-c', {BUSY!r}])",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"ready\n"
    yield keeper.pid
    keeper.communicate(b"")


async def test_use_is_that_of_all_processes_of_a_run(box: Harness, book: Book, busy: int) -> None:
    """Cores and memory are those of everything below the keeper; the keeper itself and ended runs do not count."""
    book.begin("main", keeper=busy)
    ended = book.begin("side", keeper=busy)
    book.end(ended)
    answer = await box.containers.GetUsage(pb.ContainerServiceGetUsageRequest(pod="p"), timeout=20)
    (used,) = answer.pods
    (container,) = used.containers
    assert (used.name, container.name, container.process_count) == ("p", "main", 2)
    assert 64 << 10 <= int(container.memory.removesuffix("Ki")) < 200 << 10
    assert 100 < int(container.cpu.removesuffix("m")) < 1_500
    (node,) = answer.nodes
    assert (node.name, node.cpu_capacity, node.memory_capacity) == ("n0", "8000m", f"{16 << 20}Ki")
    assert int(node.cpu.removesuffix("m")) > 0
    assert answer.window


async def test_use_is_chosen_as_pods_are(box: Harness, book: Book) -> None:
    """Namespace, labels and name choose; a name that is not there is refused."""
    book.begin(keeper=os.getpid())
    for fields, count in (
        ({}, 1),
        ({"namespace": "other"}, 0),
        ({"all_namespaces": True}, 1),
        ({"label_selector": "a=b"}, 0),
    ):
        answer = await box.containers.GetUsage(pb.ContainerServiceGetUsageRequest(**fields), timeout=20)
        assert len(answer.pods) == count
    request = pb.ContainerServiceGetUsageRequest(pod="q")
    assert (await refused(box.containers.GetUsage(request, timeout=20))).reason == "NOT_FOUND"
