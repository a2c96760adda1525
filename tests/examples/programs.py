"""The examples' programs as processes of their own, and requests to them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from examples import wire
from tests.tidy.sources import ROOT

READY: Final = re.compile(rb"(?:engine|router) ready: http://([\d.]+):(\d+)")


class Program:
    """A running example; ``ended`` gives its exit status."""

    def __init__(self, process: asyncio.subprocess.Process, host: str, port: int) -> None:
        self._process = process
        self.host = host
        self.port = port

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end."""
        async with asyncio.timeout(30.0):
            return await self._process.wait()

    async def complete(self, prompt: int, output: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- fields of JSON
        """Ask for a completion and return the answer; AssertionError if it is refused."""
        status, answer = await ask(self.host, self.port, prompt, output, **more)
        assert status == wire.OK, answer
        return answer

    async def measures(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return what the program says of itself, read by Prometheus's own parser."""
        async with wire.asked(self.host, self.port, "GET", "/metrics") as answer:
            text = (await answer.whole()).decode()
        families = text_string_to_metric_families(text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    async def measure(self, name: str, **labels: str) -> float:
        """Return the one series of a metric with these labels among its own."""
        wanted = set(labels.items())
        (value,) = (v for (n, found), v in (await self.measures()).items() if n == name and wanted <= found)
        return value


@asynccontextmanager
async def engine(**figures: float) -> AsyncIterator[Program]:
    """Run an engine with these figures."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in figures.items()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.engine", "--port", "0", *flags, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30.0):
            line = await process.stdout.readline()
        found = READY.search(line)
        assert found is not None, line
        yield Program(process, found[1].decode(), int(found[2]))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ask(host: str, port: int, prompt: int, output: int, **more: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401 -- fields of JSON
    """Ask for a completion; return status and answer."""
    body = json.dumps({"prompt": [1] * prompt, "max_tokens": output, **more}).encode()
    async with wire.asked(host, port, "POST", "/v1/completions", body) as answer:
        found: dict[str, Any] = json.loads(await answer.whole())
        return answer.status, found


async def events(host: str, port: int, body: Mapping[str, Any]) -> list[str]:
    """Ask for a stream and return the texts of its events, in order."""
    async with wire.asked(
        host, port, "POST", "/v1/completions", json.dumps({**body, "stream": True}).encode()
    ) as answer:
        text = (await answer.whole()).decode()
    return [event.removeprefix("data: ") for event in text.split("\n\n") if event]
