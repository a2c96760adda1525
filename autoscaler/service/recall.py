"""The core's memory in a file, so that windows and forecasts survive a restart.

Written whole beside the old one and renamed, at most once a minute. What is too old, of another version or broken is
not used: the core is cautious without it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from autoscaler.memory import Memory, RecallError, decode, encode
from grove_server.telemetry.logs import get_logger

EVERY_S: Final = 60.0
OLDEST_S: Final = 600.0
BYTES_MAX: Final = 256 << 20

_log = get_logger("autoscaler.recall")


class Recall:
    """Keeps the memory in *path*; without one it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept_at = float("-inf")

    async def load(self, now: float) -> Memory:
        """Return what was kept, an empty memory if there is nothing of use."""
        if self._path is None:
            return Memory()
        try:
            memory = await asyncio.to_thread(_read, self._path)
        except FileNotFoundError:
            return Memory()
        except (OSError, RecallError) as error:
            _log.warning("memory_not_read", reason=str(error))
            return Memory()
        scopes = {name: scope for name, scope in memory.scopes.items() if 0 <= now - scope.seen_at <= OLDEST_S}
        return Memory(scopes=scopes)

    async def keep(self, memory: Memory, now: float) -> None:
        """Write the memory if it is time to."""
        if self._path is None or now - self._kept_at < EVERY_S:
            return
        self._kept_at = now
        try:
            await asyncio.to_thread(_write, self._path, memory)
        except OSError as error:
            _log.warning("memory_not_written", reason=error.strerror or str(error))


def _read(path: Path) -> Memory:
    if path.stat().st_size > BYTES_MAX:
        raise RecallError(f"{path.name} is larger than {BYTES_MAX} bytes")
    return decode(path.read_bytes())


def _write(path: Path, memory: Memory) -> None:
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(encode(memory))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
