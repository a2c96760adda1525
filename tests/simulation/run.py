"""One run: a world from a seed, things happening in it, healing, and the demand that all is well in the end."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import structlog

from grove_server.control.routers import LEASE_S
from tests.simulation.convergence import account, differences, leftovers
from tests.simulation.faults import Faults
from tests.simulation.invariants import check_deadlines, check_drained_nodes
from tests.simulation.world import InvariantError, World

# The longest back-off of a crashing or replaced pod is 300 s, and several may follow one another.
CONVERGE_MAX_S: Final = 1_800.0
DELETE_MAX_S: Final = 120.0
STEADY_S: Final = 60.0
FOLLOW_MAX_S: Final = 120.0
# Checking it costs as much as an action.
ACCOUNT_CHANCE: Final = 0.25
_DIFFERENCES_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a world is and how long it is disturbed. ``gap_s`` is the mean time between two actions."""

    nodes: tuple[int, int]
    sets_max: int
    actions: int
    gaps_s: tuple[float, ...]


SMALL: Final = Size(nodes=(3, 10), sets_max=5, actions=80, gaps_s=(0.02, 0.3, 2.0, 10.0))
FLEET: Final = Size(nodes=(100, 100), sets_max=50, actions=300, gaps_s=(30.0,))
SIZES: Final = {"small": SMALL, "fleet": FLEET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one run. ``failure`` is empty if all is well."""

    seed: str
    failure: str
    last: list[str]
    digest: str
    virtual_s: float
    actions: Counter[str]
    changes: Counter[str]
    callbacks: int
    pods_ready: int
    pods_waiting: int
    answers: dict[str, int]
    refusals: dict[str, int]


def simulate(seed: str, size: Size = SMALL, *, is_thorough: bool = False) -> Report:
    """Run one seed. Never raises: what goes wrong is in the report."""
    run = _Run(seed, size, is_thorough=is_thorough)
    failure = ""
    with _errors_are_problems(run):
        try:
            run.go()
        except Exception as error:  # noqa: BLE001 -- whatever a run meets is its result
            is_ours = isinstance(error, InvariantError)
            failure = str(error) if is_ours else "".join(traceback.format_exception(error))
        world = run.world
        report = Report(
            seed=seed,
            failure=failure,
            last=world.history.last() if failure else [],
            digest=world.history.digest,
            virtual_s=world.time.now_s,
            actions=world.history.actions,
            changes=world.history.changes,
            callbacks=world.callback_count + (world.server.loop.callback_count if world.server else 0),
            pods_ready=run.pods_ready,
            pods_waiting=run.pods_waiting,
            answers=world.users.answers,
            refusals=world.users.refusals,
        )
        world.bury()
    return report


class _Run:
    def __init__(self, seed: str, size: Size, *, is_thorough: bool) -> None:
        rng = self._rng = World.stream_of(seed, "run")
        self._size = size
        self.world = World(
            seed,
            nodes=rng.randint(*size.nodes),
            nodes_per_rack=rng.choice((1, 2, 4)),
            sets_max=size.sets_max,
            is_thorough=is_thorough,
            steps_aside=rng.random() < 0.3,
        )
        self.pods_ready = 0
        self.pods_waiting = 0

    def go(self) -> None:
        """Disturb, heal, converge, delete."""
        world = self.world
        world.start_server()
        world.run_for(0.1)
        faults = Faults(world)
        faults.begin()
        gap_s = self._rng.choice(self._size.gaps_s)
        for _ in range(self._size.actions):
            self._check_account()
            faults.act()
            # Now and then nothing comes between two actions: they meet in one step of the loop.
            world.run_for(self._rng.expovariate(1 / gap_s) if self._rng.random() < 0.9 else 0.0)
        faults.heal()
        self._converge(lambda: differences(world.serving, world.books), CONVERGE_MAX_S, "converge")
        self._check_followers()
        self._count_pods()
        self._stay_steady()
        self._delete_all()

    def _check_account(self) -> None:
        """Now and then, check placement's account, and that no drain is overdue, if nothing is on its way."""
        world = self.world
        server = world.server
        if server is None or self._rng.random() >= ACCOUNT_CHANCE or not server.is_quiet:
            return
        for problem in account(server, world.books):
            raise InvariantError(problem)
        for check in (check_deadlines, check_drained_nodes):
            for problem in check(world.books, world.time.now_s, world.troubled_at_s):
                raise InvariantError(problem)

    def _converge(self, look: Callable[[], Iterator[str]], within_s: float, what: str) -> None:
        world = self.world
        end_s = world.time.now_s + within_s
        wait_s = 0.5
        while True:
            world.run_for(wait_s)
            found = [*islice(look(), _DIFFERENCES_SHOWN)]
            if not found:
                return
            if world.time.now_s >= end_s:
                raise InvariantError(f"does not {what} within {within_s} s: " + "; ".join(found))
            wait_s = min(2 * wait_s, 20.0)

    def _check_followers(self) -> None:
        world = self.world

        def look() -> Iterator[str]:
            reader = world.serving.store.read()
            for follower in world.followers:
                yield from follower.differences(reader)

        # A reader may have begun its longest pause just before the healing.
        self._converge(look, FOLLOW_MAX_S, "tell its readers everything")
        for problem in world.users.broken_promises():
            raise InvariantError(problem)

    def _count_pods(self) -> None:
        for pods in self.world.books.pods_of_gang.values():
            for pod in pods.values():
                self.pods_ready += pod.is_ready
                self.pods_waiting += not pod.node

    def _stay_steady(self) -> None:
        """Check that a converged world is left alone, once nobody who has gone is waited for any more."""
        world = self.world
        # A router that ended unseen is forgotten when its lease is over: the last change that is still owed.
        world.run_for(LEASE_S)
        before = _without_events(world.history.changes)
        world.run_for(STEADY_S)
        after = _without_events(world.history.changes)
        if after != before:
            raise InvariantError(f"goes on changing what is as it should be: {after - before}")
        found = [*islice(differences(world.serving, world.books), _DIFFERENCES_SHOWN)]
        if found:
            raise InvariantError("does not stay as it should be: " + "; ".join(found))

    def _delete_all(self) -> None:
        world = self.world
        for uid in list(world.books.sets):
            owner = world.books.set_of(uid)
            if owner is not None:
                world.users.delete(world.serving, owner)
        world.history.act(world.time.now_s, "delete", "everything")
        self._converge(lambda: leftovers(world.serving), DELETE_MAX_S, "empty itself")
        self._check_followers()


def _without_events(changes: Counter[str]) -> Counter[str]:
    return Counter({cause: count for cause, count in changes.items() if cause != "events"})


@contextmanager
def _errors_are_problems(run: _Run) -> Iterator[None]:
    """Turn every error that the server logs into a problem of the run, and keep its logs off the terminal."""

    def note(_logger: object, method: str, event: Any) -> Any:  # noqa: ANN401 -- structlog's own types
        server = run.world.server
        if server is not None and method in ("error", "exception", "critical"):
            found = traceback.format_exc() if event.get("exc_info") else ""
            server.loop.problems.append(f"the server logged {event}\n{found}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
