"""Commands in containers: collected ones, as probes are, and streamed ones."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from grove_server.runtime.process.launching import ExecSession, Launcher, LaunchError, Run
from tests.unit.runtime.process.containers import Ends, marked, order, runs_once
from tests.waiting import until


@pytest.fixture
async def run(launcher: Launcher, tmp_path: Path) -> Run:
    """Return a container that sleeps in the test's folder, with a hosts file of its own."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.77.0.9 inside.example.internal\n")
    return await launcher.launch(
        order("sleep", "1000", environment={"WHO": "container"}, working_dir=str(tmp_path), hosts_path=str(hosts))
    )


async def everything(session: ExecSession) -> tuple[bytes, bytes]:
    """Read a session to its end and return stdout and stderr."""
    texts = {False: b"", True: b""}
    while (output := await session.read()) is not None:
        texts[output.is_error] += output.data
    return texts[False], texts[True]


async def test_a_command_runs_inside_its_container(launcher: Launcher, run: Run, tmp_path: Path) -> None:
    """A command has the container's environment, folder and hosts file; both its streams come back in order."""
    script = 'echo "$WHO $PWD"; getent hosts inside.example.internal >&2; exit 5'
    result = await launcher.execute(run, ["sh", "-c", script], timeout_s=20)
    assert result.exit_code == 5
    assert result.output.split() == [b"container", os.fsencode(tmp_path), b"127.77.0.9", b"inside.example.internal"]
    assert not result.timed_out


async def test_a_command_leaves_the_launcher_where_it_was(launcher: Launcher, run: Run) -> None:
    """After a command in a container's mounts the next one, in another container, sees its own."""
    plain = await launcher.launch(order("sleep", "1000", uid="plain"))
    for _ in range(3):
        inside = await launcher.execute(run, ["cat", "/etc/hosts"], timeout_s=20)
        outside = await launcher.execute(plain, ["cat", "/etc/hosts"], timeout_s=20)
        assert inside.output == b"127.77.0.9 inside.example.internal\n"
        assert outside.output == Path("/etc/hosts").read_bytes()


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [pytest.param("no-such-program", 127, id="missing"), pytest.param("/etc/passwd", 126, id="not-executable")],
)
async def test_a_command_that_cannot_run_says_so(launcher: Launcher, run: Run, *, command: str, exit_code: int) -> None:
    """The exit code and the output tell, as a shell's would, collected or streamed."""
    result = await launcher.execute(run, [command], timeout_s=20)
    assert result.exit_code == exit_code
    assert b"cannot run" in result.output
    session = await launcher.attach(run, [command], tty=False)
    assert b"cannot run" in (await everything(session))[1]
    assert await session.wait() == exit_code
    await session.close()


@pytest.mark.parametrize(
    "argv",
    [pytest.param(["true", "a\0b"], id="nul-byte"), pytest.param([], id="nothing"), pytest.param([""], id="empty")],
)
async def test_a_command_that_is_none_is_refused(launcher: Launcher, run: Run, argv: list[str]) -> None:
    """What can be no command is refused and disturbs nobody."""
    program = launcher.pid
    with pytest.raises(LaunchError) as refusal:
        await launcher.execute(run, argv, timeout_s=20)
    assert refusal.value.reason == "StartFailed"
    with pytest.raises(LaunchError):
        await launcher.attach(run, argv, tty=False)
    assert (await launcher.execute(run, ["true"], timeout_s=20)).exit_code == 0
    assert launcher.pid == program


async def test_a_container_whose_folder_has_gone(launcher: Launcher, tmp_path: Path) -> None:
    """A command for it is refused, and the next one, in another container, runs where it belongs."""
    hosts, folder = tmp_path / "hosts", tmp_path / "folder"
    hosts.write_text("127.77.0.9 inside\n")
    folder.mkdir()
    run = await launcher.launch(order("sleep", "1000", hosts_path=str(hosts), working_dir=str(folder)))
    plain = await launcher.launch(order("sleep", "1000", uid="plain"))
    folder.rmdir()
    with pytest.raises(LaunchError) as refusal:
        await launcher.execute(run, ["true"], timeout_s=20)
    assert refusal.value.reason == "WorkingDirectory"
    outside = await launcher.execute(plain, ["cat", "/etc/hosts"], timeout_s=20)
    assert outside.output == Path("/etc/hosts").read_bytes()


async def test_a_command_that_takes_too_long_is_killed(launcher: Launcher, run: Run) -> None:
    """When its time is out a command ends, with what it started, and what it said until then comes back."""
    result = await launcher.execute(run, ["sh", "-c", "echo begun; sleep 1000 & sleep 1000"], timeout_s=0.5)
    assert (result.timed_out, result.exit_code, result.output) == (True, 137, b"begun\n")
    await runs_once(run)


async def test_a_command_that_says_too_much_is_cut(launcher: Launcher, run: Run) -> None:
    """Output beyond the bound is dropped, and the command still comes to its end."""
    result = await launcher.execute(
        run, ["sh", "-c", "head -c 10000000 /dev/zero; exit 4"], timeout_s=30, output_bytes_max=1000
    )
    assert (len(result.output), result.is_cut, result.exit_code) == (1000, True, 4)


async def test_long_output_comes_whole(launcher: Launcher, run: Run) -> None:
    """Output that is longer than a message between the processes may be is not cut."""
    result = await launcher.execute(
        run, ["head", "-c", "300000", "/dev/zero"], timeout_s=30, output_bytes_max=1_000_000
    )
    assert (len(result.output), result.is_cut) == (300_000, False)


async def test_a_daemon_of_a_command_ends(launcher: Launcher, run: Run) -> None:
    """What a probe leaves behind, in a session of its own, is ended."""
    await launcher.execute(run, ["sh", "-c", "(setsid sleep 1000 &) ; exit 0"], timeout_s=20)
    await runs_once(run)


async def test_commands_end_with_their_container(launcher: Launcher, run: Run, ends: Ends) -> None:
    """A command that runs when the container ends is killed; later ones are refused."""
    waiting = asyncio.create_task(launcher.execute(run, ["sleep", "1000"], timeout_s=1000))
    await until(lambda: len(marked(run)) > 1, "the command runs")
    await launcher.kill(run)
    assert (await waiting).exit_code == 137
    await ends.of(run)
    with pytest.raises(LaunchError) as refusal:
        await launcher.execute(run, ["true"], timeout_s=20)
    assert refusal.value.reason == "RunEnded"


async def test_a_command_ends_when_nobody_waits(launcher: Launcher, run: Run) -> None:
    """Cancelling who waits for a command ends it."""
    waiting = asyncio.create_task(launcher.execute(run, ["sleep", "1000"], timeout_s=1000))
    await until(lambda: len(marked(run)) > 1, "the command runs")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await runs_once(run)


async def test_many_commands_at_once(launcher: Launcher, run: Run) -> None:
    """A hundred commands at once all come back with their own output."""
    results = await asyncio.gather(
        *(launcher.execute(run, ["echo", str(number)], timeout_s=60) for number in range(100))
    )
    assert [int(result.output) for result in results] == list(range(100))


async def test_streams_are_separate_and_binary(launcher: Launcher, run: Run) -> None:
    """A streamed command gets its input byte for byte, and its two outputs come apart."""
    data = bytes(range(256)) * 2000
    session = await launcher.attach(run, ["sh", "-c", "cat; echo oops >&2; exit 6"], tty=False)

    async def write() -> None:
        await session.write(data)
        session.close_input()

    writing = asyncio.create_task(write())
    assert await everything(session) == (data, b"oops\n")
    await writing
    assert await session.wait() == 6
    await session.close()


async def test_a_terminal_is_one(launcher: Launcher, run: Run) -> None:
    """With a terminal the command has its size, its own environment, and job control."""
    session = await launcher.attach(run, ["sh"], tty=True, environment={"TERM": "xterm"})
    session.resize(rows=33, columns=99)
    await session.write(b"stty size; echo $TERM; ps -o tty= -p $$; exit 3\n")
    text, _ = await everything(session)
    assert b"33 99" in text
    assert b"xterm\r\n" in text
    assert b"pts/" in text
    assert await session.wait() == 3
    await session.close()


async def test_closing_a_session_ends_its_command(launcher: Launcher, run: Run) -> None:
    """A client that goes away leaves no process, and a reader that waits is told of the end."""
    session = await launcher.attach(run, ["sh", "-c", "sleep 1000 & sleep 1000"], tty=False)
    await until(lambda: len(marked(run)) > 2, "the command runs")
    reading = asyncio.create_task(session.read())
    await asyncio.sleep(0)
    await session.close()
    assert await reading is None
    assert await session.wait() == 137
    await runs_once(run)


async def test_a_session_can_be_signalled(launcher: Launcher, run: Run) -> None:
    """A signal reaches the command's group; after its end there is nobody to signal."""
    session = await launcher.attach(run, ["sh", "-c", "trap 'exit 8' INT; echo up; sleep 1000 & wait"], tty=False)
    assert await session.read() is not None
    assert session.signal(signal.SIGINT)
    assert await session.wait() == 8
    assert not session.signal(signal.SIGINT)
    await session.close()


async def test_sessions_end_with_the_launcher(launcher: Launcher, run: Run) -> None:
    """When the launcher program is killed its commands are, and whoever waits for one is told."""
    session = await launcher.attach(run, ["sleep", "1000"], tty=False)
    waiting = asyncio.create_task(launcher.execute(run, ["sleep", "1000"], timeout_s=1000))
    await until(lambda: len(marked(run)) > 2, "both commands run")
    os.kill(launcher.pid, signal.SIGKILL)
    with pytest.raises(LaunchError) as refusal:
        await waiting
    assert refusal.value.reason == "LauncherUnavailable"
    assert await session.wait() == 137
    await session.close()
    await runs_once(run)


async def test_a_session_that_nobody_waits_for_leaves_nothing(launcher: Launcher, run: Run) -> None:
    """A caller that is cancelled at whatever step of the way either has a session or leaves no descriptor behind."""

    async def descriptors() -> int:
        return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))

    async def attached() -> None:
        session = await launcher.attach(run, ["sleep", "1000"], tty=True)
        await session.close()

    await attached()
    before = await descriptors()
    for steps in range(4):
        asked = asyncio.create_task(attached())
        for _ in range(steps):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    assert await descriptors() == before
