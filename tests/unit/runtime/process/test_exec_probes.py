"""Probes and hooks that run a program beside a real container, through the launcher."""

from __future__ import annotations

from pathlib import Path

from grove_server.runtime.process.launching import Launcher, Run
from grove_server.runtime.process.pod_plan import Exec, ProbeKind, ProbePlan
from grove_server.runtime.process.probes import ProbeResult
from grove_server.runtime.process.probing import Prober
from tests.unit.runtime.process.containers import order


async def run_of(launcher: Launcher, folder: Path) -> Run:
    """Start a container that only waits, with a variable and a directory of its own."""
    waiting = order("sleep", "1000", environment={"WHO": "the container"}, working_dir=str(folder))
    return await launcher.launch(waiting)


def probe(*argv: str, timeout_s: float = 10.0) -> ProbePlan:
    """Return a probe that runs a program."""
    return ProbePlan(kind=ProbeKind.READINESS, action=Exec(argv=argv), timeout_s=timeout_s)


async def test_a_probe_sees_what_its_container_sees(launcher: Launcher, tmp_path: Path) -> None:
    """The program runs in the container's directory with its environment; its exit code is the verdict."""
    run = await run_of(launcher, tmp_path)
    prober = Prober(launcher)
    ready = probe("sh", "-c", 'test "$WHO" = "the container" && test -e ready')
    assert await prober.ask(run, ready) == ProbeResult(is_success=False, message="the command ended with exit code 1")
    (tmp_path / "ready").touch()
    assert await prober.ask(run, ready) == ProbeResult(is_success=True)


async def test_a_probe_that_hangs_is_ended_in_time(launcher: Launcher, tmp_path: Path) -> None:
    """A program that does not end by itself is ended, and the probe has failed."""
    run = await run_of(launcher, tmp_path)
    result = await Prober(launcher).ask(run, probe("sleep", "1000", timeout_s=0.3))
    assert result == ProbeResult(is_success=False, message="the command did not end within 0.3s")


async def test_a_probe_of_what_is_not_there_fails(launcher: Launcher, tmp_path: Path) -> None:
    """A program that is missing, and a container that has ended, are failures with their reasons."""
    run = await run_of(launcher, tmp_path)
    prober = Prober(launcher)
    missing = await prober.ask(run, probe("no-such-program"))
    assert missing is not None
    assert (missing.is_success, "exit code 127" in missing.message) == (False, True)
    await launcher.kill(run)
    ended = await prober.ask(run, probe("true"))
    assert ended is not None
    assert (ended.is_success, ended.message.partition(":")[0]) == (False, "RunEnded")


async def test_a_hook_says_what_its_program_said(launcher: Launcher, tmp_path: Path) -> None:
    """A hook that fails tells its exit code and what it wrote, bounded."""
    run = await run_of(launcher, tmp_path)
    said = await Prober(launcher).run_hook(
        run, Exec(argv=("sh", "-c", "echo no room; head -c 100000 /dev/zero; exit 4")), timeout_s=10
    )
    assert said.startswith("the command ended with exit code 4: no room")
    assert len(said) <= 256
