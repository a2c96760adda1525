"""Consolidation in the background: surplus pods move together so that a gang fits for which room is in pieces.

Rules: off unless asked for. From time to time the gangs are looked at that wait because what is free is in the wrong
pieces, and have waited for a while. For the first of them that moves would help, one plan is handed to the placement
loop, which carries it out like a preemption: places promised, pods drained, and nothing of it if the plan does not hold
any more. Only pods beyond minimums move, within availability budgets (`placement.relief`), and in one hour no more than
the budget of moves. The thinking is done in a thread.

Not here: moves that a person asks for (``planning``), how the pods leave (``evictions``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.decisions import Decision
from grove_server.control.supervision import Supervised
from grove_server.placement.relief import Relief
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Verdict, VerdictCode
from grove_server.resources.meta import Key
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

LOOK_EVERY_S: Final = 30.0
"""Time between two looks."""

PATIENCE_S: Final = 60.0
"""How long a gang has waited before others move for it: what is free by itself soon is not worth a move."""

PLANS_MAX: Final = 8
"""Most gangs that one look makes a plan for."""

_HOUR_S: Final = 3_600.0

_log = get_logger("control")

Plan = Callable[[GangRequest, int], Awaitable[Relief | Verdict]]
"""Plans moves for a request, with at most so many pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consolidation:
    """The policy: how many pods may move in an hour, 0 = none."""

    moves_per_hour_max: int = 0


NO_CONSOLIDATION: Final = Consolidation()


class Consolidator(Supervised):
    """Looks at who waits, and hands over plans. *hand_over* has a gang decided with a plan; *waiting* is read anew."""

    def __init__(
        self,
        policy: Consolidation,
        clock: Clock,
        *,
        waiting: Mapping[Key, Decision],
        generation: Callable[[], int],
        plan: Plan,
        hand_over: Callable[[Key, Relief], None],
    ) -> None:
        super().__init__("consolidator")
        self._policy = policy
        self._clock = clock
        self._waiting = waiting
        self._generation = generation
        self._plan = plan
        self._hand_over = hand_over
        self._moved: deque[tuple[float, int]] = deque()
        self._tried: dict[Key, int] = {}

    def start(self) -> None:
        """Begin to look, if the policy allows moves."""
        if self._policy.moves_per_hour_max:
            self.run_task(self._run)
        else:
            self.problem = ""

    async def stop(self) -> None:
        """Look no more; what was handed over goes on."""
        await self.stop_task()

    @property
    def moves_left(self) -> int:
        """Return how many pods may move now."""
        now = self._clock.now()
        while self._moved and not 0 <= now - self._moved[0][0] < _HOUR_S:
            self._moved.popleft()
        return self._policy.moves_per_hour_max - sum(count for _, count in self._moved)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> bool:
        """Hand over a plan for the first gang that moves would help; return whether there was one."""
        self._tried = {key: tried for key, tried in self._tried.items() if key in self._waiting}
        for key, request in self._candidates()[:PLANS_MAX]:
            left = self.moves_left
            if left <= 0:
                metrics.CONSOLIDATION_PLANS.labels("budget").inc()
                return False
            self._tried[key] = self._generation()
            found = await self._plan(request, left)
            if isinstance(found, Verdict):
                metrics.CONSOLIDATION_PLANS.labels("none").inc()
            elif key in self._waiting and found.seats:
                count = len(found.seats)
                self._moved.append((self._clock.now(), count))
                metrics.CONSOLIDATION_PLANS.labels("made").inc()
                _log.info("consolidation", gang=key.name, namespace=key.namespace, pods=count)
                self._hand_over(key, found)
                return True
        return False

    def _candidates(self) -> list[tuple[Key, GangRequest]]:
        """Return who waits for room that is there in pieces, longest first, and was not tried on this state."""
        now, generation = self._clock.now(), self._generation()
        found = []
        for key, decision in self._waiting.items():
            outcome, since = decision.outcome, decision.since
            if (
                decision.request is not None
                and isinstance(outcome, Verdict)
                and outcome.code in {VerdictCode.FRAGMENTED, VerdictCode.BUDGET_EXHAUSTED}
                and since is not None
                and now - since >= PATIENCE_S
                and self._tried.get(key) != generation
            ):
                found.append((since, key, decision.request))
        return [(key, request) for _, key, request in sorted(found, key=lambda each: each[:2])]
