"""The program that pods of these tests run: an HTTP server that does as it is told, and keeps a journal.

Variables: POD_IP and PORT (where it listens), JOURNAL (a file that gets one JSON line for each thing that happens),
UNHEALTHY (while that file exists, /health answers 503), CONNECT_TO (HOST:PORT that it connects to before it listens),
IGNORE_SIGTERM, DAEMONS (how many processes it leaves behind that detach from it), START_DELAY_S. The standard library
alone, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ENVIRONMENT = os.environ
SLOW_S = 0.05


def note(event: str, **facts: object) -> None:
    """Write a line to the journal; one write, so that several processes may."""
    line = {"event": event, "pod": ENVIRONMENT.get("HOSTNAME", ""), "pid": os.getpid(), "at": time.time(), **facts}
    descriptor = os.open(ENVIRONMENT["JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, json.dumps(line).encode() + b"\n")
    os.close(descriptor)


class Handler(BaseHTTPRequestHandler):
    """Answers /health, /environment, /resolve/NAME, /slow after 50 ms, and /exit/CODE, which ends the process."""

    def do_GET(self) -> None:
        """Answer."""
        _, what, *rest = self.path.split("/")
        if what == "health":
            self._answer("sick" if Path(ENVIRONMENT.get("UNHEALTHY", "/nowhere")).exists() else "well")
        elif what == "environment":
            self._answer(json.dumps(dict(ENVIRONMENT)))
        elif what == "resolve":
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(rest[0], None, family=socket.AF_INET)}
            self._answer(json.dumps(sorted(found)))
        elif what == "slow":
            threading.Event().wait(SLOW_S)
            self._answer(ENVIRONMENT.get("HOSTNAME", ""))
        elif what == "exit":
            os._exit(int(rest[0]))
        else:
            self._answer(ENVIRONMENT.get("HOSTNAME", ""))

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(503 if text == "sick" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Binds without asking what its address is called."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


def detach() -> None:
    """Leave a process behind that has a session of its own and no parent but the system's."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    note("daemon")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def on_term(_number: int, _frame: object) -> None:
    """End, unless told not to."""
    note("term")
    if "IGNORE_SIGTERM" not in ENVIRONMENT:
        os._exit(0)


def main() -> None:
    """Start as told, then serve."""
    note("start", argv=sys.argv[1:])
    signal.signal(signal.SIGTERM, on_term)
    if "CONNECT_TO" in ENVIRONMENT:
        host, _, port = ENVIRONMENT["CONNECT_TO"].partition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                note("connected", to=connection.getpeername()[0])
        except OSError as error:
            note("refused", error=str(error))
    for _ in range(int(ENVIRONMENT.get("DAEMONS", "0"))):
        detach()
    server = Server((ENVIRONMENT["POD_IP"], int(ENVIRONMENT.get("PORT", "8000"))), Handler)
    note("listening")
    server.serve_forever()


if __name__ == "__main__":
    main()
