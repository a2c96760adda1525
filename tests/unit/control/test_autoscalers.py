"""Who of several autoscalers leads, over a real store and a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from grove_server.control.autoscalers import (
    AUTOSCALERS_MAX,
    LEASE_S,
    AutoscalerNameTakenError,
    Autoscalers,
    TooManyAutoscalersError,
)
from tests.planes import Plane

ADDRESS = "127.0.0.1:1"


def living(autoscalers: Autoscalers) -> dict[str, bool]:
    """Return of each living autoscaler whether it leads."""
    return {known.registration.name: known.leads for known in autoscalers.known()}


async def test_the_first_leads_until_its_lease_runs_out(plane: Plane) -> None:
    """Renewing writes nothing and keeps the lead; a silent leader is followed by whoever calls next."""
    autoscalers = plane.control.autoscalers
    first = await autoscalers.register("a", ADDRESS)
    assert (first.leads, first.leader, first.term, first.is_new) == (True, "a", 1, True)
    second = await autoscalers.register("b", ADDRESS)
    assert (second.leads, second.leader, second.term) == (False, "a", 1)
    version = plane.store.read().version
    for _ in range(4):
        plane.clock.advance(LEASE_S * 0.6)
        assert (await autoscalers.register("a", ADDRESS)).leads
        assert not (await autoscalers.register("b", ADDRESS)).leads
    assert plane.store.read().version == version
    plane.clock.advance(LEASE_S * 0.6)
    await autoscalers.register("b", ADDRESS)
    plane.clock.advance(LEASE_S * 0.6)
    assert autoscalers.leader() is None
    taken = await autoscalers.register("b", ADDRESS)
    assert (taken.leads, taken.term) == (True, 2)
    back = await autoscalers.register("a", ADDRESS)
    assert (back.leads, back.leader, back.term) == (False, "b", 2)
    assert living(autoscalers) == {"a": False, "b": True}


async def test_of_two_that_take_over_at_once_one_leads(plane: Plane) -> None:
    """Whatever the order of their calls, two never believe at the same time that they lead."""
    autoscalers = plane.control.autoscalers
    for round_number in range(5):
        standings = await asyncio.gather(*(autoscalers.register(name, ADDRESS) for name in "abc"))
        assert sum(standing.leads for standing in standings) == 1
        assert {standing.leader for standing in standings if not standing.leads} <= {
            name for name, standing in zip("abc", standings, strict=True) if standing.leads
        }
        assert autoscalers.term == round_number + 1
        plane.clock.advance(LEASE_S)


async def test_a_late_leader_does_not_take_its_lead_from_memory(plane: Plane) -> None:
    """A leader that is late by a whole lease and one that stands by call at once: one of them leads."""
    autoscalers = plane.control.autoscalers
    await autoscalers.register("a", ADDRESS)
    await autoscalers.register("b", ADDRESS)
    plane.clock.advance(LEASE_S)
    standby, late = await asyncio.gather(autoscalers.register("b", ADDRESS), autoscalers.register("a", ADDRESS))
    assert (standby.leads, late.leads) == (True, False)


async def test_who_leaves_hands_over_at_once(plane: Plane) -> None:
    """After Deregister the next call leads, with no lease to wait for; leaving twice is told apart."""
    autoscalers = plane.control.autoscalers
    await autoscalers.register("a", ADDRESS)
    await autoscalers.register("b", ADDRESS)
    assert await autoscalers.deregister("a")
    assert not await autoscalers.deregister("a")
    assert autoscalers.leader() is None
    assert (await autoscalers.register("b", ADDRESS)).leads


async def test_leaving_while_coming_back_leaves_one_answer(plane: Plane) -> None:
    """A registration that crosses its own end is decided by one of the two."""
    autoscalers = plane.control.autoscalers
    await autoscalers.register("a", ADDRESS)
    _, standing = await asyncio.gather(autoscalers.deregister("a"), autoscalers.register("a", ADDRESS))
    assert standing.leads
    leader = autoscalers.leader()
    assert leader is not None
    assert leader.registration.name == "a"


async def test_a_restart_gives_the_leader_a_whole_lease(plane: Plane) -> None:
    """What was stored counts after a restart: nobody takes over before the leader could come back."""
    await plane.control.autoscalers.register("a", ADDRESS)
    plane.clock.advance(LEASE_S * 0.9)
    after = Autoscalers(plane.store, plane.clock)
    plane.clock.advance(LEASE_S * 0.9)
    assert not (await after.register("b", ADDRESS)).leads
    assert (await after.register("a", ADDRESS)).leads
    assert after.term == 1


async def test_a_new_address_is_used_from_then_on(plane: Plane) -> None:
    """An autoscaler that comes back elsewhere is called there, and keeps its lead."""
    autoscalers = plane.control.autoscalers
    await autoscalers.register("a", ADDRESS)
    assert (await autoscalers.register("a", "127.0.0.1:2")).term == 1
    leader = autoscalers.leader()
    assert leader is not None
    assert leader.registration.address == "127.0.0.1:2"


async def test_a_name_belongs_to_its_caller_while_it_lives(plane: Plane) -> None:
    """Another caller gets a name when the lease on it has run out, not before."""
    autoscalers = plane.control.autoscalers
    await autoscalers.register("a", ADDRESS, identity="one")
    with pytest.raises(AutoscalerNameTakenError):
        await autoscalers.register("a", ADDRESS, identity="two")
    with pytest.raises(AutoscalerNameTakenError):
        await autoscalers.deregister("a", identity="two")
    plane.clock.advance(LEASE_S)
    assert (await autoscalers.register("a", ADDRESS, identity="two")).leads


async def test_there_are_only_so_many(plane: Plane) -> None:
    """One more than the limit is refused until one of them is gone."""
    autoscalers = plane.control.autoscalers
    for number in range(AUTOSCALERS_MAX):
        await autoscalers.register(f"a{number}", ADDRESS)
    with pytest.raises(TooManyAutoscalersError):
        await autoscalers.register("late", ADDRESS)
    plane.clock.advance(LEASE_S)
    assert (await autoscalers.register("late", ADDRESS)).leads
    assert living(autoscalers) == {"late": True}
