"""`describe` and `events`: everything about a resource, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from grove.v1.event_pb2 import Event
from grove_client.objects import Json
from grove_client.resources import ListQuery
from grove_client.watching import ADDED, MODIFIED, SYNCED, Resource
from grovectl import table
from grovectl.ages import age
from grovectl.columns import event_object
from grovectl.failures import EXIT_NOT_FOUND, Failure
from grovectl.kinds import find, must_offer, parse_targets, single_target
from grovectl.output import now, object_of
from grovectl.reading import PAGE_SIZE, Query, fetch
from grovectl.session import Session, connected_command
from grovectl.table import NONE
from grovectl.telling import story_lines, story_of

if TYPE_CHECKING:
    from grove.v1.story_pb2 import StoryServiceGetResponse
    from grove_client import GroveClient

EVENTS_SHOWN_MAX: Final = 50
_TITLES: Final = ("LAST-SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE")
_CONDITION_FIELDS: Final = ("type", "status", "reason", "message")
_LABEL_WIDTH: Final = 28


@click.command()
@click.argument("words", nargs=-1, metavar="KIND [NAME...] | KIND/NAME...", required=True)
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Those that match a label selector.")
@connected_command
def describe(session: Session, *, words: tuple[str, ...], selector: str) -> None:
    """Show all about resources, with their conditions, their last transitions and events."""
    targets = parse_targets(words)
    for target in targets:
        must_offer(target.info, "get")
    query = Query(tuple(targets), session.namespace, all_namespaces=False, selector=selector)

    async def body(grove: GroveClient) -> tuple[list[_Described], list[str]]:
        found, missing = await fetch(grove, query)
        described = []
        for kind in found:
            for resource in kind.resources:
                metadata = resource.metadata
                about = _EventQuery(metadata.namespace, kind.info.kind, metadata.name)
                story = await story_of(grove, kind.info.kind, metadata.namespace, metadata.name)
                described.append(_Described(resource, story, await _events(grove, about)))
        return described, missing

    described, missing = session.run(body)
    for index, (resource, story, happened) in enumerate(described):
        if index:
            click.echo("\n")
        for text in description(object_of(resource)):
            click.echo(text)
        if story is not None:
            click.echo("Story:")
            for text in story_lines(story):
                click.echo(f"  {text}")
        click.echo("Events:" if happened else _pair("Events", NONE, 0))
        for text in table.lines(_TITLES, [_row(event) for event in happened[-EVENTS_SHOWN_MAX:]]) if happened else []:
            click.echo(f"  {text}")
    if missing:
        raise Failure(missing, EXIT_NOT_FOUND)


@click.command()
@click.option("--for", "target", metavar="KIND/NAME", help="Only events of one resource.")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on printing what happens.")
@click.option("--types", default="", metavar="TYPE[,TYPE]", help="Only events of these types, for example Warning.")
@click.option("--no-headers", is_flag=True, help="Leave out the line of titles.")
@connected_command
def events(
    session: Session, *, target: str | None, all_namespaces: bool, watch: bool, types: str, no_headers: bool
) -> None:
    """Show what happened, the latest last."""
    kind = name = ""
    if target:
        info, name = single_target((target,))
        kind = info.kind
    wanted = {word.lower() for word in types.split(",") if word}
    query = _EventQuery("" if all_namespaces else session.namespace, kind, name)

    def matches(event: Event) -> bool:
        return not wanted or event.type.lower() in wanted

    if watch:
        session.run(lambda grove: _follow(grove, query, matches, headers=not no_headers))
        return
    happened = [event for event in session.run(lambda grove: _events(grove, query)) if matches(event)]
    if happened:
        for text in table.lines(_TITLES, [_row(event) for event in happened], headers=not no_headers):
            click.echo(text)
    else:
        click.echo("No events found" + ("" if all_namespaces else f" in {session.namespace} namespace."), err=True)


class _Described(NamedTuple):
    """A resource, its story (None from a server that tells none), its events."""

    resource: Resource
    story: StoryServiceGetResponse | None
    events: list[Event]


class _EventQuery:
    """Which events: those of a namespace ("" is all), a kind and a name ("" is any)."""

    def __init__(self, namespace: str, kind: str, name: str) -> None:
        is_namespaced = not kind or find(kind).is_namespaced
        everywhere = not namespace or not is_namespaced
        self.fields: ListQuery = {"all_namespaces": True} if everywhere else {"namespace": namespace}
        if kind:
            self.fields["involved_kind"] = kind
            self.fields["involved_name"] = name


async def _events(grove: GroveClient, query: _EventQuery) -> list[Event]:
    """Read the events, the latest last."""
    found = [event async for event in grove.events.list(page_size=PAGE_SIZE, **query.fields)]
    return sorted(found, key=lambda event: (event.last_timestamp, event.metadata.namespace, event.metadata.name))


async def _follow(grove: GroveClient, query: _EventQuery, matches: Callable[[Event], bool], *, headers: bool) -> None:
    """Print the events there are, then each new one."""
    present: list[Event] | None = []
    widths = [len(title) for title in _TITLES]
    async for step in grove.events.watch(**query.fields):
        fresh: list[Event] = []
        if step.type == SYNCED and present is not None:
            fresh = sorted(present, key=lambda event: event.last_timestamp)
            present = None
        elif step.type in {ADDED, MODIFIED} and step.object is not None and matches(step.object):
            if present is None:
                fresh = [step.object]
            else:
                present.append(step.object)
        if not fresh:
            continue
        rows = [_row(event) for event in fresh]
        widths = table.widen(widths, rows)
        if headers:
            click.echo(table.line(_TITLES, widths))
            headers = False
        for row in rows:
            click.echo(table.line(row, widths))


def _row(event: Event) -> list[str]:
    return [
        age(event.last_timestamp or event.metadata.creation_timestamp, now()),
        event.type or NONE,
        event.reason or NONE,
        event_object(event),
        str(event.count) if event.HasField("count") else "1",
        " ".join(event.message.split()) or NONE,
    ]


def description(value: dict[str, Json]) -> Iterator[str]:
    """Yield the lines that describe one object: identity first, then spec and status, conditions as a table."""
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for key in ("name", "namespace"):
        if key in metadata:
            yield _pair(_title(key), str(metadata[key]), 0)
    for key in ("labels", "annotations"):
        yield from _string_map(_title(key), metadata.get(key))
    for key in ("apiVersion", "kind"):
        yield _pair(_title(key), str(value.get(key, "")), 0)
    rest = {key: item for key, item in metadata.items() if key not in {"name", "namespace", "labels", "annotations"}}
    yield from _section("Metadata", rest)
    for key, item in value.items():
        if key not in {"apiVersion", "kind", "metadata"}:
            yield from _section(_title(key), item)


def _string_map(title: str, value: Json) -> Iterator[str]:
    entries = sorted(value.items()) if isinstance(value, dict) else []
    if not entries:
        yield _pair(title, NONE, 0)
    for index, (key, item) in enumerate(entries):
        yield _pair(title if index == 0 else "", f"{key}={item}", 0)


def _section(title: str, value: Json, depth: int = 0) -> Iterator[str]:
    """Yield a field and what is in it."""
    if title == "Conditions" and isinstance(value, list):
        yield from _conditions(value, depth)
    elif not value and isinstance(value, dict | list):
        yield _pair(title, NONE, depth)
    elif isinstance(value, dict):
        yield f"{'  ' * depth}{title}:"
        for key, item in value.items():
            yield from _section(_title(key), item, depth + 1)
    elif isinstance(value, list):
        yield f"{'  ' * depth}{title}:"
        yield from _items(value, depth + 1)
    else:
        yield _pair(title, _text(value), depth)


def _items(values: list[Json], depth: int) -> Iterator[str]:
    for item in values:
        if isinstance(item, dict):
            for index, (key, inner) in enumerate(item.items()):
                first, *more = _section(_title(key), inner, depth + 1)
                marker = "- " if index == 0 else "  "
                yield f"{'  ' * depth}{marker}{first.strip()}"
                yield from more
        else:
            yield f"{'  ' * depth}- {_text(item)}"


def _conditions(values: list[Json], depth: int) -> Iterator[str]:
    rows = [[_text(item.get(key)) for key in _CONDITION_FIELDS] for item in values if isinstance(item, dict)]
    yield f"{'  ' * depth}Conditions:" + ("" if rows else f"  {NONE}")
    for text in table.lines([key.upper() for key in _CONDITION_FIELDS], rows) if rows else []:
        yield f"{'  ' * (depth + 1)}{text}"


def _pair(title: str, text: str, depth: int) -> str:
    label = f"{title}:" if title else ""
    return f"{'  ' * depth}{label.ljust(_LABEL_WIDTH - 2 * depth)} {text}".rstrip()


def _text(value: Json) -> str:
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(str(value).split())


def _title(key: str) -> str:
    """Return a manifest's key as a title: "podSpec" becomes "Pod Spec"; keys with dots or slashes stay."""
    if any(char in key for char in "./-_"):
        return key
    words = _words(key)
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _words(key: str) -> Iterable[str]:
    start = 0
    for index in range(1, len(key)):
        if key[index].isupper() and not key[index - 1].isupper():
            yield key[start:index]
            start = index
    yield key[start:]
