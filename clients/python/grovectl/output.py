"""The forms of output: tables, `-o json|yaml|name|jsonpath=`, one resource after another for watches.

JSON and YAML are Kubernetes-shaped: a query by kind is a v1 List, also with none or one resource; a query by a single
name is the object itself. Whole numbers stay whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

import click
from google.protobuf.message import Message

from grove_client.objects import Json, has_unknown_fields, to_object
from grove_client.watching import Resource
from grovectl import table
from grovectl.columns import Layout
from grovectl.failures import usage
from grovectl.jsonpath import Template, parse
from grovectl.kinds import KindInfo

FORMATS: Final = "json, yaml, name, wide or jsonpath=TEMPLATE"


class Format(NamedTuple):
    """A parsed `-o`: its name ("" is the plain table) and the template of jsonpath."""

    name: str
    template: Template | None = None

    @property
    def is_table(self) -> bool:
        """Whether rows are printed."""
        return self.name in {"", "wide"}


class Found(NamedTuple):
    """Resources of one kind."""

    info: KindInfo
    resources: Sequence[Resource]


def parse_format(text: str | None) -> Format:
    """Return the format that `-o TEXT` asks for."""
    name, equals, argument = (text or "").partition("=")
    if name == "jsonpath" and equals and argument:
        return Format(name, parse(argument))
    if name in {"", "wide", "json", "yaml", "name"} and not equals:
        return Format(name)
    raise usage(f'-o "{text}" is not {FORMATS}')


def now() -> datetime:
    """Return the present moment, which ages are counted to."""
    return datetime.now(UTC)


def object_of(resource: Resource) -> dict[str, Json]:
    """Return the Kubernetes object; says once on stderr when the server knows fields that this program does not."""
    message = cast("Message", resource)
    if has_unknown_fields(message):
        _hint_upgrade()
    return to_object(message)


def print_objects(found: Sequence[Found], output: Format, *, single: bool) -> None:
    """Print in one of the forms that are not tables; *single* prints the one object instead of a List."""
    if output.name == "name":
        for kind in found:
            for resource in kind.resources:
                click.echo(f"{kind.info.qualified}/{resource.metadata.name}")
        return
    objects: list[Json] = [object_of(resource) for kind in found for resource in kind.resources]
    document: Json = (
        objects[0]
        if single
        else {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}
    )
    print_document(document, output)


def print_document(document: Json, output: Format) -> None:
    """Print one document as JSON, YAML, or through a jsonpath."""
    if output.template is not None:
        # As kubectl: no line break of our own, the template has its own.
        click.echo(output.template.render(document), nl=False)
    elif output.name == "yaml":
        import yaml

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False), nl=False)
    else:
        click.echo(json.dumps(document, indent=4, ensure_ascii=False))


def print_tables(
    found: Sequence[Found], output: Format, *, all_namespaces: bool, headers: bool, qualified: bool
) -> bool:
    """Print a table per kind that has resources, a blank line between; returns whether there were any."""
    moment = now()
    printed = False
    for kind in found:
        if not kind.resources:
            continue
        if printed:
            click.echo()
        wide = output.name == "wide"
        layout = Layout(kind.info, wide=wide, all_namespaces=all_namespaces, qualified=qualified)
        rows = [layout.row(resource, moment) for resource in kind.resources]
        click.echo("\n".join(table.lines(layout.titles, rows, headers=headers)))
        printed = True
    return printed


class _Hint:
    """Whether the hint to upgrade was given."""

    given = False


def _hint_upgrade() -> None:
    if not _Hint.given:
        _Hint.given = True
        click.echo("Warning: the server sends fields that this grovectl does not know; upgrade it to see all", err=True)
