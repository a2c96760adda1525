"""The service's part of a tick with many policies: others get their turn while it is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from autoscaler.acting.conflicts import Conflicts
from autoscaler.acting.inventory import Inventory
from autoscaler.acting.lead import Lead
from autoscaler.acting.records import CLIQUE, PolicySeen, SetSeen, TargetSeen
from autoscaler.acting.scaling import UNCHANGED, Outcome, Scaler
from autoscaler.deciding import decide
from autoscaler.memory import Memory
from autoscaler.observation import ScopeState, Snapshot
from autoscaler.policy import compile_policy
from autoscaler.service.by_hand import ByHand
from autoscaler.service.journal import Decided, Journal
from autoscaler.service.scopes import Scopes
from autoscaler.service.statuses import Statuses
from autoscaler.signals.collector import Observed
from autoscaler.signals.readings import ScopeReadings
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove_client import GroveClient
from tests.scaling_cases import TICK_S, spec

COUNT: Final = 200
AT: Final = 1_000_000.0
T = TypeVar("T")


class Written:
    """Stands for the server's policies: keeps the names of those whose status was written."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.scaling_policies = self

    async def update_status(self, name: str, *_status: object, **_by: object) -> None:
        """Keep the name."""
        self.names.append(name)


class Service:
    """The parts of a service that has many policies, each with one copy of two roles."""

    def __init__(self) -> None:
        self.inventory, self.by_hand, self.conflicts = Inventory(), ByHand(), Conflicts()
        self.server = Written()
        client = cast("GroveClient", self.server)
        self.lead = Lead(client, "one", "", version="", steady_s=time.monotonic)
        self.scopes = Scopes(self.inventory, self.conflicts, self.by_hand, scrapes=False)
        self.scaler = Scaler(client, self.inventory, self.conflicts, self.lead, role_of=self.scopes.role_of)
        self.journal = Journal()
        self.statuses = Statuses(client, self.lead, self.journal, self.by_hand, self.scaler)
        for number in range(COUNT):
            self._add(f"s{number:03}")

    def _add(self, name: str) -> None:
        asked = replace(spec(), pod_clique_set=name)
        policy = compile_policy("ns", name, 1, asked)
        self.inventory.put_policy(PolicySeen(namespace="ns", name=name, generation=1, spec=asked, policy=policy))
        self.inventory.put_set(
            SetSeen(namespace="ns", name=name, copies=1, cliques={}, groups={}, message=PodCliqueSet())
        )
        for role in ("prefill", "decode"):
            self.inventory.put_target(
                TargetSeen(
                    kind=CLIQUE,
                    namespace="ns",
                    name=f"{name}-0-{role}",
                    uid="u",
                    generation=1,
                    replicas=2,
                    min_available=1,
                    owner="autoscaler",
                    is_leaving=False,
                )
            )

    async def states(self) -> tuple[ScopeState, ...]:
        """Return all scopes, of which nothing is measured."""
        await self.scopes.census()
        nothing = [ScopeReadings(scope={}, roles={})] * COUNT
        return await self.scopes.states(Observed(at=AT, scopes=nothing, stuck=[{}] * COUNT), self.scaler, AT)

    async def decided(self) -> list[Decided]:
        """Return a decision about each scope."""
        states = await self.states()
        policies = {key: seen.policy for key, seen in self.scopes.policies.items() if seen.policy is not None}
        decisions, _ = decide(policies, Snapshot(at=AT, tick_s=TICK_S, scopes=states), Memory())
        return [(decision, Outcome(word=UNCHANGED)) for decision in decisions]


async def turns_beside(work: Coroutine[Any, Any, T]) -> tuple[T, int]:
    """Return what *work* came to, and how often somebody else had a turn meanwhile."""
    doing, turns = asyncio.create_task(work), 0
    while not doing.done():
        await asyncio.sleep(0)
        turns += 1
    return doing.result(), turns


async def test_many_scopes_are_looked_at_in_steps() -> None:
    """While the scopes of a tick are put together, others have a turn after every few of them."""
    service = Service()
    await service.scopes.census()
    states, turns = await turns_beside(service.states())
    assert [each.key for each in states] == [f"ns/s{number:03}" for number in range(COUNT)]
    assert {len(each.roles) for each in states} == {2}
    assert turns >= COUNT // 40


async def test_many_statuses_are_written_in_steps() -> None:
    """While statuses of many policies are made, others have a turn after every few; what is not news waits."""
    service = Service()
    service.journal.take(await service.decided())
    _, turns = await turns_beside(service.statuses.write_all(service.scopes.current(), AT))
    assert sorted(service.server.names) == [f"s{number:03}" for number in range(COUNT)]
    assert turns >= COUNT // 20
    await service.statuses.write_all(service.scopes.current(), AT + 1)
    assert len(service.server.names) == COUNT


async def test_a_policy_has_the_last_decisions_of_its_copies() -> None:
    """What was decided last is found by the policy, a copy that is gone is forgotten, copies come in order."""
    service = Service()
    decided = await service.decided()
    (first, outcome), *others = decided
    second = replace(first, scope=f"{first.key}#1", copy=1)
    service.journal.take([(second, outcome), (first, outcome), *others])
    assert [each.copy for each, _ in service.journal.of_policy(first.key)] == [0, 1]
    service.journal.take([(second, outcome)])
    assert [each.copy for each, _ in service.journal.of_policy(first.key)] == [1]
    assert not service.journal.of_policy(others[0][0].key)
