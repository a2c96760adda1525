"""`get`: resources as tables or objects, once or as they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import click

from grove_client.resources import Collection, Listed, ListQuery, Scope, WatchQuery
from grove_client.watching import BOOKMARK, SYNCED, Resource
from grovectl import table
from grovectl.columns import Layout
from grovectl.failures import EXIT_NOT_FOUND, Failure, usage
from grovectl.jsonpath import parse, text_of
from grovectl.kinds import KindInfo, Target, must_offer, parse_targets
from grovectl.output import (
    Format,
    Found,
    now,
    object_of,
    parse_format,
    print_document,
    print_objects,
    print_tables,
)
from grovectl.session import Session, connected_command, one_line

if TYPE_CHECKING:
    from grove_client import GroveClient

# The server bounds a page by bytes, too; large pages mean fewer round trips.
PAGE_SIZE: Final = 2000


class Query(NamedTuple):
    """What `get` was asked for."""

    targets: tuple[Target, ...]
    namespace: str
    all_namespaces: bool
    selector: str

    @property
    def is_by_name(self) -> bool:
        """Whether one resource was named, so that the object itself is the answer."""
        return len(self.targets) == 1 and self.targets[0].name is not None


@click.command()
@click.argument("words", nargs=-1, metavar="KIND[,KIND...] [NAME...]", required=True)
@click.option("-o", "--output", metavar="FORMAT", help="wide, json, yaml, name or jsonpath=TEMPLATE.")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Label selector, for example app=chat.")
@click.option("-w", "--watch", is_flag=True, help="Go on printing what changes.")
@click.option("--no-headers", is_flag=True, help="Leave out the line of titles.")
@click.option("--sort-by", metavar="JSONPATH", help="Sort by a field, for example .metadata.creationTimestamp.")
@click.option("--ignore-not-found", is_flag=True, help="A resource that does not exist is no error.")
@connected_command
def get(  # noqa: PLR0913 -- one argument per option of the command
    session: Session,
    *,
    words: tuple[str, ...],
    output: str | None,
    all_namespaces: bool,
    selector: str,
    watch: bool,
    no_headers: bool,
    sort_by: str | None,
    ignore_not_found: bool,
) -> None:
    """Show resources: KIND, KIND,KIND, KIND NAME... or KIND/NAME..."""
    chosen = parse_format(output)
    query = Query(tuple(parse_targets(words)), session.namespace, all_namespaces, selector)
    _check(query)
    if watch:
        session.run(lambda grove: follow(grove, query, chosen, headers=not no_headers))
        return
    found, missing = session.run(lambda grove: fetch(grove, query))
    if sort_by:
        found = [Found(kind.info, sort(kind.resources, sort_by)) for kind in found]
    _print(found, query, chosen, headers=not no_headers)
    if missing and not ignore_not_found:
        raise Failure(missing, EXIT_NOT_FOUND)


def _check(query: Query) -> None:
    """Refuse what contradicts itself."""
    for target in query.targets:
        if target.name is not None:
            must_offer(target.info, "get")
            if query.selector:
                raise usage("a name and --selector exclude each other")
            if query.all_namespaces:
                raise usage("a name and --all-namespaces exclude each other")


def _print(found: list[Found], query: Query, output: Format, *, headers: bool) -> None:
    """Print what was found in the form asked for."""
    if not output.is_table:
        if query.is_by_name and not any(kind.resources for kind in found):
            return
        print_objects(found, output, single=query.is_by_name)
        return
    qualified = len({target.info.kind for target in query.targets}) > 1
    any_printed = print_tables(found, output, all_namespaces=query.all_namespaces, headers=headers, qualified=qualified)
    if not any_printed and any(target.name is None for target in query.targets):
        anywhere = query.all_namespaces or not any(target.info.is_namespaced for target in query.targets)
        click.echo("No resources found" + ("" if anywhere else f" in {query.namespace} namespace."), err=True)


def access(grove: GroveClient, info: KindInfo) -> Listed[Resource]:
    """Return the client's access to a kind."""
    return cast("Listed[Resource]", getattr(grove, info.attribute))


def scope_of(info: KindInfo, namespace: str, *, all_namespaces: bool = False) -> ListQuery:
    """Return the fields of a List or Watch request that choose the namespace."""
    if not info.is_namespaced:
        return {}
    return {"all_namespaces": True} if all_namespaces else {"namespace": namespace}


async def fetch(grove: GroveClient, query: Query) -> tuple[list[Found], list[str]]:
    """Read what the query names, grouped by kind in the order asked for, and say which names do not exist."""
    from grove_client import NotFoundError

    found: dict[str, tuple[KindInfo, list[Resource]]] = {}
    missing = []
    for info, name in query.targets:
        _, resources = found.setdefault(info.kind, (info, []))
        if name is None:
            resources.extend(await list_all(grove, info, query))
            continue
        try:
            resources.append(await get_one(grove, info, query.namespace, name))
        except NotFoundError as error:
            missing.append(one_line(error.message))
    return [Found(info, resources) for info, resources in found.values()], missing


async def get_one(grove: GroveClient, info: KindInfo, namespace: str, name: str) -> Resource:
    """Read one resource by name."""
    collection = cast("Collection[Resource]", access(grove, info))
    scope: Scope = {"namespace": namespace} if info.is_namespaced else {}
    return await collection.get(name, **scope)


async def list_all(grove: GroveClient, info: KindInfo, query: Query) -> list[Resource]:
    """Read all resources of a kind that match."""
    fields = scope_of(info, query.namespace, all_namespaces=query.all_namespaces)
    fields["label_selector"] = query.selector
    pages = access(grove, info).list(page_size=PAGE_SIZE, **fields)
    return [resource async for resource in pages]


def sort(resources: Sequence[Resource], path: str) -> list[Resource]:
    """Return the resources sorted by the first value of *path*: without one first, numbers as numbers."""
    template = parse(path)

    def key(resource: Resource) -> tuple[int, float, str]:
        values = template.values(object_of(resource))
        if not values:
            return 0, 0.0, ""
        first = values[0]
        if isinstance(first, int | float) and not isinstance(first, bool):
            return 1, float(first), ""
        return 2, 0.0, text_of(first)

    return sorted(resources, key=key)


async def follow(grove: GroveClient, query: Query, output: Format, *, headers: bool) -> None:
    """Print the present state, then each change, until interrupted."""
    if len(query.targets) != 1:
        raise usage("--watch follows one kind, or one resource by its name")
    info, name = query.targets[0]
    fields: WatchQuery = {
        **scope_of(info, query.namespace, all_namespaces=query.all_namespaces),
        "label_selector": query.selector,
        "name": name or "",
    }
    rows = _Rows(Layout(info, wide=output.name == "wide", all_namespaces=query.all_namespaces), headers=headers)
    present: list[Resource] | None = []
    async for event in access(grove, info).watch(**fields):
        if event.type == SYNCED and present is not None:
            if name is not None and not present:
                where = f"{query.namespace}/{name}" if info.is_namespaced else name
                raise Failure(f"{info.kind} {where} not found", EXIT_NOT_FOUND)
            first, present = sorted(present, key=lambda r: (r.metadata.namespace, r.metadata.name)), None
            _print_changes(info, first, output, rows)
        elif event.type != BOOKMARK and event.object is not None:
            if present is not None:
                present.append(event.object)
            else:
                _print_changes(info, [event.object], output, rows)


class _Rows:
    """A table that grows; its widths come from the first rows and only ever grow."""

    def __init__(self, layout: Layout, *, headers: bool) -> None:
        self._layout = layout
        self._headers = headers
        self._widths = [len(title) if headers else 0 for title in layout.titles]

    def add(self, resources: list[Resource]) -> list[str]:
        """Return the lines for more resources, the titles before the first."""
        moment = now()
        rows = [self._layout.row(resource, moment) for resource in resources]
        self._widths = table.widen(self._widths, rows)
        head = [table.line(self._layout.titles, self._widths)] if self._headers and rows else []
        self._headers = self._headers and not rows
        return head + [table.line(row, self._widths) for row in rows]


def _print_changes(info: KindInfo, resources: list[Resource], output: Format, rows: _Rows) -> None:
    """Print resources of a watch, at once, also into a pipe."""
    if output.is_table:
        for text in rows.add(resources):
            click.echo(text)
    elif output.name == "name":
        print_objects([Found(info, resources)], output, single=False)
    else:
        for resource in resources:
            if output.name == "yaml":
                click.echo("---")
            print_document(object_of(resource), output)
