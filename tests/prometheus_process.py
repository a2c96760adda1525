"""A real Prometheus in a process of its own, on loopback, with its data in a folder of the test."""

import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson

from tests.waiting import until_blocking

SCRAPE_INTERVAL_S: Final = 1


class PrometheusProcess:
    """The program ``prometheus`` (Debian's package of that name), which scrapes each target every second."""

    def __init__(self, folder: Path, *, honor_labels: bool = False, flags: Sequence[str] = ()) -> None:
        program = shutil.which("prometheus")
        assert program is not None, "the program prometheus is missing; on Debian: apt install prometheus"
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._command = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
            *flags,
        ]
        self._honors = honor_labels
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.scrape({})
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def scrape(self, targets: Mapping[str, Mapping[str, str]]) -> None:
        """Scrape these ("host:port" to labels) from now on; a running one is told."""
        groups = [{"targets": [target], "labels": dict(labels)} for target, labels in targets.items()]
        (self._folder / "targets.json").write_bytes(orjson.dumps(groups))
        (self._folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {SCRAPE_INTERVAL_S}s, scrape_timeout: {SCRAPE_INTERVAL_S}s}}\n"
            "scrape_configs:\n"
            "  - job_name: pods\n"
            f"    honor_labels: {str(self._honors).lower()}\n"
            f"    file_sd_configs: [{{files: ['{self._folder / 'targets.json'}'], refresh_interval: 1s}}]\n",
            encoding="utf-8",
        )
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until_blocking(self._is_ready, "Prometheus is ready")

    def stop(self) -> None:
        """End it and wait."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text(encoding="utf-8")[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:  # noqa: S310 -- our own loopback address
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
