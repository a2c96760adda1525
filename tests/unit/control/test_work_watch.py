"""When a copy is looked at again after one of its pods changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from grove_server.control.indexes import store_indexes
from grove_server.control.node_troubles import NodeTroubles
from grove_server.control.work_book import PATIENCE_S, SOON_S, WorkBook
from grove_server.control.work_watch import WorkWatch
from grove_server.control.workkeys import WorkKey
from grove_server.lifecycle.blueprint import draw_blueprint
from grove_server.lifecycle.copy import CopyView
from grove_server.lifecycle.copy_pass import plan_copy
from grove_server.lifecycle.set_pass import pod_template
from grove_server.resources.workload import Pod, PodCliqueSet, PodPhase
from grove_server.store import VolatileStore
from grove_server.store.interface import Put
from tests.lifecycle_cases import NOW, admitted, clique, manifest

COPY: Final = WorkKey("default", "s", "set-uid", 0)


class StillClock:
    """A clock that stands still."""

    def now(self) -> float:
        """Return the epoch time in seconds."""
        return NOW

    def steady(self) -> float:
        """Return the time that never goes back, in seconds."""
        return NOW

    async def sleep(self, duration_s: float) -> None:
        """Return at once; nobody here waits."""

    async def sleep_until(self, when_s: float) -> None:
        """Return at once; nobody here waits."""


def first_pod(owner: PodCliqueSet) -> Pod:
    """Return the pod that a fresh copy of *owner* begins with."""
    templates = {c.name: pod_template(owner, c, NOW) for c in owner.spec.template.cliques}
    plan, _ = plan_copy(draw_blueprint(owner, templates, {}), CopyView(copy=0), now=NOW)
    return next(made for made in plan.creates if isinstance(made, Pod))


@pytest.mark.parametrize(
    ("has_turn", "is_ready", "pass_s", "wait_s"),
    [
        (True, True, 0.0001, 0.0),
        (True, True, 0.004, 0.004),
        (True, True, 1.0, SOON_S),
        (True, False, 0.0001, SOON_S),
        (False, True, 0.0001, SOON_S),
    ],
    ids=["short pass", "longer pass", "long pass", "not ready", "no turn"],
)
async def test_an_update_that_waits_for_a_pod_hears_of_it(
    has_turn: bool,
    is_ready: bool,
    pass_s: float,
    wait_s: float,
) -> None:
    """A pod that serves in a copy that has its turn is looked at at once, all else after a rest."""
    store = VolatileStore(indexes=store_indexes())
    await store.open()
    pod = first_pod(admitted(manifest([clique("a")])))
    await store.commit([Put(pod)], cause="test")
    book = WorkBook(store)
    watch = WorkWatch(store, StillClock(), book, NodeTroubles(store, StillClock()))
    watch.start()
    while (key := book.queue.take(NOW)) is not None:
        book.queue.done(key)
    state = book.state(COPY.set_uid)
    state.turns = frozenset({0} if has_turn else ())
    state.pass_s = pass_s
    changed = replace(pod, phase=PodPhase.RUNNING, started_at=NOW, ready_at=NOW if is_ready else None)
    await store.commit([Put(changed)], cause="runtime")
    due_at = book.queue.next_due_at()
    assert due_at is not None
    assert max(due_at, NOW) == pytest.approx(NOW + wait_s)
    assert book.queue.take(NOW + wait_s) == COPY
    watch.stop()
    await store.close()


@pytest.mark.parametrize(
    ("is_leaving", "wait_s"), [(False, SOON_S + PATIENCE_S), (True, SOON_S)], ids=["placed", "told to leave"]
)
async def test_that_a_pod_has_its_place_is_told_when_it_is_calm(is_leaving: bool, wait_s: float) -> None:
    """While much waits for the disk a place is told later and with what follows; a pod that has to leave is not."""
    store = VolatileStore(indexes=store_indexes())
    await store.open()
    pod = first_pod(admitted(manifest([clique("a")])))
    await store.commit([Put(pod)], cause="test")
    book = WorkBook(store)
    watch = WorkWatch(store, StillClock(), book, NodeTroubles(store, StillClock()))
    watch.start()
    while (key := book.queue.take(NOW)) is not None:
        book.queue.done(key)
    changed = replace(pod, node="n0", scheduled_at=NOW, draining_at=NOW if is_leaving else None)
    await store.commit([Put(changed)], cause="placement")
    assert book.queue.next_due_at(is_calm=False) == pytest.approx(NOW + wait_s)
    assert book.queue.take(NOW + SOON_S, is_calm=True) == COPY
    watch.stop()
    await store.close()
