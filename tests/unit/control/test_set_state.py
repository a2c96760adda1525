"""Templates on their way in and out: what a pod needs is never removed, whatever is still in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from grove_server.control.indexes import store_indexes
from grove_server.control.set_state import SetState
from grove_server.resources.workload import PodCliqueSet, PodTemplate
from grove_server.store.engine import EmbeddedStore
from grove_server.store.errors import StoreUnavailableError
from tests.lifecycle_cases import NOW, admitted, clique, manifest
from tests.planes import GatedJournal
from tests.waiting import until


@pytest.fixture
async def gate(tmp_path: Path) -> GatedJournal:
    """Return a journal that can be held."""
    return GatedJournal(tmp_path / "grove.db")


@pytest.fixture
async def store(gate: GatedJournal) -> AsyncIterator[EmbeddedStore]:
    """Return an open store."""
    made = EmbeddedStore(gate, indexes=store_indexes())
    await made.open()
    yield made
    await made.close()


def revision(number: int, old: PodCliqueSet | None = None) -> PodCliqueSet:
    """Return the set at one of its revisions; the second clique never changes."""
    return admitted(manifest([clique("a", labels={"v": str(number)}), clique("b")]), old)


def versions(store: EmbeddedStore) -> set[str]:
    """Return the revisions whose template of the first clique is stored."""
    return {template.labels["v"] for template in store.read().list(PodTemplate) if template.clique == "a"}


async def settled(store: EmbeddedStore, state: SetState) -> None:
    """Return when everything that was committed is durable and visible, and the state has heard of it.

    The store's queue is empty a moment before the answers to its commits are taken in.
    """
    await until(
        lambda: not (store.health().queued_changes or state.creating or state.removing), "all is durable and heard of"
    )


async def test_nothing_is_removed_while_a_plan_is_in_flight(store: EmbeddedStore) -> None:
    """What a plan refers to looks unused until it is durable; the removal waits for it, and then happens."""
    state = SetState()
    first = revision(1)
    state.draw(store, first, 0, NOW)
    await settled(store, state)
    second = revision(2, first)
    state.plans_in_flight = 1
    state.draw(store, second, 0, NOW)
    state.remove_stale_templates(store, second, is_updating=False)
    await settled(store, state)
    assert versions(store) == {"1", "2"}
    state.plans_in_flight = 0
    state.remove_stale_templates(store, second, is_updating=False)
    await settled(store, state)
    assert versions(store) == {"2"}
    assert (state.creating, state.removing) == ({}, {})


async def test_back_to_a_revision_whose_template_is_on_its_way_out(store: EmbeddedStore, gate: GatedJournal) -> None:
    """Going back and forth while nothing becomes durable ends with the present templates stored, all of them."""
    state = SetState()
    first, second = revision(1), revision(2)
    state.draw(store, first, 0, NOW)
    await settled(store, state)
    state.draw(store, second, 0, NOW)
    await settled(store, state)
    gate.hold()
    state.remove_stale_templates(store, second, is_updating=False)
    for owner in (first, second, first, second, first):
        state.draw(store, owner, 0, NOW + 1)
        state.remove_stale_templates(store, owner, is_updating=False)
    gate.release()
    await settled(store, state)
    held = {template.metadata.name for template in store.read().list(PodTemplate)}
    assert {template.metadata.name for template in state.templates.values()} <= held
    assert "1" in versions(store)
    assert (state.creating, state.removing) == ({}, {})


async def test_without_a_template_there_is_no_blueprint(store: EmbeddedStore, gate: GatedJournal) -> None:
    """A store that takes no templates makes the drawing fail, at once or when the commit fails."""
    state = SetState()
    gate.hold()
    state.draw(store, revision(1), 0, NOW)
    gate.fail()

    await until(lambda: state.blueprint is None, "the blueprint is dropped")
    with pytest.raises(StoreUnavailableError):
        state.draw(store, revision(1), 0, NOW)
    assert state.blueprint is None
    gate.mend()
    state.draw(store, revision(1), 0, NOW)
    await settled(store, state)
    assert versions(store) == {"1"}


async def test_a_set_knows_its_templates_before_they_are_durable(store: EmbeddedStore, gate: GatedJournal) -> None:
    """The templates of a set that is removed are found while they are still on their way in."""
    state = SetState()
    owner = revision(1)
    gate.hold()
    state.draw(store, owner, 0, NOW)
    assert {key.name for key in state.templates_of(store, owner)} == {
        template.metadata.name for template in state.templates.values()
    }
    gate.release()
    await settled(store, state)
    assert len(state.templates_of(store, owner)) == 2


async def test_passes_follow_the_set_as_it_is(store: EmbeddedStore) -> None:
    """A new budget is seen at once, though no pod has to change; and so is a pause, without drawing anything anew."""
    state = SetState()
    document = manifest([clique("a", 3)])
    first = admitted(document)
    state.draw(store, first, 0, NOW)
    document["spec"]["updateStrategy"] = {"type": "RollingRecreate", "rollingUpdate": {"maxUnavailable": 2}}
    second = admitted(document, first)
    assert not state.is_current(second, 0)
    state.draw(store, second, 0, NOW)
    paused = replace(second, paused_at=NOW)
    assert state.is_current(paused, 0)
    assert state.blueprint_of(paused).pod_clique_set is paused
    await settled(store, state)
