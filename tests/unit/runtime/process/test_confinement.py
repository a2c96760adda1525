"""What holds a container in: cgroups and namespaces, where this machine allows them, and a word where it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from grove_server.runtime.process.launching import Launcher
from tests.tidy.sources import ROOT
from tests.unit.runtime.process.containers import Ends, marked, order, said, shell
from tests.waiting import until

# A launcher without the right to mount: as root by giving up CAP_SYS_ADMIN for good, else by not having it.
UNPRIVILEGED = """
import asyncio, ctypes, json, sys
from pathlib import Path
from grove_server.runtime.process.launching import Launcher
from tests.unit.runtime.process.containers import said, shell

PR_CAPBSET_DROP, CAP_SYS_ADMIN = 24, 21
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)

async def main():
    launcher = Launcher(Path(sys.argv[1]))
    await launcher.start()
    run = await launcher.launch(shell("cat /etc/hosts; exec sleep 1000", hosts_path=sys.argv[2]))
    seen = await said(launcher, run)
    inside = await launcher.execute(run, ["cat", "/etc/hosts"], timeout_s=20)
    session = await launcher.attach(run, ["cat", "/etc/hosts"], tty=False)
    streamed = await session.read()
    await session.close()
    await launcher.kill(run)
    await launcher.stop()
    print(json.dumps([[s.about for s in run.shortfalls], seen, inside.output.decode(), streamed.data.decode()]))

asyncio.run(main())
"""
# What the launcher program has loaded once it runs.
LOADED = """
import json, os, sys
sys.argv = ["program", sys.argv[1], "0"]
sys.path.append(sys.argv[1])
import grove_server.runtime.process.program.launcher
print(json.dumps(sorted(sys.modules)))
"""


def cgroup_root() -> Path | None:
    """Return where this machine has its cgroup2 hierarchy, if we may make groups there."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    return None


@pytest.fixture
def pod_cgroup() -> Iterator[Path]:
    """Return a cgroup for a pod; a folder that cannot be one where this machine has none for us."""
    root = cgroup_root()
    folder = (root or Path("/proc")) / f"grove-test-{uuid.uuid4().hex[:8]}"
    if root is not None:
        folder.mkdir()
    yield folder
    if root is not None:
        folder.rmdir()


async def test_a_container_has_its_cgroup(launcher: Launcher, ends: Ends, pod_cgroup: Path) -> None:
    """Processes and commands of a container are in its cgroup, and it goes after the end; else a shortfall says so."""
    run = await launcher.launch(order("sleep", "1000", cgroup_dir=str(pod_cgroup)))
    if not pod_cgroup.exists():
        assert [shortfall.about for shortfall in run.shortfalls] == ["Cgroup"]
        return
    assert run.shortfalls == ()
    assert run.cgroup_dirs == (str(pod_cgroup / "main.0"),)
    assert (pod_cgroup / "main.0" / "cgroup.procs").read_text().split() == [str(run.pid)]
    result = await launcher.execute(run, ["cat", "/proc/self/cgroup"], timeout_s=20)
    assert result.exit_code == 0
    await launcher.kill(run)
    await ends.of(run)
    await until(lambda: not (pod_cgroup / "main.0").exists(), "the end of the cgroup")


async def test_a_cgroup_finds_what_hides(launcher: Launcher, ends: Ends, pod_cgroup: Path) -> None:
    """After the death of a keeper its cgroup leads even to a process that left session and environment behind."""
    script = "(setsid env -i sleep 4321 &); echo up; exec sleep 1000"
    run = await launcher.launch(shell(script, cgroup_dir=str(pod_cgroup)))
    await said(launcher, run)
    os.kill(run.keeper_pid, signal.SIGKILL)
    await ends.of(run)
    assert [pid for pid in sleepers() if pid] == []
    assert not (pod_cgroup / "main.0").exists()


def sleepers() -> list[int]:
    """Return the processes that sleep for 4321 s."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x004321\0":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_names_resolve_without_privileges(tmp_path: Path) -> None:
    """Without the right to mount, a user namespace gives it; where that is forbidden as well, a shortfall says so."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.77.0.1 router\n")
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, tmp_path, hosts], cwd=ROOT, capture_output=True, text=True, check=True
    )
    shortfalls, seen, inside, streamed = json.loads(done.stdout)
    if shortfalls:
        assert shortfalls == ["Hosts"]
        return
    assert seen == ["127.77.0.1 router"]
    assert inside == streamed == hosts.read_text()


def test_the_program_is_small(tmp_path: Path) -> None:
    """The launcher program loads the standard library and itself, and nothing that is costly to fork or to load."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADED, ROOT], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    loaded = set(json.loads(done.stdout))
    ours = {name for name in loaded if name.startswith("grove")}
    packages = {"grove_server", "grove_server.runtime", "grove_server.runtime.process"}
    assert {name for name in ours - packages if not name.startswith("grove_server.runtime.process.program")} == set()
    assert loaded & {"asyncio", "dataclasses", "inspect", "logging", "pathlib", "shutil", "typing"} == set()
    foreign = {name.partition(".")[0] for name in loaded - ours} - sys.stdlib_module_names
    assert {name for name in foreign if not name.startswith("_")} == set()


@pytest.fixture
def pids_cgroup() -> Iterator[Path | None]:
    """Return a group of 40 processes at most, of the pids controller (version 1), if we may make one."""
    root = Path("/sys/fs/cgroup/pids")
    if not os.access(root, os.W_OK):
        yield None
        return
    folder = root / f"grove-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "pids.max").write_text("40")
    yield folder
    folder.rmdir()


async def test_a_tree_forks_up_to_its_limit(launcher: Launcher, ends: Ends, pids_cgroup: Path | None) -> None:
    """A tree that forks without end stops at its limit, and all of it ends with its container."""
    groups = (str(pids_cgroup),) if pids_cgroup else ()
    bomb = "while :; do (while :; do sleep 60 & done) & done 2>/dev/null; exit 0"
    script = bomb if pids_cgroup else "for i in $(seq 40); do sleep 60 & done; echo full; wait"
    run = await launcher.launch(shell(script, more_cgroup_dirs=groups))
    await until(lambda: len(marked(run)) >= 30, "the tree has grown")
    assert len(marked(run)) <= 41
    await launcher.kill(run)
    await ends.of(run)
    assert marked(run) == []


async def test_a_command_keeps_no_cgroup(launcher: Launcher, ends: Ends, pids_cgroup: Path | None) -> None:
    """A container that ends while a command runs in it leaves no cgroup, where groups cannot be killed as one, too."""
    groups = (str(pids_cgroup),) if pids_cgroup else ()
    run = await launcher.launch(order("sleep", "1000", more_cgroup_dirs=groups))
    session = await launcher.attach(run, ["sleep", "2000"], tty=False)
    await until(lambda: len(marked(run)) == 2, "the command runs")
    await launcher.kill(run)
    await ends.of(run)
    assert await session.wait() == 137
    await session.close()
    assert [folder for folder in run.cgroup_dirs if Path(folder).exists()] == []
