"""Control groups: which hierarchies are used, what is written, and what is said where the system allows nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grove_server.runtime.process.cgroups import (
    ControlGroups,
    Hierarchy,
    Limits,
    memory_limit_bytes,
    open_groups,
    remove_tree,
)

LIMITS = Limits(memory_bytes=64 << 20, cpu_milli=500, process_count=50)


def proc_with(folder: Path, mounts: str, groups: str) -> Path:
    """Return a folder that stands for /proc, with the given mounts and groups of this process."""
    own = folder / "proc" / "self"
    own.mkdir(parents=True)
    (own / "mounts").write_text(mounts, encoding="ascii")
    (own / "cgroup").write_text(groups, encoding="ascii")
    return folder / "proc"


def unified(folder: Path, *, controllers: str = "cpuset cpu io memory pids", procs: str = "") -> Path:
    """Return a plain folder that looks like the top of version 2, with one group `service` that this process is in."""
    top = folder / "top"
    for group in (top, top / "service"):
        group.mkdir(parents=True)
        (group / "cgroup.controllers").write_text(controllers, encoding="ascii")
        (group / "cgroup.subtree_control").write_text("", encoding="ascii")
        (group / "cgroup.procs").write_text(procs, encoding="ascii")
    return top


def test_without_control_groups_the_reason_is_told(tmp_path: Path) -> None:
    """A machine that mounts none enforces nothing and says so."""
    groups = open_groups("x", proc=proc_with(tmp_path, "proc /proc proc rw 0 0\n", ""))
    assert groups.enforced == ()
    assert groups.missing == (
        "memory, processor time, the number of processes cannot be limited on this machine "
        "(no control groups are mounted)"
    )
    assert groups.prepare("uid", "main", LIMITS).problems == ()


def test_a_hierarchy_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    """The reason names the file and what the system said."""
    mounts = f"cgroup2 {tmp_path}/nowhere cgroup2 rw 0 0\n"
    groups = open_groups("x", proc=proc_with(tmp_path, mounts, "0::/\n"))
    assert groups.hierarchies == ()
    assert "No such file" in groups.missing


def test_empty_groups_of_a_killed_server_are_removed(tmp_path: Path) -> None:
    """Whatever an earlier server with the same data left where its group may be goes, but for what is in use."""
    top = tmp_path / "v1"
    stale = top / "service" / "grove-x"
    (stale / "gone.main" / "main.0").mkdir(parents=True)
    (stale / "there.main" / "main.0").mkdir(parents=True)
    # A plain file keeps a plain folder as a process keeps a group.
    (stale / "there.main" / "main.0" / "cgroup.procs").touch()
    (top / "grove-x" / "old.main").mkdir(parents=True)
    groups = open_groups("x", proc=proc_with(tmp_path, f"cgroup {top} cgroup rw,pids 0 0\n", "3:pids:/service\n"))
    assert [each.base for each in groups.hierarchies] == [stale]
    assert groups.leftovers() == {"there"}
    assert not (top / "grove-x").exists()


def test_limits_of_version_2_are_written(tmp_path: Path) -> None:
    """Memory, processor time and processes go to the files that the kernel documents, in the container's group."""
    folder = tmp_path / "grove"
    container = folder / "uid.main"
    container.mkdir(parents=True)
    for name in ("memory.max", "cpu.max", "pids.max"):
        (container / name).touch()
    groups = ControlGroups((Hierarchy(version=2, base=folder, controllers=("memory", "cpu", "pids")),))
    made = groups.prepare("uid", "main", LIMITS)
    assert (made.unified, made.others, made.problems) == (container, (), ())
    assert (container / "memory.max").read_text(encoding="ascii") == str(64 << 20)
    assert (container / "cpu.max").read_text(encoding="ascii") == "50000 100000"
    assert (container / "pids.max").read_text(encoding="ascii") == "50"


def test_a_limit_that_cannot_be_written_is_a_problem_of_that_start(tmp_path: Path) -> None:
    """A group without the file that a limit goes to leaves the container without that hierarchy, and says so."""
    groups = ControlGroups((Hierarchy(version=1, base=tmp_path, controllers=("memory",)),))
    made = groups.prepare("uid", "main", LIMITS)
    assert made.others == ()
    assert "memory.limit_in_bytes" in made.problems[0]


def test_without_limits_there_is_no_group_but_to_kill_by(tmp_path: Path) -> None:
    """A container without limits has a group of version 2, and none of version 1."""
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    groups = ControlGroups(
        (
            Hierarchy(version=2, base=tmp_path / "two", controllers=()),
            Hierarchy(version=1, base=tmp_path / "one", controllers=("memory",)),
        )
    )
    made = groups.prepare("uid", "main", Limits())
    assert (made.unified, made.others) == (tmp_path / "two" / "uid.main", ())
    assert list((tmp_path / "one").iterdir()) == []


def test_a_server_alone_in_its_group_makes_room_for_controllers(tmp_path: Path) -> None:
    """Version 2 hands controllers to groups without processes only: the server moves into a leaf."""
    top = unified(tmp_path, procs=f"{os.getpid()}\n")
    leaf = top / "service" / "server"
    leaf.mkdir()
    (leaf / "cgroup.procs").touch()
    base = top / "service" / "grove-x"
    base.mkdir()
    (base / "cgroup.subtree_control").touch()
    groups = open_groups("x", proc=proc_with(tmp_path, f"cgroup2 {top} cgroup2 rw 0 0\n", "0::/service\n"))
    assert (leaf / "cgroup.procs").read_text(encoding="ascii") == str(os.getpid())
    assert groups.hierarchies == (Hierarchy(version=2, base=base, controllers=("memory", "cpu", "pids")),)
    assert groups.missing == ""


def test_the_tightest_memory_limit_around_counts(tmp_path: Path) -> None:
    """A limit of a group around this process's limits the machine as a node."""
    top = unified(tmp_path)
    (top / "memory.max").write_text("1000\n", encoding="ascii")
    (top / "service" / "memory.max").write_text("max\n", encoding="ascii")
    proc = proc_with(tmp_path, f"cgroup2 {top} cgroup2 rw 0 0\n", "0::/service\n")
    assert memory_limit_bytes(proc=proc) == 1000


@pytest.mark.parametrize("container", ["main", "side-car"])
def test_groups_of_this_machine_can_be_made_and_removed(tmp_path: Path, container: str) -> None:
    """Whatever this machine allows works: groups appear with their limits, and go with their pod."""
    groups = open_groups(f"test-{tmp_path.name}-{container}")
    try:
        made = groups.prepare("uid", container, LIMITS)
        assert made.problems == ()
        folders = [folder for folder in (made.unified, *made.others) if folder is not None]
        assert len(folders) == len(groups.hierarchies)
        assert groups.leftovers() == ({"uid"} if folders else set())
        groups.remove("uid")
        assert groups.leftovers() == set()
        groups.close()
        assert not any(hierarchy.base.exists() for hierarchy in groups.hierarchies)
    finally:
        for hierarchy in groups.hierarchies:
            remove_tree(hierarchy.base)
