"""grovectl logs, exec and top, as people type them, against containers that really run."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

import grove_client
from tests.onebox.box import FLAGS, Box, clique, processes_of, restarts, tell_to_exit, worker
from tests.onebox.fake_nvml import FakeNvml, eight_gpus
from tests.server import ServerProcess
from tests.waiting import until

GROVECTL: Final = (sys.executable, "-m", "grovectl")
LIMIT_S: Final = 60.0


class Running:
    """A grovectl that runs; ``out`` grows as it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = b""
        self.err = b""

    async def until_out(self, wanted: bytes) -> None:
        """Wait until it has printed *wanted*."""
        await until(lambda: wanted in self.out, f"{wanted!r} is printed")


@asynccontextmanager
async def running(box: Box, *arguments: str, stdin: Any = asyncio.subprocess.DEVNULL) -> AsyncIterator[Running]:  # noqa: ANN401 -- what a subprocess takes
    """Run grovectl for the length of a block, as in a terminal: what a script starts behind it ignores Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *("env", "--default-signal=INT"),
        *GROVECTL,
        *("--server", box.server.address, "-n", box.namespace),
        *arguments,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    run = Running(process)
    assert process.stdout is not None
    assert process.stderr is not None

    async def gather(stream: asyncio.StreamReader, *, is_error: bool) -> None:
        while piece := await stream.read(65536):
            if is_error:
                run.err += piece
            else:
                run.out += piece

    gathering = asyncio.gather(gather(process.stdout, is_error=False), gather(process.stderr, is_error=True))
    try:
        yield run
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await gathering


async def grovectl(box: Box, *arguments: str, given: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Run grovectl to its end; return exit code, output and errors."""
    stdin = asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE
    async with running(box, *arguments, stdin=stdin) as run:
        if given is not None:
            assert run.process.stdin is not None
            run.process.stdin.write(given)
            run.process.stdin.close()
        await asyncio.wait_for(run.process.wait(), LIMIT_S)
    assert run.process.returncode is not None
    return run.process.returncode, run.out, run.err


def says(script: str, name: str = "main") -> dict[str, Any]:
    """Return a container that runs a shell script and then waits."""
    return {"name": name, "image": "sh", "command": ["/bin/sh", "-c", f"{script}\nexec sleep 1000"]}


async def test_logs_of_one_pod(box: Box) -> None:
    """The last lines, both streams, with times on request; a container is named or the first one is meant."""
    await box.apply(
        "talk", clique("a", says("for i in 1 2 3; do echo line $i; done; echo bad >&2"), says("echo two", "side"))
    )
    (pod,) = await box.ready(1)
    name = pod.metadata.name
    async with running(box, "logs", "-f", name) as run:
        await run.until_out(b"bad")
    code, out, err = await grovectl(box, "logs", name)
    assert err == b'Defaulted container "main" out of: main, side\n'
    assert (code, sorted(out.split(b"\n"))) == (0, [b"", b"bad", b"line 1", b"line 2", b"line 3"])
    assert (await grovectl(box, "logs", f"pod/{name}", "--tail", "1", "-c", "side"))[1] == b"two\n"
    _, out, _ = await grovectl(box, "logs", name, "--timestamps", "--since", "1h", "--tail", "1")
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z (bad|line 3)\n", out)
    _, out, _ = await grovectl(box, "logs", name, "--all-containers")
    assert f"[{name}/side] two\n".encode() in out


async def test_what_is_wrong_is_one_line(box: Box) -> None:
    """Exit codes and errors are those of the contract."""
    await box.apply("wrong", clique("a", says("")))
    (pod,) = await box.ready(1)
    name = pod.metadata.name
    for arguments, code, words in (
        (("logs", "nobody"), 3, b"nobody not found"),
        (("logs", name, "-c", "none"), 1, b"has no container 'none'; it has main"),
        (("logs", name, "-p"), 1, b"no run before this one"),
        (("logs",), 2, b"name a pod"),
        (("logs", "no/x"), 2, b"node has no pods"),
        (("exec", name), 2, b"a command is needed"),
        (("exec", "nobody", "--", "true"), 3, b"nobody not found"),
        (("top", "pcs"), 2, b"say pods or nodes"),
    ):
        found, out, err = await grovectl(box, *arguments)
        assert (found, out, err.count(b"\n")) == (code, b"", 1), (arguments, err)
        assert words in err


async def test_logs_of_the_run_before(box: Box, journal_path: Path) -> None:
    """After a crash the output of the run that crashed is still there; following it ends at its end."""
    container = worker(journal_path)
    container["command"] = ["/bin/sh", "-c", 'echo run; exec "$@"', "sh", *container["command"]]
    await box.apply("again", clique("a", container))
    (pod,) = await box.ready(1)
    name = pod.metadata.name
    async with running(box, "logs", "-f", name) as run:
        await run.until_out(b"run\n")
        await tell_to_exit(pod, 4)
        assert await asyncio.wait_for(run.process.wait(), LIMIT_S) == 0
    await box.see(lambda pods: bool(pods) and restarts(pods[0]) == 1, "the container started again")
    assert b"run\n" in (await grovectl(box, "logs", name, "--previous"))[1]


async def test_many_pods_are_told_apart_and_followed(box: Box) -> None:
    """All pods of a clique or of a label come with a prefix; a followed set shows pods that come later, too."""
    await box.apply("crowd", clique("a", says("echo I am $GROVE_PCLQ_POD_INDEX"), replicas=2))
    pods = await box.ready(2)
    names = [pod.metadata.name for pod in pods]
    indices = [pod.metadata.labels["grove.io/podclique-pod-index"] for pod in pods]
    lines = zip(names, indices, strict=True)
    expected = b"".join(f"[{name}/main] I am {index}\n".encode() for name, index in lines)
    for which in (("pclq/crowd-0-a",), ("pcs/crowd",), ("-l", "grove.io/podclique=crowd-0-a")):
        assert (await grovectl(box, "logs", *which))[1] == expected
    async with running(box, "logs", "-f", "pcs/crowd") as run:
        await run.until_out(f"[{names[1]}/main]".encode())
        await box.grove.pod_cliques.scale("crowd-0-a", 3, namespace=box.namespace)
        await run.until_out(b"I am 2\n")
        run.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(run.process.wait(), LIMIT_S) == 130
    assert sorted(set(run.out.splitlines())) == sorted(run.out.splitlines())


async def test_a_followed_crowd_shows_the_next_run(box: Box, journal_path: Path) -> None:
    """A container that starts again while its set is followed is followed again, its new output whole and once."""
    container = worker(journal_path)
    container["command"] = ["/bin/sh", "-c", 'echo begin; echo begun; exec "$@"', "sh", *container["command"]]
    await box.apply("next", clique("a", container))
    (pod,) = await box.ready(1)
    async with running(box, "logs", "-f", "--tail", "1", "pcs/next") as run:
        await run.until_out(b"begun\n")
        await tell_to_exit(pod, 4)
        await run.until_out(b"begin\n")
        await until(lambda: run.out.count(b"begun\n") == 2, "the next run is shown")
    assert run.out.count(b"begin\n") == 1


async def test_following_goes_on_over_a_restart_of_the_server(tmp_path: Path) -> None:
    """Who follows a container sees each line once, in order, although the server was killed meanwhile."""
    # A socket, because a port of its own would be another one after the restart.
    server = ServerProcess(tmp_path / "data", flags=(*FLAGS, "--pods-on-exit", "stop"), listen=f"unix:{tmp_path}/s")
    with server:
        async with grove_client.connect(server.address) as grove:
            box = Box(server=server, grove=grove, namespace="restart")
            counting = says("i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.01; done")
            await box.apply("count", clique("a", counting))
            (pod,) = await box.ready(1)
            async with running(box, "logs", "-f", pod.metadata.name) as run:
                await run.until_out(b"20\n")
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await run.until_out(b"399\n")
            assert [int(line) for line in run.out.split()] == list(range(400))


async def test_exec_carries_bytes_and_the_exit_code(box: Box) -> None:
    """Input goes in, both outputs come out, and the exit code is the command's."""
    await box.apply("run", clique("a", says("")))
    (pod,) = await box.ready(1)
    name = pod.metadata.name
    content = os.urandom(300_000)
    assert await grovectl(box, "exec", "-i", name, "--", "cat", given=content) == (0, content, b"")
    code, out, err = await grovectl(box, "exec", name, "--", "sh", "-c", "echo $GROVE_PCS_NAME; echo bad >&2; exit 42")
    assert (code, out) == (42, b"run\n")
    assert err == b"bad\ncommand ended with exit code 42\n"
    code, _, err = await grovectl(box, "exec", "-it", name, "--", "true")
    assert (code, err.startswith(b"warning: no terminal")) == (0, True)


async def test_exec_ends_with_the_command_and_not_with_its_input(box: Box) -> None:
    """Input that stays open does not keep grovectl once the command has ended."""
    await box.apply("short", clique("a", says("")))
    (pod,) = await box.ready(1)
    name = pod.metadata.name
    async with running(box, "exec", "-i", name, "--", "head", "-c", "3", stdin=asyncio.subprocess.PIPE) as run:
        assert run.process.stdin is not None
        run.process.stdin.write(b"abcdef")
        assert await asyncio.wait_for(run.process.wait(), LIMIT_S) == 0
        await run.until_out(b"abc")


async def test_logs_end_with_their_reader(box: Box) -> None:
    """A reader in a pipe that has enough ends a followed log without an error."""
    await box.apply("pipe", clique("a", says("while :; do echo again; sleep 0.01; done")))
    (pod,) = await box.ready(1)
    for which in (pod.metadata.name, "pcs/pipe"):
        command = f"{sys.executable} -m grovectl -s {box.server.address} -n {box.namespace} logs -f {which} | head -1"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"set -o pipefail; {command}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert (process.returncode, err, out.endswith(b"again\n")) == (0, b"", True)


async def test_exec_gives_a_terminal(box: Box) -> None:
    """With -it the command has a terminal of this terminal's size, follows its changes, and gets the interrupt key."""
    await box.apply("term", clique("a", says("")))
    (pod,) = await box.ready(1)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    before = termios.tcgetattr(theirs)
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done"
    async with running(box, "exec", "-it", pod.metadata.name, "--", "sh", "-c", script, stdin=theirs) as run:
        await run.until_out(b"31 97")
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 32, 98, 0, 0))
        run.process.send_signal(signal.SIGWINCH)
        await run.until_out(b"32 98")
        os.write(ours, b"\x03")
        assert await asyncio.wait_for(run.process.wait(), LIMIT_S) == 128 + signal.SIGINT
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


async def test_leaving_exec_ends_the_command(box: Box) -> None:
    """A grovectl that is killed leaves no command behind."""
    await box.apply("leave", clique("a", says("")))
    (pod,) = await box.ready(1)
    async with running(box, "exec", pod.metadata.name, "--", "sh", "-c", "echo up; exec sleep 998") as run:
        await run.until_out(b"up")
        assert any("998" in process.command for process in processes_of(pod))
    await until(lambda: all("998" not in process.command for process in processes_of(pod)), "the command has ended")


async def test_top_shows_use(box: Box) -> None:
    """A busy pod uses cores and comes first when asked to; the node is this machine."""
    busy = {"name": "main", "image": "sh", "command": [sys.executable, "-I", "-S", "-c", "while True: pass"]}
    await box.apply("use", clique("busy", busy), clique("idle", says("")))
    pods = await box.ready(2)
    code, out, _ = await grovectl(box, "top", "po", "--sort-by", "cpu")
    rows = [line.split() for line in out.decode().splitlines()]
    assert (code, rows[0]) == (0, ["NAME", "CPU(cores)", "MEMORY(bytes)", "PROCESSES", "GPUS", "GPU%", "GPU-MEMORY"])
    assert [row[0].rpartition("-")[0] for row in rows[1:]] == ["use-0-busy", "use-0-idle"]
    assert int(rows[1][1].removesuffix("m")) > 50 > int(rows[2][1].removesuffix("m"))
    assert rows[1][3:] == ["1", "<none>", "<none>", "<none>"]
    _, out, _ = await grovectl(box, "top", "po", pods[0].metadata.name, "--containers", "--no-headers")
    assert out.split()[:2] == [pods[0].metadata.name.encode(), b"main"]
    _, out, _ = await grovectl(box, "top", "no")
    assert out.split()[0:5] == [b"NAME", b"CPU(cores)", b"CPU%", b"MEMORY(bytes)", b"MEMORY%"]
    assert len(out.splitlines()) == 2


@pytest.mark.native
async def test_top_shows_gpus(tmp_path: Path) -> None:
    """A pod's line names its GPUs and what is done on them, the node's those of the machine; a lost one is left out."""
    (tmp_path / "nvml").mkdir()
    nvml = FakeNvml(tmp_path / "nvml", eight_gpus())
    flags = (*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0")
    with ServerProcess(tmp_path / "data", flags=flags, environment=nvml.environment) as server:
        async with grove_client.connect(server.address) as grove:
            box = Box(server=server, grove=grove, namespace="gpus")
            container = {**says(""), "resources": {"limits": {"nvidia.com/gpu": "2"}}}
            await box.apply("heavy", clique("a", container))
            (pod,) = await box.ready(1)
            _, out, _ = await grovectl(box, "top", "po", "--no-headers")
            gpu_ids = pod.metadata.annotations["grove.io/gpu-ids"].encode()
            assert out.split()[4:] == [gpu_ids, b"37%", b"40960Mi/163840Mi"]
            nvml.set_state("GPU-7", "lost")
            _, out, _ = await grovectl(box, "top", "no", "--no-headers")
            assert out.split()[5:] == [b"0,1,2,3,4,5,6", b"37%", f"{7 * 20480}Mi/{7 * 81920}Mi".encode()]
