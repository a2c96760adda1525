"""The loop: observe, decide, act, record; one tick after the other, while this autoscaler leads.

A tick has a deadline; one that is late is given up and the next begins from what is there. Whoever does not lead only
watches what there is. When it begins to lead, the first look changes nothing, and what earlier leaders kept by hand
is read from the policies' statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from autoscaler.acting.conflicts import Conflicts
from autoscaler.acting.inventory import Inventory
from autoscaler.acting.lead import Lead
from autoscaler.acting.scaling import Outcome, Scaler
from autoscaler.deciding import decide
from autoscaler.decision import Decision
from autoscaler.memory import Memory
from autoscaler.observation import Snapshot
from autoscaler.policy import Policy
from autoscaler.service import metrics
from autoscaler.service.by_hand import ByHand
from autoscaler.service.clock import SteadyClock
from autoscaler.service.journal import Journal
from autoscaler.service.problems import Problems
from autoscaler.service.recall import Recall
from autoscaler.service.scopes import Scopes
from autoscaler.service.statuses import Statuses
from autoscaler.signals.collector import Collector, Observed
from grove_server.resources.scaling_policy import MODE_RECOMMEND
from grove_server.telemetry.logs import get_logger

OBSERVE_PART: Final = 0.6
OBSERVE_MAX_S: Final = 10.0
LATE_TICKS: Final = 2.0
LATE_MIN_S: Final = 20.0
# How often somebody who stands by looks whether it leads.
STANDBY_S: Final = 0.2

_log = get_logger("autoscaler.loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop drives."""

    lead: Lead
    inventory: Inventory
    conflicts: Conflicts
    scopes: Scopes
    collector: Collector
    scaler: Scaler
    by_hand: ByHand
    journal: Journal
    statuses: Statuses
    recall: Recall


class Loop:
    """Turns until cancelled."""

    def __init__(
        self,
        parts: Parts,
        clock: SteadyClock,
        *,
        tick_s: float,
        only_recommends: bool,
        steady_s: Callable[[], float],
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._tick_s = tick_s
        self._only_recommends = only_recommends
        self._steady_s = steady_s
        self._memory = Memory()
        self._problems = Problems()
        self._is_leading = False
        self._woken = asyncio.Event()
        self.problem = "has not looked yet"
        self.ticks = 0

    def now(self) -> float:
        """Return the time of ticks."""
        return self._clock.now()

    @property
    def has_looked(self) -> bool:
        """Whether this autoscaler leads and knows what was asked for before."""
        return self._is_leading

    def wake(self) -> None:
        """Let the next tick come at once."""
        self._woken.set()

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            began_s = self._steady_s()
            self._woken.clear()
            if self._parts.lead.holds:
                await self._watched_tick()
                wait_s = self._tick_s
            else:
                self._is_leading = False
                metrics.LEADS.set(0)
                wait_s = min(STANDBY_S, self._tick_s)
            left_s = began_s + wait_s - self._steady_s()
            if left_s > 0:
                try:
                    await asyncio.wait_for(self._woken.wait(), left_s)
                except TimeoutError:
                    continue

    async def _watched_tick(self) -> None:
        """Do one tick; whatever goes wrong ends the tick and not the loop."""
        try:
            async with asyncio.timeout(max(LATE_MIN_S, LATE_TICKS * self._tick_s)):
                with metrics.TICK_SECONDS.labels("all").time():
                    await self._tick()
        except TimeoutError:
            metrics.TICKS.labels("late").inc()
            self.problem = "the last tick was late"
            _log.error("tick_given_up")
        except Exception:  # noqa: BLE001 -- a supervised loop: nothing that one tick meets may end the others
            metrics.TICKS.labels("failed").inc()
            self.problem = "the last tick failed"
            _log.exception("tick_failed")
        else:
            metrics.TICKS.labels("done").inc()
            self.problem = ""
            self.ticks += 1

    async def _tick(self) -> None:
        parts, at = self._parts, self._clock.now()
        census = await parts.scopes.census()
        if not self._is_leading:
            await self._begin(at)
        with metrics.TICK_SECONDS.labels("observe").time():
            observed = await parts.collector.observe(
                census, at=at, timeout_s=min(OBSERVE_MAX_S, OBSERVE_PART * self._tick_s)
            )
        self._count(observed)
        states = await parts.scopes.states(observed, parts.scaler, at)
        snapshot = Snapshot(at=at, tick_s=self._tick_s, scopes=states)
        with metrics.TICK_SECONDS.labels("decide").time():
            # Pure, and up to a quarter of a second for a thousand roles: not on the event loop.
            decisions, memory = await asyncio.to_thread(decide, self._policies(), snapshot, self._memory)
        if self._only_recommends:
            decisions = tuple(replace(each, do_apply=False, mode=MODE_RECOMMEND) for each in decisions)
        if not parts.lead.holds:
            return
        with metrics.TICK_SECONDS.labels("act").time():
            outcomes = await parts.scaler.carry_out(decisions, at)
        self._memory = memory
        await self._record(decisions, outcomes, at)

    async def _begin(self, at: float) -> None:
        """Begin to lead: nothing of what was known before counts, but for what was kept."""
        parts = self._parts
        self._memory = await parts.recall.load(at)
        parts.conflicts.forget_all()
        for seen in parts.scopes.current():
            parts.by_hand.recall(seen.key, seen.status)
        self._is_leading = True
        metrics.LEADS.set(1)
        _log.info("began_to_lead", term=parts.lead.term, scopes=len(self._memory.scopes))

    def _policies(self) -> dict[str, Policy]:
        return {key: seen.policy for key, seen in self._parts.scopes.policies.items() if seen.policy is not None}

    async def _record(self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], at: float) -> None:
        parts = self._parts
        decided = list(zip(decisions, outcomes, strict=True))
        news = parts.journal.take(decided)
        for decision, outcome in decided:
            for role in decision.roles:
                if role.change:
                    direction = "out" if role.change > 0 else "in"
                    metrics.DECISIONS.labels(direction, role.reason, outcome.word).inc()
        try:
            await parts.journal.write(news)
        except OSError as error:
            _log.warning("decisions_not_logged", reason=error.strerror or str(error))
        targets = parts.inventory.targets
        parts.scaler.forget(lambda key: key in targets)
        await parts.recall.keep(self._memory, at)
        await parts.statuses.write_all(parts.scopes.current(), at)

    def _count(self, observed: Observed) -> None:
        metrics.STRANGERS.set(observed.strangers)
        for problem in observed.problems:
            metrics.PROBLEMS.labels(problem.of, problem.failure.value).inc()
        began, ended = self._problems.turned(observed.problems)
        for problem in began:
            _log.warning(
                "signal_not_known", kind=problem.of, name=problem.what, reason=problem.failure, message=problem.message
            )
        for problem in ended:
            _log.info("signal_known_again", kind=problem.of, name=problem.what, reason=problem.failure)
