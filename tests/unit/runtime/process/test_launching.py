"""Containers as real processes: how they start, what they see, how they end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from grove_server.runtime.process import identity
from grove_server.runtime.process.launching import Launcher, LaunchError, Run
from grove_server.runtime.process.program import kernel
from tests.unit.runtime.process.containers import Ends, log_texts, marked, order, record_of, runs_once, said, shell
from tests.waiting import until


@pytest.mark.parametrize(
    ("script", "exit_code", "number", "reason"),
    [
        pytest.param("exit 0", 0, None, "Completed", id="completed"),
        pytest.param("exit 3", 3, None, "Error", id="error"),
        pytest.param("kill -SEGV $$", 139, signal.SIGSEGV, "Error", id="signal"),
    ],
)
async def test_the_end_is_told(
    launcher: Launcher, ends: Ends, *, script: str, exit_code: int, number: int | None, reason: str
) -> None:
    """A run's end brings its exit code, or the signal that ended it."""
    ended = (await ends.of(await launcher.launch(shell(script)))).ended
    assert ended is not None
    assert (ended.exit_code, ended.signal, ended.reason) == (exit_code, number, reason)


@pytest.mark.parametrize(
    ("argv", "working_dir", "reason"),
    [
        pytest.param(["no-such-program"], "/", "CommandNotFound", id="nowhere-in-path"),
        pytest.param(["/no/such/program"], "/", "CommandNotFound", id="no-such-file"),
        pytest.param(["/etc/passwd"], "/", "PermissionDenied", id="not-executable"),
        pytest.param(["/etc"], "/", "PermissionDenied", id="folder"),
        pytest.param(["true"], "/no/such/folder", "WorkingDirectory", id="no-such-folder"),
        pytest.param(["true", "x" * 200_000], "/", "ArgumentsTooLong", id="too-long"),
        pytest.param(["true", "a\0b"], "/", "StartFailed", id="nul-byte"),
    ],
)
async def test_a_start_that_cannot_be_is_refused(
    launcher: Launcher, tmp_path: Path, *, argv: list[str], working_dir: str, reason: str
) -> None:
    """A container that cannot start is refused with the reason, and leaves nothing on disk."""
    with pytest.raises(LaunchError) as refusal:
        await launcher.launch(order(*argv, working_dir=working_dir))
    assert refusal.value.reason == reason
    assert list((tmp_path / "process" / "pods").iterdir()) == []
    assert launcher.runs() == ()


async def test_a_program_without_interpreter_is_refused(launcher: Launcher, tmp_path: Path) -> None:
    """A file that is executable and no program is not handed to a shell."""
    script = tmp_path / "script"
    script.write_text("echo this must not run\n")
    script.chmod(0o755)
    with pytest.raises(LaunchError) as refusal:
        await launcher.launch(order(str(script)))
    assert refusal.value.reason == "NotExecutable"


async def test_names_that_lead_elsewhere_are_refused(launcher: Launcher, tmp_path: Path) -> None:
    """A container whose name is a path does not reach outside its folder."""
    with pytest.raises(LaunchError):
        await launcher.launch(order("true", container="../../../x"))
    assert not (tmp_path / "x").exists()


async def test_a_start_is_not_repeated(launcher: Launcher) -> None:
    """Launching the same attempt again, at once or later, gives the same process."""
    first, second = await asyncio.gather(launcher.launch(order("sleep", "100")), launcher.launch(order("sleep", "100")))
    third = await launcher.launch(order("sleep", "100"))
    assert first.pid == second.pid == third.pid
    await runs_once(first)


async def test_the_environment_is_the_one_given(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the server's environment reaches a container."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "1")
    run = await launcher.launch(order("env", environment={"GIVEN": "ä b"}))
    lines = await said(launcher, run, 3)
    assert {line.split("=")[0] for line in lines} == {"PATH", "GIVEN", "GROVE_RUN"}
    assert "GIVEN=ä b" in lines


async def test_files_of_a_container_are_readable(launcher: Launcher, tmp_path: Path) -> None:
    """A container, and a command in it, make files with the usual mode, whatever the server keeps for itself."""
    run = await launcher.launch(shell("umask; exec sleep 100"))
    assert await said(launcher, run) == ["0022"]
    assert (await launcher.execute(run, ["sh", "-c", "umask"], timeout_s=20)).output == b"0022\n"
    assert (tmp_path / "process").stat().st_mode & 0o777 == 0o700
    assert launcher.log_path(*run.key).stat().st_mode & 0o777 == 0o600


async def test_any_mapping_is_an_environment(launcher: Launcher) -> None:
    """An environment may be read-only, and may hold bytes that are no UTF-8."""
    environment = MappingProxyType({"PATH": "/usr/bin:/bin", "ODD": os.fsdecode(b"\xff")})
    run = await launcher.launch(replace(shell("printf '%s\\n' \"$ODD\" | od -An -tx1"), environment=environment))
    assert (await said(launcher, run))[0].split() == ["ff", "0a"]


async def test_no_descriptor_leaks(launcher: Launcher) -> None:
    """A container has stdin, stdout and stderr, and no other descriptor; its stdin is empty."""
    await launcher.launch(order("sleep", "100", uid="other"))
    run = await launcher.launch(shell("cat; exec ls /proc/self/fd"))
    # The fourth is the folder that `ls` reads.
    assert await said(launcher, run, 4) == ["0", "1", "2", "3"]


async def test_signals_have_their_defaults(launcher: Launcher) -> None:
    """A container starts with no signal ignored or blocked, whatever the processes above it do."""
    run = await launcher.launch(order("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"))
    assert [int(line.split()[1], 16) for line in await said(launcher, run, 2)] == [0, 0]


async def test_a_hosts_file_is_seen_by_its_container_alone(launcher: Launcher, tmp_path: Path) -> None:
    """A container resolves names of the hosts file given to it; the machine's own stays as it is."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.77.0.1 router.example.internal\n")
    before = Path("/etc/hosts").read_bytes()
    run = await launcher.launch(shell("getent hosts router.example.internal; sleep 100", hosts_path=str(hosts)))
    assert run.shortfalls == ()
    assert (await said(launcher, run))[0].split() == ["127.77.0.1", "router.example.internal"]
    assert Path("/etc/hosts").read_bytes() == before
    # Rewritten in place, it is seen by what runs already.
    with hosts.open("a") as file:
        file.write("127.77.0.2 late.example.internal\n")
    result = await launcher.execute(run, ["getent", "hosts", "late.example.internal"], timeout_s=10)
    assert result.output.split()[0] == b"127.77.0.2"


async def test_binds_are_seen_by_their_container_alone(launcher: Launcher, tmp_path: Path) -> None:
    """A bind puts a folder where the container looks for it; one that cannot be refuses the start."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("bound\n")
    run = await launcher.launch(order("cat", str(target / "file"), binds=((str(source), str(target)),)))
    assert await said(launcher, run) == ["bound"]
    assert list(target.iterdir()) == []
    with pytest.raises(LaunchError) as refusal:
        await launcher.launch(order("true", uid="b", binds=(("/no/such/source", str(target)),)))
    assert refusal.value.reason == "BindFailed"


async def test_limits_hold(launcher: Launcher) -> None:
    """The bounds on open files and on processes hold in the container."""
    script = "grep -E '^Max (processes|open files)' /proc/self/limits"
    run = await launcher.launch(shell(script, file_count_max=77, process_count_max=5000))
    lines = [line.split() for line in await said(launcher, run, 2)]
    assert {(words[1], *words[-3:-1]) for words in lines} == {("processes", "5000", "5000"), ("open", "77", "77")}


async def test_signals_reach_the_group(launcher: Launcher, ends: Ends) -> None:
    """A signal goes to the main process and its group; a run that has ended gets none."""
    run = await launcher.launch(shell("trap 'exit 9' TERM; echo ready; sleep 100 & wait"))
    await said(launcher, run)
    assert launcher.signal(run, signal.SIGTERM)
    ended = (await ends.of(run)).ended
    assert ended is not None
    assert ended.exit_code == 9
    assert not launcher.signal(run, signal.SIGTERM)
    assert marked(run) == []


async def test_what_ignores_sigterm_is_killed(launcher: Launcher, ends: Ends) -> None:
    """A container that ignores the request to end goes on until it is killed, with its children."""
    run = await launcher.launch(shell("trap '' TERM; sleep 100 & echo ready; wait; sleep 100"))
    await said(launcher, run)
    launcher.signal(run, signal.SIGTERM)
    assert launcher.runs()[0].ended is None
    await launcher.kill(run)
    ended = (await ends.of(run)).ended
    assert ended is not None
    assert (ended.exit_code, ended.signal) == (137, signal.SIGKILL)
    assert marked(run) == []


async def test_a_daemon_ends_with_its_container(launcher: Launcher, ends: Ends) -> None:
    """A process that forked twice and left the session is ended when the main process ends."""
    script = "(setsid sh -c 'sleep 1000 & echo $!' &); read -r line < /dev/zero & sleep 0.2; echo main; exit 0"
    run = await launcher.launch(shell(script))
    await ends.of(run)
    assert "main" in log_texts(launcher, run)
    assert marked(run) == []


async def test_a_fork_bomb_ends(launcher: Launcher, ends: Ends) -> None:
    """Processes that fork while they are being killed are all ended."""
    script = "n=0; while [ $n -lt 60 ]; do (while :; do (sleep 5 & sleep 0.01); done) & n=$((n+1)); done; echo up; wait"
    run = await launcher.launch(shell(script))
    await said(launcher, run)
    await launcher.kill(run)
    await ends.of(run)
    assert marked(run) == []


async def test_zombies_are_buried(launcher: Launcher) -> None:
    """Orphans that end while the container runs are reaped by its keeper."""
    run = await launcher.launch(shell("for i in 1 2 3; do (sh -c 'true &'); done; echo done; exec sleep 100"))
    await said(launcher, run)
    await until(lambda: kernel.descendants(run.keeper_pid) == [run.pid], "all orphans buried")


async def test_a_killed_keeper_takes_its_container_along(launcher: Launcher, ends: Ends) -> None:
    """A run whose keeper is killed is reported Lost, once nothing of it runs any more."""
    run = await launcher.launch(shell("setsid sleep 1000 & echo up; wait"))
    await said(launcher, run)
    os.kill(run.keeper_pid, signal.SIGKILL)
    ended = (await ends.of(run)).ended
    assert ended is not None
    assert ended.reason == "Lost"
    assert marked(run) == []


async def test_a_killed_launcher_is_replaced(launcher: Launcher, ends: Ends) -> None:
    """Containers outlive the launcher program, and orders are taken again after its end, each once."""
    run = await launcher.launch(order("sleep", "100"))
    os.kill(launcher.pid, signal.SIGKILL)
    runs = await asyncio.gather(*(launcher.launch(order("sleep", "100", uid=f"u{number}")) for number in range(5)))
    await runs_once(run, *runs)
    assert (await launcher.execute(run, ["true"], timeout_s=10)).exit_code == 0
    assert ends.seen == []


async def test_another_process_with_the_same_pid_is_not_signalled(launcher: Launcher) -> None:
    """A pid that was given anew is told by its start."""
    run = await launcher.launch(order("sleep", "100"))
    assert identity.open_process(run.pid, run.pid_ticks + 1) is None
    assert not identity.send_signal(run.pid, run.pid_ticks + 1, signal.SIGKILL, is_group=True)
    await runs_once(run)


async def test_older_attempts_make_room(launcher: Launcher, ends: Ends, tmp_path: Path) -> None:
    """State and logs of the current and the previous attempt are kept, those of earlier ones go."""
    for attempt in range(4):
        await ends.of(await launcher.launch(shell(f"echo {attempt}", attempt=attempt)))
    run = await launcher.launch(order("sleep", "100", attempt=4))
    pod = tmp_path / "process" / "pods" / run.pod_uid / run.container
    await until(lambda: sorted(path.name for path in pod.iterdir()) == ["3", "4"], "older state gone")
    logs = launcher.log_path(*run.key).parent
    await until(lambda: {path.name for path in logs.iterdir()} <= {"3.log", "4.log"}, "older logs gone")
    assert [known.attempt for known in launcher.runs()] == [3, 4]


async def test_forgetting_removes_state_and_keeps_logs(launcher: Launcher, ends: Ends, tmp_path: Path) -> None:
    """A pod that is forgotten leaves its log; one that runs is not forgotten."""
    run = await launcher.launch(shell("echo bye; sleep 100"))
    await said(launcher, run)
    launcher.forget(run.pod_uid)
    assert record_of(tmp_path, run, "run.json")["pid"] == run.pid
    await launcher.kill(run)
    await ends.of(run)
    launcher.forget(run.pod_uid)
    assert launcher.runs() == ()
    assert list((tmp_path / "process" / "pods").iterdir()) == []
    assert log_texts(launcher, run) == ["bye"]


async def test_idle_containers_wake_nobody(launcher: Launcher) -> None:
    """Keepers and the launcher program do not run at all while nothing happens."""
    runs = await asyncio.gather(*(launcher.launch(order("sleep", "1000", uid=f"u{number}")) for number in range(10)))
    pids = [launcher.pid, *(run.keeper_pid for run in runs)]

    def switches() -> list[str]:
        lines = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in pids]
        return [line for status in lines for line in status if line.startswith("voluntary_ctxt")]

    await launcher.execute(runs[0], ["true"], timeout_s=10)
    await until(lambda: all(kernel_state(pid) == "S" for pid in pids), "all asleep")
    before = switches()
    # Another process sleeps meanwhile, so that time passes and is not measured here.
    waiting = await asyncio.create_subprocess_exec("sleep", "0.5")
    await waiting.wait()
    assert switches() == before


def kernel_state(pid: int) -> str:
    """Return the state of a process: S while it sleeps."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_launcher_that_is_killed_at_any_moment(launcher: Launcher, ends: Ends) -> None:
    """Whenever the launcher program is killed, each start happens once, and no command outlives it."""
    moments = random.Random(7)
    runs: list[Run] = []
    for turn in range(12):
        starts = [
            asyncio.create_task(launcher.launch(order("sleep", "1000", uid=f"t{turn}-{number}"))) for number in range(4)
        ]
        commands = [asyncio.create_task(launcher.execute(run, ["sleep", "500"], timeout_s=500)) for run in runs[-3:]]
        for _ in range(moments.randrange(40)):
            await asyncio.sleep(0)
        if launcher.pid:
            os.kill(launcher.pid, signal.SIGKILL)
        runs.extend(await asyncio.gather(*starts))
        for command in commands:
            command.cancel()
        await asyncio.gather(*commands, return_exceptions=True)
    await runs_once(*runs)
    assert ends.seen == []
    assert len(launcher.runs()) == 48
