"""The program's end: what is wrong with the flags is a matter of usage, what is wrong with the world is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ServerProcess
from tests.tidy.sources import ROOT


def run(folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the server with flags that do not let it start."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GROVE_", "GRPC_"))}
    command = [sys.executable, "-m", "grove_server", "--data-dir", str(folder / "data"), "--metrics-listen", "", *flags]
    return subprocess.run(
        command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(("--listen", "127.0.0.1:99999"), "must be HOST:PORT", id="port"),
        pytest.param(("--tls-cert", "x.pem"), "belong together", id="no key"),
        pytest.param(("--tls-client-ca", "x.pem"), "needs --tls-cert", id="authority alone"),
        pytest.param(("--listen", "0.0.0.0:0"), "can be reached from other machines", id="plaintext"),
        pytest.param(("--metrics-listen", "127.0.0.1:x"), "--metrics-listen: 127.0.0.1:x: must be", id="metrics"),
        pytest.param(("--metrics-listen", "unix:/x"), "--metrics-listen", id="metrics on a socket"),
    ],
)
def test_flags_that_make_no_sense_are_a_matter_of_usage(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    """Such flags end the program with status 2 and one line, before anything is touched."""
    ended = run(tmp_path, *flags)
    assert ended.returncode == 2
    assert ended.stderr.startswith("grove-server: ")
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not ended.stdout
    assert not (tmp_path / "data").exists()


def test_files_that_hold_no_certificate_are_named(tmp_path: Path) -> None:
    """A certificate that is none ends the program with status 1 and one line of its own, none of the transport's."""
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_text("nonsense")
    flags = ("--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    ended = run(tmp_path, "--listen", "127.0.0.1:0", *flags)
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if "server_starting" not in line]
    assert lines == [f"grove-server: --tls-cert {tmp_path}/server.pem: holds no certificate in PEM"]


def test_a_metrics_page_for_everybody_is_warned_of(tmp_path: Path) -> None:
    """The page has no certificate and names everything that runs; on loopback that is nobody's business."""
    for host, warnings in (("0.0.0.0", 1), ("127.0.0.1", 0)):  # noqa: S104 -- this address is what the test is about
        with ServerProcess(tmp_path / host, flags=["--metrics-listen", f"{host}:0"]) as server:
            assert (server.output + server.errors).count("metrics_can_be_read_by_anybody") == warnings
