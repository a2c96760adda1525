"""grovectl and a server that do not trust each other: one line that says what to do, nothing of the transport's."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rpc.harness import Harness, serving
from tests.rpc.test_transport import Authority, tls_flags


class Ended(NamedTuple):
    """What a run of grovectl left behind."""

    code: int | None
    err: str


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority with a server's certificate for loopback."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server", "DNS:localhost,IP:127.0.0.1")
    made.issue("another", "DNS:another")
    return made


async def get(rpc: Harness, *flags: str) -> Ended:
    """Run grovectl in a process of its own, because the transport writes its lines past Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GROVE_", "GRPC_"))}
    command = ["-m", "grovectl", "--server", str(rpc.api.address), *flags, "get", "pcs"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    return Ended(process.returncode, err.decode())


async def test_plaintext_to_a_server_with_tls(tmp_path: Path, authority: Authority) -> None:
    """Who forgot the certificates is told which flag gives them."""
    async with serving(tmp_path, *tls_flags(authority)) as rpc:
        ended = await get(rpc)
        assert ended.code == 1
        assert ended.err.endswith("; if it speaks TLS, give --tls-ca\n")
        assert ended.err.count("\n") == 1
        folder = authority.folder
        assert (await get(rpc, "--tls-ca", str(folder / "ca.pem"))).code == 0


async def test_files_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    """A file that holds no certificate, or not the key of one, is named on one line with status 2."""
    folder = authority.folder
    own = ("--tls-ca", str(folder / "ca.pem"), "--tls-cert", str(folder / "server.pem"), "--tls-key")
    cases = [
        (("--tls-ca", str(folder / "ca.key")), f"--tls-ca: {folder}/ca.key: holds no certificate"),
        ((*own, str(folder / "another.key")), f"--tls-key: {folder}/another.key: is not the key of"),
        ((*own, str(folder / "ca.pem")), f"--tls-key: {folder}/ca.pem: holds no key"),
    ]
    async with serving(tmp_path, *tls_flags(authority)) as rpc:
        for flags, message in cases:
            ended = await get(rpc, *flags)
            assert ended.code == 2
            assert ended.err.startswith(f"error: {message}")
            assert ended.err.count("\n") == 1


async def test_a_server_of_another_authority(tmp_path: Path, authority: Authority) -> None:
    """A certificate that the given authorities did not sign ends with one line."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    async with serving(tmp_path, *tls_flags(authority)) as rpc:
        ended = await get(rpc, "--tls-ca", str(stranger.folder / "stranger.pem"))
        assert ended.code == 1
        assert ended.err.count("\n") == 1
