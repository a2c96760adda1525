"""grpc.health.v1 and readiness, driven by checks instead of by the process being up.

One status for each service and one for the whole (""): SERVING while no part reports a problem. Checks are in memory
and cheap, so they are polled; a change reaches watchers of the health service at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs installed

from grove_server.api.ports import HealthPort
from grove_server.telemetry.logs import get_logger
from grove_server.telemetry.metrics import INTERNAL_ERRORS

POLL_INTERVAL_S: Final = 0.25
DRAINING: Final = "draining"

_log = get_logger("health")


class HealthMonitor:
    """Keeps the health service true to the checks."""

    def __init__(self, port: HealthPort, services: Sequence[str]) -> None:
        self._port = port
        self._services = ("", *services)
        self._servicer = health.aio.HealthServicer()
        self._task: asyncio.Task[None] | None = None
        self._shown: Mapping[str, str] | None = None
        self._is_draining = False

    def register(self, server: grpc.aio.Server) -> None:
        """Add the health service to *server*."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def problems(self) -> Mapping[str, str]:
        """Return what keeps the server from being ready, by part."""
        problems = self._port.problems()
        return {**problems, DRAINING: "the server is stopping"} if self._is_draining else problems

    async def start(self) -> None:
        """Show the present state, then follow it."""
        await self._show()
        self._task = asyncio.create_task(self._follow(), name="health-monitor")

    async def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._is_draining = True
        await self._servicer.enter_graceful_shutdown()

    async def stop(self) -> None:
        """End following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self._show()
            except Exception:  # noqa: BLE001 -- a supervised loop: a failing check must not end the checking
                INTERNAL_ERRORS.labels("health").inc()
                _log.exception("health_check_failed")

    async def _show(self) -> None:
        problems = self._port.problems()
        if problems == self._shown:
            return
        for part in sorted(problems):
            _log.error("part_became_unhealthy", part=part, reason=problems[part])
        if not problems and self._shown:
            _log.info("server_became_healthy")
        self._shown = dict(problems)
        serving = health_pb2.HealthCheckResponse
        status = serving.NOT_SERVING if problems else serving.SERVING
        for service in self._services:
            await self._servicer.set(service, status)
