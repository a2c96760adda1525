"""The autoscaler in a process of its own, and a Prometheus that says what a test wants, for tests of the service."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs

import orjson

from tests.scripted_peer import ScriptedPeer, answer
from tests.tidy.sources import ROOT
from tests.waiting import until_blocking

_READY: Final = re.compile(r"^grove-autoscaler ready: grpc (\S+)(?:, metrics (\S+))?$", re.MULTILINE)


class AutoscalerProcess:
    """`grove-autoscaler run` against a server and a Prometheus, with short ticks, on free ports."""

    def __init__(self, folder: Path, server: str, prometheus: str, *, flags: Sequence[str] = ()) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "autoscaler", "run", "--server", server, "--prometheus", prometheus]
        self._command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--tick-s", "0.3", *flags]
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.metrics_url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return (self._folder / "err").read_text(encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until it says where it is."""
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GROVE_")}
        with (self._folder / "out").open("wb") as out, (self._folder / "err").open("ab") as err:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=err, cwd=ROOT, env=environment)
        until_blocking(self._is_ready, "the autoscaler is ready")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """Ask it to stop, and return its status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=20)
        self._process = None
        return status

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-2000:]
        found = _READY.search((self._folder / "out").read_text(encoding="utf-8"))
        if found is not None:
            self.address, self.metrics_url = found[1], f"http://{found[2]}"
        return found is not None


class ScriptedPrometheus:
    """Answers each query by the values of its metric's name; a test changes them at any time. None is an error 500."""

    def __init__(self) -> None:
        self.values: dict[str, float | None] = {}
        self.peer = ScriptedPeer(self._talk)

    async def __aenter__(self) -> Self:
        await self.peer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.peer.__aexit__(kind, error, trace)

    async def _talk(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        if b"/label/" in head.split(b"\r\n", 1)[0]:
            writer.write(answer(b'{"status":"success","data":[]}'))
            return
        form = parse_qs(body.decode())
        query, at = form["query"][0], float(form["time"][0])
        name = re.sub(r"^timestamp\(", "", query).partition("{")[0]
        value = self.values.get(name)
        if name in self.values and value is None:
            writer.write(answer(b"no", status="500 Internal Server Error", kind="text/plain"))
            return
        shown = at if query.startswith("timestamp(") else value
        result = [] if value is None else [{"metric": {}, "value": [at, str(shown)]}]
        writer.write(answer(orjson.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})))
        await writer.drain()
