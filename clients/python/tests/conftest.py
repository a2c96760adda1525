"""Fixtures of the client's tests: a small real gRPC server in front of a dictionary of resources."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The folder is not a package; its helper module is found by path, as mypy finds it.
sys.path.insert(0, str(Path(__file__).parent))

from small_server import Grovectl, SmallServer


@pytest.fixture
def server() -> Iterator[SmallServer]:
    """A running server without resources."""
    small = SmallServer()
    try:
        yield small
    finally:
        small.stop()


@pytest.fixture
def grovectl(server: SmallServer, capfd: pytest.CaptureFixture[str]) -> Grovectl:
    """The program, talking to the small server."""
    return Grovectl(server.address, capfd)
