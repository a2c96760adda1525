"""Goes on from a dump of a real server: the same rows, the same moment, on virtual time, with no chance but a seed's.

Two ways. Without inputs a run begins with the state at the moment of the dump and shows what the server would do next.
With inputs it begins before the first change that the dump holds, and what came from outside (calls, nodes that came,
left or failed) happens again when it happened; what the server's loops and the runtime did is left to them. Inputs are
applied field by field, so that they mean the same although other fields went another way; one whose object never came
to be in this run is counted as lost.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from grove_server.control.dump import Dump, DumpedChange, read_dump
from grove_server.resources import codec
from grove_server.resources.meta import Key, Resource
from grove_server.store.interface import Change, Delete, Put
from tests.simulation.convergence import differences
from tests.simulation.world import InvariantError, World

# Causes of the server's own loops and of what runs pods; everything else comes from outside.
OWN: Final = frozenset({"workload", "placement", "runtime", "events", "routers"})
CONVERGE_MAX_S: Final = 1_800.0
_DIFFERENCES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """What came of a run; ``differences`` is empty if everything became as it should be."""

    rows: dict[Key, Resource]
    last: list[str]
    digest: str
    virtual_s: float
    changes: Counter[str]
    inputs: int
    inputs_lost: int
    differences: list[str]


def load_dump(path: Path) -> Dump:
    """Return the dump in a file. Raises DumpError, OSError."""
    with path.open("rb") as lines:
        return read_dump(lines)


def go_on(dump: Dump, *, seed: str = "dump", with_inputs: bool = False, within_s: float = CONVERGE_MAX_S) -> Continued:
    """Run a world from *dump* until all is well, or for so many virtual seconds after its last input."""
    rows = dict(dump.rows) if with_inputs else dump.state()
    changes = dump.changes if with_inputs else ()
    began_at = changes[0].at if changes else dump.taken_at
    world = World(seed, nodes=0, nodes_per_rack=1, sets_max=0, is_thorough=True, steps_aside=False)
    version = dump.changes[0].version - 1 if changes else dump.version
    world.take_over([rows[key] for key in _in_order(rows)], version=version, epoch_s=began_at)
    inputs = _Inputs(world)
    before = rows
    for change in changes:
        if change.cause not in OWN:
            inputs.schedule(max(0.0, change.at - began_at), change, before.get(change.key))
        if change.resource is None:
            before.pop(change.key, None)
        else:
            before[change.key] = change.resource
    try:
        world.start_server()
        world.run_for(dump.taken_at - began_at if changes else 0.0)
        found = _converge(world, within_s)
    except InvariantError as error:
        found = [str(error)]
    ended = Continued(
        rows=dict(world.disk.rows),
        last=world.history.last(),
        digest=world.history.digest,
        virtual_s=world.time.now_s,
        changes=world.history.changes,
        inputs=inputs.count,
        inputs_lost=inputs.lost_count,
        differences=found,
    )
    world.bury()
    return ended


def _in_order(rows: dict[Key, Resource]) -> Iterator[Key]:
    """Yield the keys so that what others refer to comes first."""
    order = {kind: number for number, kind in enumerate(codec.DECODE_ORDER)}
    yield from sorted(rows, key=lambda key: (order[key.kind], key))


def _converge(world: World, within_s: float) -> list[str]:
    end_s = world.time.now_s + within_s
    wait_s = 0.5
    while True:
        world.run_for(min(wait_s, max(0.0, end_s - world.time.now_s)))
        found = [*islice(differences(world.serving, world.books), _DIFFERENCES_SHOWN)]
        if not found or world.time.now_s >= end_s:
            return found
        wait_s = min(2 * wait_s, 20.0)


class _Inputs:
    """What came from outside, to come again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.count = 0
        self.lost_count = 0

    def schedule(self, delay_s: float, change: DumpedChange, before: Resource | None) -> None:
        self._world.at(delay_s, lambda: self._apply(change, before))

    def _apply(self, change: DumpedChange, before: Resource | None) -> None:
        self.count += 1
        wanted = _as_change(change, before, self._world.disk.rows.get(change.key))
        if wanted is None or not self._world.commit([wanted], change.cause):
            self.lost_count += 1
            return
        key = change.key
        self._world.history.act(self._world.time.now_s, change.cause, f"{key.kind} {key.namespace}/{key.name}")


def _as_change(change: DumpedChange, before: Resource | None, current: Resource | None) -> Change | None:
    """Return what the input means for what is there now; None if it means nothing."""
    if change.resource is None:
        return None if current is None else Delete(change.key)
    if before is None or current is None:
        return Put(change.resource, 0) if before is None and current is None else None
    return Put(_with_changes(current, before, change.resource))


def _with_changes(current: Any, before: Any, after: Any) -> Any:  # noqa: ANN401 -- three states of one resource
    """Return *current* with the fields that differ between *before* and *after*; of metadata, field by field."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(after):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.name == "resource_version" or old == new:
            continue
        is_metadata = field.name == "metadata"
        changed[field.name] = _with_changes(getattr(current, field.name), old, new) if is_metadata else new
    return replace(current, **changed)
