"""Dumps: what is written is read again, every state in between included, and a damaged file is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from grove_server.control.dump import FORMAT, Dump, DumpError, read_dump
from grove_server.resources import codec
from grove_server.resources.meta import Key, Kind, Resource, key_of
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, ScaleOwner
from grove_server.store.interface import Origin, Put
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


def lines_of(plane: Plane) -> list[bytes]:
    """Return a dump of the plane."""
    return [*plane.control.chronicle.dump({"server": "test"}).lines()]


def stored(plane: Plane) -> dict[Key, tuple[int, bytes]]:
    """Return everything in the store."""
    return encoded({key_of(row): row for kind in Kind for row in plane.store.read().list(kind)})


def encoded(rows: Mapping[Key, Resource]) -> dict[Key, tuple[int, bytes]]:
    """Return rows as a database would hold them."""
    return {key: (row.resource_version, codec.encode(row)) for key, row in rows.items()}


async def busy(plane: Plane) -> None:
    """Let a set come, be scaled and edited, and let another come and go."""
    await plane.put(worker(0, pods=9))
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until_ready(2)
    bigger = replace(plane.one(PodClique, "s-0-a"), replicas=3, scale_owner=ScaleOwner.USER)
    await plane.store.commit([Put(bigger)], cause="api.scale", origin=Origin(actor="bob", request_id="q"))
    await plane.until_ready(3)
    await plane.apply(manifest([clique("b", 1)], name="t"), uid="other")
    await plane.delete_set("t")
    await plane.until(lambda: plane.get(PodCliqueSet, "t") is None, "the other set is gone")
    await plane.until_quiet()


async def test_a_dump_is_read_as_it_was_written(plane: Plane) -> None:
    """All changes applied to the rows give the store, versions included; who did it is in the changes."""
    await busy(plane)
    expected = stored(plane)
    dump = read_dump(lines_of(plane))
    assert encoded(dump.state()) == expected
    assert dump.version == plane.store.read().version
    assert dump.facts == {"server": "test"}
    assert dump.rows == {}
    (scaled,) = [change for change in dump.changes if change.cause == "api.scale"]
    assert scaled.origin == Origin(actor="bob", request_id="q")
    # A state in between: before bob came there were two pods.
    before = dump.state(dump.changes.index(scaled))
    assert sum(isinstance(row, Pod) for row in before.values()) == 2


async def test_what_was_there_before_the_first_change_is_a_row(plane: Plane) -> None:
    """After a restart nothing is remembered but the rows; from then on changes are on top of them."""
    await busy(plane)
    await plane.until_quiet()
    await plane.restart()
    await plane.until_quiet()
    before = {key for key in stored(plane) if key.kind is not Kind.EVENT}
    await plane.scale_clique("s-0-a", 1)
    await plane.until_ready(1)
    await plane.until_quiet()
    dump = read_dump(lines_of(plane))
    assert {key for key in dump.rows if key.kind is not Kind.EVENT} == before
    assert encoded(dump.state()) == stored(plane)


def damaged(change: Callable[[list[bytes]], list[bytes]]) -> str:
    """Return why a damaged dump is refused."""
    lines = [
        json.dumps({"dump": {"format": FORMAT, "takenAt": 1.0, "version": 3}}).encode(),
        b'{"row":{"kind":"Node","version":3,"resource":' + codec.encode(worker(0)) + b"}}",
        b'{"change":{"at":1.0,"version":3,"cause":"","kind":"Node","namespace":"","name":"x"}}',
        b'{"end":{"lines":3}}',
    ]
    assert isinstance(read_dump(lines), Dump)
    with pytest.raises(DumpError) as caught:
        read_dump(change(lines))
    return str(caught.value)


def test_a_damaged_dump_is_refused() -> None:
    """Whatever is wrong with a file, the refusal names the line."""
    assert damaged(lambda lines: lines[:-1]) == "line 3: the dump was cut off"
    assert damaged(lambda lines: [*lines[:2], *lines[3:]]) == "line 3: the dump was cut off"
    assert damaged(lambda lines: lines[1:]).startswith("line 1: not a dump")
    assert damaged(lambda _: []).startswith("line 1: not a dump")
    assert damaged(lambda lines: [*lines, lines[1]]) == "line 5: comes after the end"
    assert damaged(lambda lines: [lines[0], b"{", *lines[2:]]).startswith("line 2: not JSON")
    assert damaged(lambda lines: [lines[0], b"[]", *lines[2:]]) == "line 2: not an object"
    assert damaged(lambda lines: [lines[0], b'{"row":[]}', *lines[2:]]) == "line 2: not an object"
    assert damaged(lambda lines: [lines[0], b"{}", *lines[2:]]) == "line 2: neither a row nor a change"
    assert damaged(lambda lines: [lines[0], b'{"row":{"kind":"Node"}}', *lines[2:]]).startswith("line 2: ")
    assert damaged(lambda lines: [*lines[:2], b'{"change":{"at":1.0}}', lines[3]]).startswith("line 3: ")
    wrong = json.dumps({"dump": {"format": FORMAT}}).encode()
    assert damaged(lambda lines: [wrong, *lines[1:]]).startswith("line 1: ")
