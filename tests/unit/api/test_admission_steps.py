"""Admission of large manifests: the event loop gets its turns in between."""

from __future__ import annotations

import asyncio
import itertools
import json

from grove_server.admission.context import Limits
from grove_server.api.changes import Changes, Wanted
from grove_server.api.gathering import Gathering
from grove_server.control.indexes import store_indexes
from grove_server.resources.meta import Kind
from grove_server.store.engine import EmbeddedStore
from grove_server.store.journal import VolatileJournal
from tests.lifecycle_cases import clique, manifest


async def test_each_stage_of_a_long_admission_is_a_step_of_its_own() -> None:
    """When every look at the clock finds the step over, others run between admission of a set and what follows it."""
    store = EmbeddedStore(VolatileJournal(), indexes=store_indexes())
    await store.open()
    seconds = itertools.count()
    changes = Changes(
        store,
        limits=Limits(),
        now=lambda: 1_000.0,
        new_uid=lambda: "uid",
        gathering=Gathering(lambda: 0),
        stopwatch=lambda: float(next(seconds)),
    )
    sets = [
        changes.read(Kind.POD_CLIQUE_SET, json.dumps(manifest([clique("a")], name=name)).encode(), "default")
        for name in ("s", "t")
    ]
    turns = 0
    admission = asyncio.ensure_future(
        changes.apply([Wanted(manifest=each, uid="uid") for each in sets], default_namespace="default", dry_run=True)
    )
    while not admission.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await admission) == 2
    assert turns > 2 * len(sets)
    await store.close()
