"""`wait`, and waiting for what was deleted to be gone. Everything waits on watches; nothing polls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from grove_client.objects import Json
from grove_client.resources import ListQuery, WatchQuery
from grove_client.watching import DELETED, SYNCED, Resource
from grovectl.ages import duration_s
from grovectl.failures import EXIT_NOT_FOUND, EXIT_TIMEOUT, Failure, usage
from grovectl.jsonpath import parse, text_of
from grovectl.kinds import KindInfo, Target, parse_targets
from grovectl.output import object_of
from grovectl.reading import access, scope_of
from grovectl.session import Session, connected_command

if TYPE_CHECKING:
    from grove_client import GroveClient

GONE: Final = "delete"
THERE: Final = "create"


class Goal(NamedTuple):
    """What is waited for: `holds` over an object, or that it is gone (`GONE`) or there (`THERE`)."""

    word: str
    holds: Callable[[Json], bool]


@click.command()
@click.argument("words", nargs=-1, metavar="KIND [NAME...] | KIND/NAME...", required=True)
@click.option(
    "--for",
    "goal_text",
    required=True,
    metavar="GOAL",
    help="condition=X[=STATUS], jsonpath=PATH[=VALUE], create or delete.",
)
@click.option(
    "--timeout", default="30s", show_default=True, metavar="DURATION", help="How long to wait, for example 1m30s."
)
@click.option("--all", "everything", is_flag=True, help="All resources of the kind.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Those that match a label selector.")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces; with --all or --selector.")
@connected_command
def wait(
    session: Session,
    *,
    words: tuple[str, ...],
    goal_text: str,
    timeout: str,
    everything: bool,
    selector: str,
    all_namespaces: bool,
) -> None:
    """Wait until resources are in a state; exit code 4 when the time is over."""
    goal = parse_goal(goal_text)
    targets = parse_targets(words)
    limit_s = duration_s(timeout)
    by_name = all(target.name is not None for target in targets)
    if by_name and (everything or selector or all_namespaces):
        raise usage("names exclude --all, --selector and --all-namespaces")
    if not by_name and not (everything or selector):
        raise usage("names, --all or --selector are needed")
    waits = [
        _Wait(info, names, goal, scope_of(info, session.namespace, all_namespaces=all_namespaces), selector)
        for info, names in _by_kind(targets)
    ]
    session.run(lambda grove: wait_all(grove, waits, limit_s))


def parse_goal(text: str) -> Goal:
    """Return what `--for TEXT` asks for."""
    word, equals, rest = text.partition("=")
    if word in {GONE, THERE} and not equals:
        return Goal(word, lambda _: word == THERE)
    if word == "condition" and rest:
        kind, _, status = rest.partition("=")
        return Goal("condition", _condition(kind, status or "True"))
    if word == "jsonpath" and rest:
        path, value = _split_value(rest)
        template = parse(path)
        if value is None:
            return Goal("jsonpath", lambda o: bool(template.values(o)))
        return Goal("jsonpath", lambda o: [text_of(found) for found in template.values(o)] == [value])
    raise usage(f'--for "{text}" is not condition=X, jsonpath=PATH[=VALUE], create or delete')


def _split_value(text: str) -> tuple[str, str | None]:
    """Split `{.path}=value`; an equals sign inside the braces (a filter) does not count."""
    closing = text.rfind("}")
    path, equals, value = text[: closing + 1], text[closing + 1 : closing + 2], text[closing + 2 :]
    if closing < 0:
        path, equals, value = text.partition("=")
    return path, value if equals else None


def _condition(kind: str, status: str) -> Callable[[Json], bool]:
    """Return the test whether an object has a condition with that status; case does not matter, as for kubectl."""

    def holds(value: Json) -> bool:
        report = value.get("status") if isinstance(value, dict) else None
        conditions = report.get("conditions") if isinstance(report, dict) else None
        for condition in conditions if isinstance(conditions, list) else []:
            if isinstance(condition, dict) and str(condition.get("type")).lower() == kind.lower():
                return str(condition.get("status")).lower() == status.lower()
        return False

    return holds


class _Wait(NamedTuple):
    """Resources of one kind and what they are waited for; `names` is empty for all that match."""

    info: KindInfo
    names: tuple[str, ...]
    goal: Goal
    scope: ListQuery
    selector: str


def _by_kind(targets: list[Target]) -> list[tuple[KindInfo, tuple[str, ...]]]:
    grouped: dict[KindInfo, list[str]] = {}
    for info, name in targets:
        names = grouped.setdefault(info, [])
        if name is not None:
            names.append(name)
    return [(info, tuple(names)) for info, names in grouped.items()]


async def wait_gone(grove: GroveClient, info: KindInfo, names: tuple[str, ...], namespace: str, limit_s: float) -> None:
    """Return when none of *names* exists any more; Failure (timeout) when that takes longer than *limit_s*."""
    goal = parse_goal(GONE)
    await wait_all(grove, [_Wait(info, names, goal, scope_of(info, namespace), "")], limit_s, quiet=True)


async def wait_all(grove: GroveClient, waits: list[_Wait], limit_s: float, *, quiet: bool = False) -> None:
    """Wait for all; prints each as it comes true."""
    pending: dict[int, set[str]] = {}
    try:
        async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
            for index, one in enumerate(waits):
                pending[index] = {f"{one.info.resource}/{name}" for name in one.names}
                group.create_task(_wait_one(grove, one, pending[index], quiet=quiet))
    except TimeoutError:
        left = sorted(name for names in pending.values() for name in names)
        what = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")  # noqa: PLR2004 -- fits a line
        raise Failure(f"timed out waiting for {what or 'any resource'}", EXIT_TIMEOUT) from None
    except BaseExceptionGroup as errors:
        raise _first(errors) from None


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first plain exception of a group."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _wait_one(grove: GroveClient, one: _Wait, pending: set[str], *, quiet: bool) -> None:
    """Watch one kind until nothing is pending."""
    single = one.names[0] if len(one.names) == 1 else ""
    fields: WatchQuery = {**one.scope, "label_selector": one.selector, "name": single}
    wanted = {f"{one.info.resource}/{name}" for name in one.names}
    there: set[str] = set()
    synced = False
    async for event in access(grove, one.info).watch(**fields):
        if event.object is not None:
            label = _label(one, event.object)
            if wanted and label not in wanted:
                continue
            _note(one, event.type, event.object, (label, there, pending), quiet=quiet)
        elif event.type == SYNCED:
            synced = True
            _check_present(one, wanted, there, pending, quiet=quiet)
        if synced and not pending:
            return


def _label(one: _Wait, resource: Resource) -> str:
    return f"{one.info.resource}/{resource.metadata.name}"


def _note(one: _Wait, step: str, resource: Resource, state: tuple[str, set[str], set[str]], *, quiet: bool) -> None:
    """Take in one change of a resource that is waited for."""
    label, there, pending = state
    if step == DELETED:
        there.discard(label)
        if one.goal.word == GONE:
            _met(label, pending, quiet=quiet)
        elif label in pending and one.goal.word != THERE:
            raise Failure(f"{label} was deleted while waiting for it", EXIT_NOT_FOUND)
        return
    there.add(label)
    if one.goal.word == GONE:
        pending.add(label)
    elif one.goal.holds(object_of(resource) if one.goal.word != THERE else None):
        if not one.names or label in pending:
            _met(label, pending, quiet=quiet)
    elif not one.names:
        pending.add(label)


def _check_present(one: _Wait, wanted: set[str], there: set[str], pending: set[str], *, quiet: bool) -> None:
    """At the end of the present state: what is not there is gone, or missing."""
    missing = sorted(wanted - there)
    if one.goal.word == GONE:
        for label in missing:
            _met(label, pending, quiet=quiet)
    elif one.goal.word != THERE:
        if missing:
            raise Failure([f"{label} not found" for label in missing], EXIT_NOT_FOUND)
        if not wanted and not there:
            raise Failure("no resource matches", EXIT_NOT_FOUND)


def _met(label: str, pending: set[str], *, quiet: bool) -> None:
    pending.discard(label)
    if not quiet:
        click.echo(f"{label} condition met")
