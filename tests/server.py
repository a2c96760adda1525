"""A real server in a process of its own, for tests and benchmarks that want what a user gets."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.tidy.sources import ROOT
from tests.waiting import until_blocking

_READY: Final = re.compile(r"^grove-server ready: grpc (\S+)(?:, metrics (\S+))?$", re.MULTILINE)


class ServerProcess:
    """`grove-server` on free loopback ports, with its data in *data_dir* and its output in files beside it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        cluster: Path | None = None,
        flags: Sequence[str] = (),
        listen: str = "127.0.0.1:0",
        environment: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        """*through* is a program that runs the command line which follows its own arguments."""
        self.data_dir = data_dir
        self._environment = dict(environment or {})
        self._command = [
            *through,
            sys.executable,
            "-m",
            "grove_server",
            "--data-dir",
            str(data_dir),
            "--listen",
            listen,
        ]
        self._command += ["--metrics-listen", "127.0.0.1:0", *flags]
        if cluster is not None:
            self._command += ["--cluster", str(cluster)]
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = 0
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
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What the current run printed to stdout."""
        return self._file("out").read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What the current run printed to stderr."""
        return self._file("err").read_text(encoding="utf-8")

    def last_words(self, length: int = 4000) -> str:
        """Return whether the current run has ended, and the end of what it printed; for the message of a failure."""
        if self._process is None:
            return "the server was never started"
        status = self._process.poll()
        state = "runs" if status is None else f"ended with status {status}"
        return (
            f"the server (pid {self._process.pid}, {self.address}, run {self._runs}) {state}: {self.errors[-length:]}"
        )

    def start(self, *, within_s: float = 30.0) -> None:
        """Start the server and wait until it says that it serves."""
        self.launch()
        until_blocking(self._is_ready, "the server serves", within_s=within_s)

    def launch(self) -> None:
        """Start the server and do not wait."""
        self._runs += 1
        self.data_dir.mkdir(parents=True, exist_ok=True)
        # As on a user's machine: no settings of ours, and bytecode is kept, so that only the first start compiles.
        left_out = ("GROVE_", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        environment |= self._environment
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=err, cwd=ROOT, env=environment)

    def wait(self, *, within_s: float = 30.0) -> int:
        """Wait for the process to end and return its status."""
        assert self._process is not None
        return self._process.wait(timeout=within_s)

    def terminate(self) -> None:
        """Ask the server to stop."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask the server to stop, wait for it, and return its status."""
        if self._process is None or self._process.poll() is not None:
            return 0 if self._process is None else self._process.returncode
        self.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _is_ready(self) -> bool:
        assert self._process is not None
        found = _READY.search(self.output)
        if found is None:
            status = self._process.poll()
            assert status is None, f"the server ended with status {status}: {self.errors[-2000:]}"
            return False
        self.address, self.metrics_url = found[1], found[2] or ""
        return True

    def _file(self, stream: str) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.{self._runs}.{stream}"
