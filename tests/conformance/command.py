"""Runs `grovectl` against a test's server, beside whatever else the test does meanwhile."""

from __future__ import annotations

import asyncio
import sys
from typing import NamedTuple

from tests.server import ServerProcess


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    lines: list[str]
    errors: str


async def grovectl(server: ServerProcess, *words: str, namespace: str = "default") -> Answer:
    """Run a command in a namespace to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "grovectl", "--server", server.address, "-n", namespace, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return Answer(process.returncode, output.decode().splitlines(), errors.decode())
