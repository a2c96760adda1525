"""Commands beside containers over gRPC: real containers, started by the real launcher."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from grove.v1 import container_pb2 as pb
from grove_server.api.services import containers as service
from grove_server.runtime.process.console import Console, NodeFacts
from grove_server.runtime.process.launching import Launcher
from grove_server.runtime.process.runs import LaunchOrder, Run
from tests.rpc.harness import Harness, read_refusal, serving
from tests.unit.runtime.simulated import pod, template
from tests.waiting import until

PYTHON: Final = (sys.executable, "-I", "-S", "-c")
MAIN: Final = (*PYTHON, "import signal; print('up', flush=True); signal.pause()")


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[Launcher]:
    """Give a running launcher, and end what it started."""
    launcher = Launcher(tmp_path / "data")
    await launcher.start()
    try:
        yield launcher
        for run in launcher.runs():
            await launcher.kill(run)
    finally:
        await launcher.stop()


@pytest.fixture
async def main(launcher: Launcher, tmp_path: Path) -> Run:
    """Run the container."""
    return await launcher.launch(
        LaunchOrder(
            pod_uid="uid-p",
            namespace="default",
            pod_name="p",
            container="main",
            attempt=0,
            argv=MAIN,
            environment={"WHO": "main", "PATH": os.environ["PATH"]},
            working_dir=str(tmp_path),
        )
    )


@pytest.fixture
async def box(tmp_path: Path, launcher: Launcher, main: Run) -> AsyncIterator[Harness]:
    """Give a server over the launcher, with the container's pod in its store."""
    assert main.ended is None
    console = Console(launcher, NodeFacts(name="n0", cpu_count=8, memory_bytes=16 << 30))
    try:
        async with serving(tmp_path, containers=console) as harness:
            await harness.put(pod("p", template=template(containers=[{"name": "main"}])))
            yield harness
    finally:
        console.close()


class Talk:
    """One call of Exec."""

    def __init__(self, box: Harness, call: Any = None) -> None:  # noqa: ANN401 -- a call of grpc
        self.call = call or box.containers.Exec(timeout=60)
        self.out = b""
        self.err = b""
        self.code: int | None = None

    async def begin(self, *argv: str, **fields: Any) -> pb.ExecStarted:  # noqa: ANN401 -- any field of the start
        """Start a command."""
        start = pb.ExecStart(**{"pod": "p", "argv": argv, **fields})
        await self.call.write(pb.ContainerServiceExecRequest(start=start))
        answer = await self.read()
        assert answer is not None
        return answer.started

    async def write(self, content: bytes) -> None:
        """Give input."""
        await self.call.write(pb.ContainerServiceExecRequest(stdin=content))

    async def end_input(self) -> None:
        """End the input."""
        await self.call.write(pb.ContainerServiceExecRequest(end_of_input=pb.ExecEndOfInput()))

    async def read(self) -> pb.ContainerServiceExecResponse | None:
        """Return the next word."""
        answer = await self.call.read()
        if not isinstance(answer, pb.ContainerServiceExecResponse):
            return None
        self.out += answer.stdout
        self.err += answer.stderr
        if answer.HasField("exit"):
            self.code = answer.exit.exit_code
        return answer

    async def until_out(self, wanted: bytes) -> None:
        """Read until *wanted* was written."""
        while wanted not in self.out:
            assert await self.read() is not None, self.out

    async def finish(self) -> int:
        """Read all and return the exit code."""
        while await self.read() is not None:
            pass
        assert self.code is not None
        return self.code


async def refusal_of(box: Harness, *requests: pb.ContainerServiceExecRequest) -> Any:  # noqa: ANN401 -- a refusal
    """Return how a conversation is refused."""
    call = box.containers.Exec(timeout=30)

    async def converse() -> None:
        for request in requests:
            await call.write(request)
        await call.done_writing()
        await Talk(box, call).finish()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await converse()
    return read_refusal(caught.value)


def started(**fields: Any) -> pb.ContainerServiceExecRequest:  # noqa: ANN401 -- any field of the start
    """Return the first word of a conversation."""
    return pb.ContainerServiceExecRequest(start=pb.ExecStart(**{"pod": "p", "argv": ["true"], **fields}))


async def test_a_command_sees_what_the_container_sees(box: Harness, tmp_path: Path) -> None:
    """It has the container's environment and folder; streams stay apart, and the exit code is its own."""
    talk = Talk(box)
    program = "import os, sys; print(os.environ['WHO'], os.getcwd()); print('bad', file=sys.stderr); sys.exit(7)"
    assert (await talk.begin(*PYTHON, program)).container == "main"
    assert await talk.finish() == 7
    assert (talk.out.decode(), talk.err) == (f"main {tmp_path}\n", b"bad\n")


async def test_bytes_pass_both_ways(box: Harness) -> None:
    """Megabytes of any bytes go in and come out unchanged, and the end of the input is seen."""
    talk = Talk(box)
    await talk.begin("cat", stdin=True)
    content = os.urandom(3 << 20)

    async def give() -> None:
        for start in range(0, len(content), 100_000):
            await talk.write(content[start : start + 100_000])
        await talk.end_input()

    giving = asyncio.create_task(give())
    assert await talk.finish() == 0
    await giving
    assert talk.out == content


async def test_without_input_there_is_none(box: Harness) -> None:
    """A command that reads without being given input sees its end at once."""
    talk = Talk(box)
    await talk.begin("cat")
    assert await talk.finish() == 0
    assert talk.out == b""


async def test_a_terminal_has_its_size_and_is_told_of_changes(box: Harness) -> None:
    """With a terminal the command sees one, of the client's size, and a signal when that changes."""
    talk = Talk(box)
    program = (
        "import os, signal, sys\n"
        "def show(*_): os.write(1, b'%d %d %a %a.' % (*os.get_terminal_size(), os.isatty(0), os.environ['TERM']))\n"
        "signal.signal(signal.SIGWINCH, show); show(); sys.stdin.readline()"
    )
    await talk.begin(*PYTHON, program, stdin=True, tty=True, size=pb.TerminalSize(columns=101, rows=33))
    await talk.until_out(b"101 33 True 'xterm'.")
    size = pb.TerminalSize(columns=77, rows=22)
    await talk.call.write(pb.ContainerServiceExecRequest(resize=size))
    await talk.until_out(b"77 22")
    await talk.write(b"\n")
    assert await talk.finish() == 0


async def test_control_c_reaches_the_command(box: Harness) -> None:
    """The terminal's interrupt key interrupts; the exit code tells the signal."""
    talk = Talk(box)
    await talk.begin("sh", "-c", "echo up; exec sleep 1000", stdin=True, tty=True)
    await talk.until_out(b"up")
    await talk.write(b"\x03")
    assert await talk.finish() == 128 + signal.SIGINT


@pytest.mark.parametrize("how", ["cancel", "channel"])
async def test_a_client_that_goes_ends_the_command(box: Harness, how: str) -> None:
    """When the call ends, so does the command, with what it started, whether or not it reads or writes."""
    address = str(box.api.address)
    channel = grpc.aio.insecure_channel(address)
    talk = Talk(type(box)(channel, api=box.api, store=box.store, calls=box.calls, plane=box.plane))
    await talk.begin("sh", "-c", "trap '' TERM HUP; sleep 1000 & echo $! $$; wait", stdin=True)
    await talk.until_out(b"\n")
    pids = [int(word) for word in talk.out.split()]
    assert all(_lives(pid) for pid in pids)
    if how == "cancel":
        talk.call.cancel()
    await channel.close()
    await until(lambda: not any(_lives(pid) for pid in pids), "the command and its child have ended")


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_reader_that_does_not_read_slows_the_command(box: Harness) -> None:
    """Output that nobody takes stays with the command: the server keeps a bounded part of it."""
    talk = Talk(box)
    await talk.begin(*PYTHON, "import os\nwhile True: os.write(1, b'y' * 65536)")
    before = _resident()
    sizes: list[int] = []

    def rests() -> bool:
        sizes.append(_resident())
        return len(sizes) > 100 and abs(sizes[-1] - sizes[-100]) < 1 << 20

    await until(rests, "memory does not grow")
    assert sizes[-1] - before < 64 << 20
    talk.call.cancel()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_what_a_command_leaves_running_does_not_hold_the_call(box: Harness) -> None:
    """The call ends with the command, although a child of it keeps the output open and is ended, too."""
    talk = Talk(box)
    await talk.begin("sh", "-c", "sleep 1000 & echo $!; exit 3")
    assert await talk.finish() == 3
    pid = int(talk.out)
    await until(lambda: not _lives(pid), "the child has ended")


async def test_a_command_that_is_not_there_says_so(box: Harness) -> None:
    """The exit code and the output are those that shells use."""
    talk = Talk(box)
    await talk.begin("no-such-command")
    assert await talk.finish() == 127
    assert b"no-such-command" in talk.out + talk.err


async def test_the_end_of_the_container_ends_its_commands(box: Harness, launcher: Launcher, main: Run) -> None:
    """A command does not outlive the container that it runs beside; a new one is refused."""
    talk = Talk(box)
    await talk.begin("sh", "-c", "echo up; exec sleep 1000")
    await talk.until_out(b"up")
    await launcher.kill(main)
    assert await talk.finish() == 128 + signal.SIGKILL
    refusal = await refusal_of(box, started())
    assert (refusal.reason, refusal.code) == ("CONTAINER_NOT_RUNNING", grpc.StatusCode.FAILED_PRECONDITION)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"argv": []}, "start.argv"),
        ({"argv": [""]}, "start.argv"),
        ({"argv": ["a\0b"]}, "start.argv"),
        ({"argv": ["x"] * 1_001}, "start.argv"),
        ({"argv": ["x" * 70_000]}, "start.argv"),
        ({"container": "none"}, "container"),
        ({"tty": True, "size": pb.TerminalSize(columns=0, rows=1)}, "start.size"),
        ({"pod": ""}, "name"),
    ],
)
async def test_wrong_commands_name_the_field(box: Harness, fields: dict[str, Any], path: str) -> None:
    """What cannot be run is refused before anything runs."""
    assert (await refusal_of(box, started(**fields))).fields == [path]


async def test_wrong_words_end_the_conversation(box: Harness) -> None:
    """A start must come first, and once; a size must make sense."""
    stdin = pb.ContainerServiceExecRequest(stdin=b"x")
    resize = pb.ContainerServiceExecRequest(resize=pb.TerminalSize(columns=-1, rows=1))
    running = started(argv=["sleep", "1000"], tty=True)
    assert (await refusal_of(box)).fields == ["start"]
    assert (await refusal_of(box, stdin)).fields == ["start"]
    assert (await refusal_of(box, running, running)).fields == ["input"]
    assert (await refusal_of(box, running, resize)).fields == ["resize"]


async def test_commands_are_bounded(box: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command too many is told to come back."""
    monkeypatch.setattr(service, "COMMANDS_MAX", 1)
    talk = Talk(box)
    await talk.begin("sleep", "1000")
    assert (await refusal_of(box, started())).reason == "TOO_MANY_CALLS"


@pytest.mark.parametrize(("arguments", "allowed"), [((), True), (("--allow-exec", "off"), False)])
async def test_exec_can_be_switched_off(tmp_path: Path, arguments: tuple[str, ...], *, allowed: bool) -> None:
    """A setting refuses all commands, with a reason of its own, before anything is looked up."""
    async with serving(tmp_path, *arguments) as harness:
        reason = (await refusal_of(harness, started())).reason
        assert reason == ("NOT_FOUND" if allowed else "EXEC_OFF")


async def test_the_end_of_the_server_ends_commands(box: Harness) -> None:
    """A command does not hold up the server's stop, and is ended by it."""
    talk = Talk(box)
    await talk.begin("sh", "-c", "echo $$; exec sleep 1000")
    await talk.until_out(b"\n")
    stopping = asyncio.create_task(box.api.stop())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(talk.read(), 20)
    assert read_refusal(caught.value).reason == "SERVER_DRAINING"
    await asyncio.wait_for(stopping, 20)
    await until(lambda: not _lives(int(talk.out)), "the command has ended")
