"""`delete`: by name, by selector, or by manifest; waits until what was deleted is gone, as kubectl does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import click

from grove_client.resources import Deletable, Scope
from grove_client.watching import Resource
from grovectl.ages import duration_s
from grovectl.changing import DRY_RUN_SUFFIX, located, print_result, raise_all, read_manifests
from grovectl.failures import Failure, usage
from grovectl.kinds import KindInfo, Target, find, must_offer, parse_targets
from grovectl.reading import Query, access, list_all
from grovectl.session import Session, connected_command, failure_of
from grovectl.waiting import wait_gone

if TYPE_CHECKING:
    from grove_client import GroveClient


class Manner(NamedTuple):
    """How to delete: only check; leave out what does not exist; without a drain."""

    validate_only: bool
    lenient: bool
    now: bool


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]")
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="Delete what manifests name: file, directory or -."
)
@click.option("-R", "--recursive", is_flag=True, help="Directories with all below them.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Those that match a label selector.")
@click.option("--all", "everything", is_flag=True, help="All resources of the kind in the namespace.")
@click.option("--ignore-not-found", is_flag=True, help="A resource that does not exist is no error.")
@click.option("--now", is_flag=True, help="Pods only: do not let routers leave them first.")
@click.option("--wait/--no-wait", "must_wait", default=True, help="Return when it is gone, or at once.")
@click.option("--timeout", default="60s", show_default=True, metavar="DURATION", help="How long to wait.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check, change nothing.")
@connected_command
def delete(  # noqa: PLR0913 -- one argument per option of the command
    session: Session,
    *,
    words: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    selector: str,
    everything: bool,
    ignore_not_found: bool,
    now: bool,
    must_wait: bool,
    timeout: str,
    dry_run: str,
) -> None:
    """Delete resources. Several names of one kind are one change: all or none."""
    validate_only = dry_run == "server"
    limit_s = duration_s(timeout) if must_wait and not validate_only else None
    if files:
        if words or selector or everything or now:
            raise usage("--filename excludes names, --selector, --all and --now")
        _delete_manifests(
            session, files, recursive=recursive, validate_only=validate_only, limit_s=limit_s, lenient=ignore_not_found
        )
        return
    targets = parse_targets(words)
    by_name = all(target.name is not None for target in targets)
    if by_name and (selector or everything):
        raise usage("names exclude --selector and --all")
    if not by_name and not (selector or everything):
        raise usage("names, --selector or --all are needed")
    for target in targets:
        must_offer(target.info, "delete")
        if now and target.info.kind != "Pod":
            raise usage("--now is for pods: nothing else drains by itself")

    async def body(grove: GroveClient) -> None:
        for info, names in await _names(grove, session, targets, selector):
            await _delete(grove, session, info, names, Manner(validate_only, ignore_not_found, now))
            if limit_s is not None:
                await wait_gone(grove, info, tuple(names), session.namespace, limit_s)

    session.run(body)


async def _names(
    grove: GroveClient, session: Session, targets: list[Target], selector: str
) -> list[tuple[KindInfo, list[str]]]:
    """Return the names to delete of each kind."""
    grouped: dict[KindInfo, list[str]] = {}
    for info, name in targets:
        names = grouped.setdefault(info, [])
        if name is not None:
            names.append(name)
        else:
            query = Query((Target(info, None),), session.namespace, all_namespaces=False, selector=selector)
            names.extend(resource.metadata.name for resource in await list_all(grove, info, query))
    found = [(info, names) for info, names in grouped.items() if names]
    if not found:
        click.echo("No resources found", err=True)
    return found


async def _delete(grove: GroveClient, session: Session, info: KindInfo, names: list[str], manner: Manner) -> None:
    """Delete the resources of one kind, in one change."""
    from grove_client import NotFoundError

    collection = cast("Deletable[Resource]", access(grove, info))
    scope: Scope = {"namespace": session.namespace} if info.is_namespaced else {}
    validate_only = manner.validate_only

    async def once(some: list[str]) -> None:
        if manner.now:
            await grove.pods.delete_now(some, namespace=session.namespace, validate_only=validate_only)
        else:
            await collection.delete(some, validate_only=validate_only, **scope)

    try:
        await once(names)
        gone = names
    except NotFoundError:
        if not manner.lenient:
            raise
        gone = []
        for name in names:
            try:
                await once([name])
            except NotFoundError:
                continue
            gone.append(name)
    for name in gone:
        click.echo(f"{info.resource}/{name} deleted" + (DRY_RUN_SUFFIX if validate_only else ""))


def _delete_manifests(
    session: Session,
    files: tuple[str, ...],
    *,
    recursive: bool,
    validate_only: bool,
    limit_s: float | None,
    lenient: bool,
) -> None:
    """Delete what the files name; each file is one change."""
    manifests = list(read_manifests(files, recursive=recursive))

    async def body(grove: GroveClient) -> list[Failure]:
        from grove_client import GroveError

        failures = []
        deleted: dict[tuple[str, str], list[str]] = {}
        for manifest in manifests:
            try:
                answer = await grove.delete_manifest(
                    manifest.text,
                    default_namespace=session.namespace,
                    validate_only=validate_only,
                    ignore_not_found=lenient,
                )
            except GroveError as error:
                failures.append(located(failure_of(error, session.server), manifest.source))
                continue
            for result in answer.results:
                if result.action == "deleted":
                    print_result(result, validate_only=validate_only)
                    deleted.setdefault((result.kind, result.namespace), []).append(result.name)
        if limit_s is not None:
            for (kind, namespace), names in deleted.items():
                await wait_gone(grove, find(kind), tuple(names), namespace, limit_s)
        return failures

    raise_all(session.run(body))
