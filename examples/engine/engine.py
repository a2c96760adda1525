"""The engine: turns steps in real time, queues, fetches KV from the engine that computed it, and drains.

Steps end on a schedule, not after a sleep, so that what a busy engine does in a minute follows from its figures and not
from how busy the machine is; when the process falls behind by ``LAG_MAX_S`` the schedule starts anew.

A prompt whose KV cannot be fetched is computed here. KV that nobody fetches is dropped after ``KEEP_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from examples import wire
from examples.engine.batch import Batch, Figures, Sequence
from examples.engine.meters import Meters

LAG_MAX_S: Final = 0.25
KEEP_S: Final = 60.0


class BusyError(Exception):
    """The engine takes nothing more: it drains, or its queue is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Where the KV of a prompt is: an engine, and the name that it keeps it under."""

    host: str
    port: int
    name: str


class Generation:
    """One request under way: what it has, and waiting for more."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.kept_as = ""
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Wake who waits."""
        self._changed.set()

    async def resident(self) -> None:
        """Return when the request has its place and its KV is here or about to be computed."""
        while math.isnan(self.sequence.admitted_s) or self.sequence.is_fetching:
            await self._wait()

    async def tokens(self) -> AsyncIterator[int]:
        """Yield how many new tokens there are, whenever there are some."""
        seen = 0
        while seen < self.sequence.output_tokens:
            while self.sequence.generated == seen:
                await self._wait()
            yield self.sequence.generated - seen
            seen = self.sequence.generated

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Engine:
    """One engine. ``run`` turns it; nothing else may."""

    def __init__(self, figures: Figures, meters: Meters) -> None:
        self.batch = Batch(figures=figures)
        self.meters = meters
        self.is_draining = False
        self._wake = asyncio.Event()
        self._generations: dict[int, Generation] = {}
        self._sources: dict[int, Elsewhere] = {}
        self._kept: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._fetches: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not (self.batch.waiting or self.batch.running)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept for others either."""
        return self.is_idle and not self._kept

    @asynccontextmanager
    async def generating(
        self, prompt_tokens: int, output_tokens: int, *, keeps: bool = False, source: Elsewhere | None = None
    ) -> AsyncIterator[Generation]:
        """Queue a request for the length of the block; BusyError, ValueError if it can never fit.

        With *keeps* the prompt's KV stays, under ``Generation.kept_as``, until it is taken. Left early, it is aborted.
        """
        loop = asyncio.get_running_loop()
        sequence = Sequence(
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            arrived_s=loop.time(),
            comes_from_elsewhere=source is not None,
        )
        if not self.batch.fits(sequence):
            raise ValueError(f"{sequence.kv_whole} tokens are more than the {self.batch.figures.kv_tokens} that fit")
        if self.is_draining:
            raise BusyError("the engine drains")
        if not self.batch.offer(sequence):
            raise BusyError("the queue is full")
        generation = self._generations[id(sequence)] = Generation(sequence)
        if keeps:
            generation.kept_as = uuid4().hex
        if source is not None:
            self._sources[id(sequence)] = source
        self._wake.set()
        try:
            yield generation
        finally:
            del self._generations[id(sequence)]
            self._sources.pop(id(sequence), None)
            if not sequence.is_done:
                self.batch.drop(sequence)
                self.meters.aborted(sequence)
            self._wake.set()

    async def hand_over(self, name: str) -> bool:
        """Send kept KV away, which takes its time, and forget it; False if it is not here."""
        found = self._kept.get(name)
        if found is None:
            return False
        await asyncio.sleep(self.batch.figures.transfer_s(found[0]))
        self._let_go(name)
        return True

    async def run(self) -> None:
        """Compute steps until cancelled."""
        loop = asyncio.get_running_loop()
        at_s = loop.time()
        try:
            while True:
                self._admit(at_s)
                step = self.batch.next_step()
                if step is None:
                    self._wake.clear()
                    await self._wake.wait()
                    at_s = loop.time()
                    continue
                end_s = at_s + step.seconds
                await asyncio.sleep(max(0.0, end_s - loop.time()))
                self.meters.activity.add(at_s, end_s)
                for sequence in self.batch.finish(step):
                    self._token(sequence, end_s)
                at_s = end_s if loop.time() - end_s < LAG_MAX_S else loop.time()
        finally:
            for task in self._fetches:
                task.cancel()
            for _, timer in self._kept.values():
                timer.cancel()

    def _admit(self, now_s: float) -> None:
        for sequence in self.batch.admit(now_s):
            source = self._sources.get(id(sequence))
            if source is not None:
                task = asyncio.create_task(self._fetch(sequence, source))
                self._fetches.add(task)
                task.add_done_callback(self._fetches.discard)
            self._generations[id(sequence)].tell()

    async def _fetch(self, sequence: Sequence, source: Elsewhere) -> None:
        is_here = False
        with contextlib.suppress(OSError, TimeoutError, wire.WireError):
            async with wire.asked(source.host, source.port, "POST", f"/kv/{source.name}") as answer:
                is_here = answer.status == wire.OK
        sequence.is_fetching = False
        if is_here:
            sequence.computed = sequence.prompt_tokens
        else:
            sequence.comes_from_elsewhere = False
        generation = self._generations.get(id(sequence))
        if generation is not None:
            generation.tell()
        self._wake.set()

    def _token(self, sequence: Sequence, now_s: float) -> None:
        generation = self._generations.get(id(sequence))
        if generation is None:
            return
        self.meters.token(sequence, now_s)
        if sequence.is_done and generation.kept_as:
            timer = asyncio.get_running_loop().call_later(KEEP_S, self._let_go, generation.kept_as)
            self._kept[generation.kept_as] = sequence.prompt_tokens, timer
            self.batch.kept += sequence.prompt_tokens
        generation.tell()

    def _let_go(self, name: str) -> None:
        found = self._kept.pop(name, None)
        if found is not None:
            found[1].cancel()
            self.batch.kept -= found[0]
            self._wake.set()
