"""A dump: the store's rows at one moment and the changes since, as JSON lines; written by a server, read by tools.

The first line is ``{"dump": …}`` with the format and where it comes from. Then one ``{"row": …}`` per resource, as it
was before the first recorded change, one ``{"change": …}`` per change, in order, and at last ``{"end": …}`` with the
number of lines before it, so that a file that was cut off is noticed. Rows and changes hold resources as the store
encodes them. All changes applied to the rows give the state at the moment of the dump, some of them those before.

Writing is lazy: taking a dump copies references in one step, and whoever asks for the lines decides on the pace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from grove_server.control.recent import Recent
from grove_server.resources import codec
from grove_server.resources.meta import Key, Kind, Resource, key_of
from grove_server.store.interface import NO_ORIGIN, ChangeType, Origin, Reader
from grove_server.store.state import versioned

FORMAT: Final = "grove.dump/1"
LINE_BYTES_MAX: Final = 16 << 20
LINES_MAX: Final = 5_000_000


class DumpError(ValueError):
    """A file is no dump, or not a whole one; the text says which line is wrong."""


class DumpedChange(NamedTuple):
    """One change of a dump; ``resource`` is None for a deletion."""

    at: float
    version: int
    cause: str
    origin: Origin
    key: Key
    resource: Resource | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What a file holds: ``rows`` from before the first of ``changes``. ``taken_at`` is in epoch seconds."""

    taken_at: float
    version: int
    facts: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[Key, Resource]
    changes: Sequence[DumpedChange]

    def state(self, count: int | None = None) -> dict[Key, Resource]:
        """Return the resources after the first *count* changes, by default after all of them."""
        rows = dict(self.rows)
        for change in self.changes[:count]:
            if change.resource is None:
                rows.pop(change.key, None)
            else:
                rows[change.key] = change.resource
        return rows


class DumpWriter:
    """One dump of a running server, taken now."""

    def __init__(self, reader: Reader, recent: Sequence[Recent], *, now: float, facts: Mapping[str, str]) -> None:
        self._lists = [reader.list(kind) for kind in codec.DECODE_ORDER]
        self._recent = recent
        self._head = {
            "format": FORMAT,
            "takenAt": now,
            "version": reader.version,
            **({"facts": facts} if facts else {}),
        }

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, each with its newline."""
        count = 1
        yield _line({"dump": self._head})
        # What each key held before the first recorded change of it.
        first: dict[Key, Resource | None] = {}
        for _, notice in self._recent:
            first.setdefault(key_of(notice.resource), notice.previous)
        for kind, resources in zip(codec.DECODE_ORDER, self._lists, strict=True):
            changed = [before for key, before in first.items() if key.kind is kind and before is not None]
            for resource in _unchanged(resources, first):
                count += 1
                yield _row(resource)
            for resource in changed:
                count += 1
                yield _row(resource)
        for each in self._recent:
            count += 1
            yield _change(each)
        yield _line({"end": {"lines": count}})


def _unchanged(resources: Iterable[Resource], first: Mapping[Key, object]) -> Iterator[Resource]:
    return (resource for resource in resources if key_of(resource) not in first)


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _row(resource: Resource) -> bytes:
    head = f'{{"row":{{"kind":"{resource.kind.value}","version":{resource.resource_version},"resource":'
    return head.encode() + codec.encode(resource) + b"}}\n"


def _change(recent: Recent) -> bytes:
    at, notice = recent
    kind, namespace, name = key_of(notice.resource)
    value: dict[str, object] = {
        "at": at,
        "version": notice.version,
        "cause": notice.cause,
        "kind": kind.value,
        "namespace": namespace,
        "name": name,
    }
    origin = notice.origin
    told = {"actor": origin.actor, "requestId": origin.request_id, "reason": origin.reason}
    value |= {word: text for word, text in told.items() if text}
    head = _line({"change": value})[:-3]
    if notice.kind is ChangeType.DELETED:
        return head + b"}}\n"
    return head + b',"resource":' + codec.encode(notice.resource) + b"}}\n"


def read_dump(lines: Iterable[bytes]) -> Dump:
    """Return the dump in *lines*. Raises DumpError."""
    numbered = _numbered(lines)
    number, head = next(numbered, (0, {}))
    about = head.get("dump")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise DumpError(f"line 1: not a dump of format {FORMAT}")
    rows: list[tuple[int, dict[str, Any]]] = []
    changes: list[tuple[int, dict[str, Any]]] = []
    end: object = None
    for number, value in numbered:
        if end is not None:
            raise DumpError(f"line {number}: comes after the end")
        if "row" in value:
            rows.append((number, _object(number, value["row"])))
        elif "change" in value:
            changes.append((number, _object(number, value["change"])))
        elif "end" in value:
            end = value["end"]
        else:
            raise DumpError(f"line {number}: neither a row nor a change")
    if not isinstance(end, dict) or end.get("lines") != number - 1:
        raise DumpError(f"line {number}: the dump was cut off")
    decoder = _Decoder([value for _, value in (*rows, *changes)])
    found = [decoder.resource(number, value) for number, value in rows]
    try:
        return Dump(
            taken_at=float(about["takenAt"]),
            version=int(about["version"]),
            facts=about.get("facts", {}),
            rows={key_of(resource): resource for resource in found},
            changes=[decoder.change(number, value) for number, value in changes],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, DumpError) else DumpError(f"line 1: {error!r}") from error


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if number > LINES_MAX or len(line) > LINE_BYTES_MAX:
            raise DumpError(f"line {number}: larger than any dump")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DumpError(f"line {number}: not JSON: {error}") from error
        yield number, _object(number, value)


def _object(number: int, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DumpError(f"line {number}: not an object")
    return value


class _Decoder:
    """Makes resources of what a dump holds; templates first, because pods refer to them by name."""

    def __init__(self, values: Iterable[dict[str, Any]]) -> None:
        self._templates: dict[str, Any] = {}
        for value in values:
            if value.get("kind") == Kind.POD_TEMPLATE and value.get("resource"):
                template = self.resource(0, value)
                self._templates[f"{template.metadata.namespace}/{template.metadata.name}"] = template

    def resource(self, number: int, value: Mapping[str, Any]) -> Resource:
        try:
            payload = json.dumps(value["resource"]).encode()
            resource = codec.decode(Kind(value["kind"]), payload, self._templates.__getitem__)
            return versioned(resource, int(value["version"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DumpError(f"line {number}: {error}") from error

    def change(self, number: int, value: Mapping[str, Any]) -> DumpedChange:
        try:
            origin = Origin(value.get("actor", ""), value.get("requestId", ""), value.get("reason", ""))
            return DumpedChange(
                at=float(value["at"]),
                version=int(value["version"]),
                cause=str(value["cause"]),
                origin=NO_ORIGIN if origin == NO_ORIGIN else origin,
                key=Key(Kind(value["kind"]), str(value["namespace"]), str(value["name"])),
                resource=self.resource(number, value) if "resource" in value else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise error if isinstance(error, DumpError) else DumpError(f"line {number}: {error!r}") from error
