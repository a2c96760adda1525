"""Runs are taken over by the next server, whatever happened to the one before."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from grove_server.runtime.process.launching import Launcher
from grove_server.runtime.process.program import records
from tests.tidy.sources import ROOT
from tests.unit.runtime.process.conftest import StartLauncher
from tests.unit.runtime.process.containers import Ends, marked, order, record_of, runs_once, said, shell, uid_of
from tests.waiting import until, until_blocking

# A server that starts containers until it is killed.
SERVER = """
import asyncio, sys
from pathlib import Path
from grove_server.runtime.process.launching import Launcher
from tests.unit.runtime.process.containers import order, shell

async def main():
    launcher = Launcher(Path(sys.argv[1]))
    await launcher.start()
    await asyncio.gather(*(launcher.launch(order("sleep", "1000", uid=f"u{n}")) for n in range(5)))
    await launcher.launch(shell(f"until [ -e {sys.argv[1]}/go ]; do sleep 0.01; done; exit 7", uid="ends-alone"))
    print(launcher.pid, flush=True)
    for n in range(int(sys.argv[2])):
        await launcher.launch(order("sleep", "1000", uid=f"late{n}"))
    await asyncio.Event().wait()

asyncio.run(main())
"""


def killed_server(data_dir: Path, *, more: int = 0, after_more: int = 0) -> int:
    """Run a server, kill it, and return the pid that its launcher program had."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, data_dir, str(more)], cwd=ROOT, stdout=subprocess.PIPE)
    assert server.stdout is not None
    launcher_pid = int(server.stdout.readline())
    pods = data_dir / "process" / "pods"
    until_blocking(lambda: len(list(pods.glob("late*"))) >= after_more, "further starts")
    server.kill()
    server.communicate()
    return launcher_pid


async def test_containers_outlive_a_killed_server(tmp_path: Path, start_launcher: StartLauncher, ends: Ends) -> None:
    """After the server was killed every container goes on; one that ends before the next start has its exit code."""
    launcher_pid = killed_server(tmp_path)
    until_blocking(lambda: not Path(f"/proc/{launcher_pid}/exe").exists(), "the end of the launcher program")
    (tmp_path / "go").touch()
    exit_file = tmp_path / "process" / "pods" / uid_of("ends-alone") / "main" / "0" / "exit.json"
    until_blocking(exit_file.exists, "the record of an end that no server sees")
    launcher = await start_launcher()
    runs = {run.pod_uid: run for run in launcher.adopt()}
    alone = runs.pop(uid_of("ends-alone")).ended
    assert alone is not None
    assert (alone.exit_code, alone.reason) == (7, "Error")
    await runs_once(*runs.values())
    assert len(runs) == 5
    assert ends.seen == []
    os.kill(runs[uid_of("u0")].pid, signal.SIGTERM)
    ended = (await ends.of(runs[uid_of("u0")])).ended
    assert ended is not None
    assert ended.exit_code == 143


async def test_a_start_is_whole_or_undone_when_the_server_is_killed(tmp_path: Path) -> None:
    """Whenever the server is killed, the next one knows every container that runs, and each runs once."""
    for after in (0, 1, 3):
        data_dir = tmp_path / str(after)
        killed_server(data_dir, more=200, after_more=after)
        launcher = Launcher(data_dir)
        await launcher.start()
        late = [run for run in launcher.adopt() if run.pod_uid.startswith("late")]
        # Nothing comes after the takeover.
        assert len(list((data_dir / "process" / "pods").glob("late*"))) == len(late)
        await runs_once(*(run for run in launcher.adopt() if run.ended is None))
        await asyncio.gather(*(launcher.kill(run) for run in launcher.adopt()))
        await launcher.stop()


async def test_a_lost_run_is_swept_before_it_is_adopted(tmp_path: Path, start_launcher: StartLauncher) -> None:
    """What a killed keeper left has ended when the next server starts, and the run is Lost for good."""
    launcher = await start_launcher()
    run = await launcher.launch(shell("setsid sleep 1000 & echo up; wait"))
    await said(launcher, run)
    await launcher.stop()
    os.kill(run.keeper_pid, signal.SIGKILL)
    await until(lambda: not records.is_locked(f"{records.run_dir(str(tmp_path), run.key)}/lock"), "the keeper's end")
    for _ in range(2):
        launcher = await start_launcher()
        ended = launcher.adopt()[0].ended
        assert ended is not None
        assert ended.reason == "Lost"
        assert marked(run) == []
        assert record_of(tmp_path, run, "exit.json")["finished_at"] == ended.finished_at
        await launcher.stop()


async def test_runs_of_an_earlier_boot_are_lost(tmp_path: Path, start_launcher: StartLauncher) -> None:
    """A record of another boot leads to no process of this one."""
    launcher = await start_launcher()
    run = await launcher.launch(order("sleep", "1000"))
    await launcher.stop()
    folder = records.run_dir(str(tmp_path), run.key)
    record = records.read(f"{folder}/run.json")
    assert record is not None
    records.write_whole(f"{folder}/run.json", {**record, "boot_id": "another"})
    launcher = await start_launcher()
    ended = launcher.adopt()[0].ended
    assert ended is not None
    assert ended.reason == "Lost"
    await runs_once(run)
    os.kill(run.pid, signal.SIGKILL)
    await until(lambda: marked(run) == [], "the end of the process")


async def test_a_damaged_record_is_a_lost_run(tmp_path: Path, start_launcher: StartLauncher) -> None:
    """A record that cannot be read makes a Lost run and stops nobody."""
    folder = tmp_path / "process" / "pods" / "uid" / "main" / "0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(b"\0\0")
    launcher = await start_launcher()
    assert [run.ended.reason for run in launcher.adopt() if run.ended] == ["Lost"]
