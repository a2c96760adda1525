"""Registrations of routers and their leases, over a real store and a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from grove_server.control import routers as routers_module
from grove_server.control.routers import LEASE_S, Routers, TooManyRoutersError
from grove_server.resources.routing import RouterRegistration
from tests.planes import Plane


def names(plane: Plane, set_name: str = "s", namespace: str = "default") -> list[str]:
    """Return the routers that drains of a set wait for."""
    return [lease.router for lease in plane.control.routers.leases(namespace, set_name)]


async def forgotten(plane: Plane, count: int = 0) -> None:
    """Wait until so many registrations are left."""
    await plane.until(lambda: len(plane.all(RouterRegistration)) == count, f"{count} registrations are left")


async def test_a_lease_lives_as_long_as_it_is_renewed(plane: Plane) -> None:
    """Renewing writes nothing; a router that falls silent is forgotten after a whole lease."""
    routers = plane.control.routers
    assert await routers.renew("default", "s", "r1")
    version = plane.store.read().version
    for _ in range(4):
        plane.clock.advance(LEASE_S * 0.6)
        assert not await routers.renew("default", "s", "r1")
        assert names(plane) == ["r1"]
    assert plane.store.read().version == version
    plane.clock.advance(LEASE_S)
    assert names(plane) == []
    await forgotten(plane)


async def test_a_lease_is_counted_in_steady_time(plane: Plane) -> None:
    """Setting the clock forward by an hour ends no lease, and back lengthens none."""
    await plane.control.routers.renew("default", "s", "r1")
    for step_s in (3_600.0, -7_200.0):
        plane.clock.set_by(step_s)
        (lease,) = plane.control.routers.leases("default", "s")
        assert 0 < lease.expires_at - plane.clock.now() <= LEASE_S
    plane.clock.advance(LEASE_S)
    await forgotten(plane)


async def test_a_watch_keeps_its_lease(plane: Plane) -> None:
    """While a router watches it lives; when its watches have ended it has one lease to come back."""
    routers = plane.control.routers
    await routers.renew("default", "s", "r1")
    with routers.watching("default", "s", "r1"):
        with routers.watching("default", "s", "r1"):
            plane.clock.advance(3 * LEASE_S)
        plane.clock.advance(3 * LEASE_S)
        assert names(plane) == ["r1"]
    plane.clock.advance(LEASE_S * 0.9)
    assert names(plane) == ["r1"]
    plane.clock.advance(LEASE_S * 0.1)
    await forgotten(plane)


async def test_a_router_may_serve_all_sets_of_its_namespace(plane: Plane) -> None:
    """A registration without a set counts for each set there and for none elsewhere; two of one router count once."""
    routers = plane.control.routers
    await routers.renew("default", "", "all")
    await routers.renew("default", "s", "all")
    await routers.renew("default", "s", "own")
    assert names(plane) == ["all", "own"]
    assert names(plane, "other") == ["all"]
    assert names(plane, namespace="elsewhere") == []
    assert routers.is_known("default", "other", "all")
    assert not routers.is_known("default", "other", "own")


async def test_a_router_that_says_so_is_forgotten_at_once(plane: Plane) -> None:
    """Leaving twice says that there was nobody any more; coming back is like coming."""
    routers = plane.control.routers
    await routers.renew("default", "s", "r1")
    assert await routers.end("default", "s", "r1")
    assert names(plane) == []
    assert not await routers.end("default", "s", "r1")
    assert await routers.renew("default", "s", "r1")
    assert names(plane) == ["r1"]


async def test_after_a_restart_every_lease_is_whole(plane: Plane) -> None:
    """What was stored is waited for again for a whole lease, however long the server was away."""
    await plane.control.routers.renew("default", "s", "r1")
    plane.clock.advance(LEASE_S * 0.9)
    await plane.stop()
    plane.clock.advance(3_600.0)
    await plane.start()
    assert names(plane) == ["r1"]
    plane.clock.advance(LEASE_S * 0.9)
    assert names(plane) == ["r1"]
    plane.clock.advance(LEASE_S * 0.1)
    await forgotten(plane)


async def test_a_router_that_comes_back_while_it_is_forgotten_is_known(plane: Plane) -> None:
    """A renewal that meets the removal of its own registration registers anew, and no drain overlooks it."""
    routers = plane.control.routers
    await routers.renew("default", "s", "r1")
    plane.journal.hold()
    plane.clock.advance(LEASE_S)
    await plane.until(lambda: bool(routers._leaving), "the removal is on its way to the disk")
    renewed = asyncio.create_task(routers.renew("default", "s", "r1"))
    await plane.until(lambda: plane.store.health().queued_changes == 2, "the renewal is, too")
    plane.journal.release()
    assert await renewed
    assert names(plane) == ["r1"]


async def test_a_full_disk_keeps_no_dead_router(plane: Plane) -> None:
    """When a registration cannot be removed it counts no more all the same, and goes when the disk takes it."""
    await plane.control.routers.renew("default", "s", "r1")
    plane.journal.fail()
    plane.clock.advance(LEASE_S)
    assert names(plane) == []
    plane.journal.mend()
    plane.clock.advance(1.0)
    await forgotten(plane)


async def test_routers_are_bounded(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set, and the server, take so many routers and no more; who is in may renew."""
    monkeypatch.setattr(routers_module, "ROUTERS_PER_SET_MAX", 2)
    monkeypatch.setattr(routers_module, "ROUTERS_MAX", 3)
    routers: Routers = plane.control.routers
    await routers.renew("default", "s", "r1")
    await routers.renew("default", "s", "r2")
    with pytest.raises(TooManyRoutersError) as refused:
        await routers.renew("default", "s", "r3")
    assert (refused.value.count_max, refused.value.of_set) == (2, True)
    assert not await routers.renew("default", "s", "r2")
    await routers.renew("default", "t", "r1")
    with pytest.raises(TooManyRoutersError) as refused:
        await routers.renew("default", "u", "r1")
    assert (refused.value.count_max, refused.value.of_set) == (3, False)
