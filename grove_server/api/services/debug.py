"""DebugService: evidence for whoever has to find out what went wrong in a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from grove.v1 import debug_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.pipeline import Call, Method, Streamed
from grove_server.api.reasons import ApiError, Reason
from grove_server.telemetry import metrics

# A reader that takes longer keeps references to everything that was, and nobody else can take a dump.
DUMP_S_MAX: Final = 600.0
PIECE_BYTES: Final = 256 << 10
STEP_S_MAX: Final = 0.004
# A commit of thousands of changes is noticed over some steps; a dump waits so long for it and no longer.
_STEPS_WAITED_MAX: Final = 1_000


class DebugService:
    """Evidence: Dump."""

    name = "grove.v1.DebugService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._is_dumping = False

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {"Dump": Streamed(pb.DebugServiceDumpRequest, self.dump)}

    async def dump(self, request: pb.DebugServiceDumpRequest, call: Call) -> None:
        """Stream everything, as it is now."""
        refuse_unknown_fields(request)
        if self._is_dumping:
            metrics.DUMPS.labels("refused").inc()
            raise ApiError(
                reason=Reason.TOO_MANY_CALLS,
                message="another dump is being taken; there is one at a time",
                metadata={"limit": "1"},
                retry_after_s=5.0,
            )
        self._is_dumping = True
        outcome = "failed"
        try:
            async with asyncio.timeout(DUMP_S_MAX):
                await self._send(call)
            outcome = "done"
        finally:
            self._is_dumping = False
            metrics.DUMPS.labels(outcome).inc()

    async def _send(self, call: Call) -> None:
        chronicle = self._backend.chronicle
        for _ in range(_STEPS_WAITED_MAX):
            if chronicle.is_current:
                break
            await asyncio.sleep(0)
        facts = self._backend.facts
        taken = chronicle.dump(
            {
                "serverVersion": facts.version,
                "commit": facts.commit,
                "store": facts.store,
                "runtime": facts.runtime,
            }
        )
        piece: list[bytes] = []
        size = 0
        step_ends_s = time.perf_counter() + STEP_S_MAX
        for line in taken.lines():
            piece.append(line)
            size += len(line)
            if size >= PIECE_BYTES:
                await call.context.write(_piece(piece))
                call.count_sent(1)
                piece, size = [], 0
                step_ends_s = time.perf_counter() + STEP_S_MAX
            elif time.perf_counter() >= step_ends_s:
                await asyncio.sleep(0)
                step_ends_s = time.perf_counter() + STEP_S_MAX
        await call.context.write(_piece(piece))
        call.count_sent(1)


def _piece(lines: Iterable[bytes]) -> bytes:
    return pb.DebugServiceDumpResponse(lines=b"".join(lines).decode()).SerializeToString()
