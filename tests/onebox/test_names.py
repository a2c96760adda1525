"""Addresses and names of pods on one machine."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from grove_server.resources.meta import key_of
from grove_server.runtime.process.names import (
    NETWORK,
    AddressesSpentError,
    HostsFiles,
    LoopbackAddresses,
    choose_block,
    listening_addresses,
    write_in_place,
)
from tests.unit.runtime.simulated import pod


def test_addresses_are_unique_and_rest_before_they_are_given_again() -> None:
    """Each pod gets its own address, keeps it, and the one of a pod that is gone comes last."""
    addresses = LoopbackAddresses(ipaddress.IPv4Network("127.64.0.0/29"))
    assert [addresses.assign(name) for name in ("a", "b", "a")] == ["127.64.0.1", "127.64.0.2", "127.64.0.1"]
    addresses.release("a")
    assert [addresses.assign(name) for name in "cdefg"] == [f"127.64.0.{n}" for n in (3, 4, 5, 6, 7)]
    assert addresses.assign("h") == "127.64.0.1"
    with pytest.raises(AddressesSpentError):
        addresses.assign("i")


def test_adopted_addresses_are_not_given_out() -> None:
    """After a restart the addresses of running pods are taken."""
    addresses = LoopbackAddresses(ipaddress.IPv4Network("127.64.0.0/29"))
    addresses.adopt("a", "127.64.0.1")
    assert addresses.assign("b") == "127.64.0.2"
    assert addresses.assign("a") == "127.64.0.1"


def test_a_block_in_which_somebody_listens_is_passed_over(tmp_path: Path) -> None:
    """Two servers on one machine keep out of each other's way, and one server chooses the same block again."""
    block = choose_block(tmp_path)
    assert block.subnet_of(NETWORK)
    assert choose_block(tmp_path) == block
    with socket.socket() as listener:
        listener.bind((str(block[5]), 0))
        listener.listen()
        used = listening_addresses()
        assert str(block[5]) in used
        assert choose_block(tmp_path, used) != block
    assert choose_block(tmp_path / "other") != block


def test_pods_answer_to_their_kubernetes_names(tmp_path: Path) -> None:
    """A pod's line has its full name first, the forms of a search list, and its Service's names."""
    files = HostsFiles(tmp_path, own_hosts=tmp_path / "none")
    first, second = pod("p0"), pod("p1", index=1)
    files.add(key_of(first), first, "127.64.0.1")
    files.add(key_of(second), second, "127.64.0.2")
    assert files.is_stale
    files.write()
    text = files.path("default").read_text(encoding="ascii")
    assert "127.0.0.1 localhost\n" in text
    assert (
        "127.64.0.1 s-0-router-0.s-0.default.svc.cluster.local s-0-router-0.s-0.default.svc "
        "s-0-router-0.s-0.default s-0-router-0.s-0 s-0-router-0\n"
    ) in text
    assert "127.64.0.2 s-0.default.svc.cluster.local s-0.default.svc s-0.default s-0\n" in text
    files.remove(key_of(first))
    files.write()
    assert "127.64.0.1" not in files.path("default").read_text(encoding="ascii")


def test_a_hosts_file_is_written_in_place(tmp_path: Path) -> None:
    """A file that is mounted elsewhere keeps its inode, whether it grows or shrinks."""
    path = tmp_path / "hosts"
    write_in_place(path, "one\n" * 10)
    inode = path.stat().st_ino
    write_in_place(path, "two\n")
    assert path.read_text(encoding="ascii") == "two\n"
    write_in_place(path, "three\n" * 20)
    assert path.read_text(encoding="ascii") == "three\n" * 20
    assert path.stat().st_ino == inode
