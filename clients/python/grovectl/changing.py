"""Commands that change something: apply, scale, cordon, uncordon, node down, node up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import click

from grove_client.resources import Scalable
from grove_client.watching import Resource
from grovectl.failures import EXIT_ERROR, Failure, usage
from grovectl.kinds import find, must_offer, named_targets
from grovectl.reading import access
from grovectl.session import Session, connected_command, failure_of

if TYPE_CHECKING:
    from grove.v1.manifest_pb2 import ManifestResult, ManifestServiceApplyResponse
    from grove_client import GroveClient

# The server's bound for a manifest is far below; this one keeps a wrong file from being read into memory.
MANIFEST_SIZE_MAX_BYTES: Final = 16 * 1024 * 1024
SUFFIXES: Final = (".json", ".yaml", ".yml")
DRY_RUN_SUFFIX: Final = " (server dry run)"


class Manifest(NamedTuple):
    """The text of one file; `source` is its name, "" for standard input."""

    source: str
    text: str


@click.command()
@click.option("-f", "--filename", "names", multiple=True, required=True, metavar="FILE", help="File, directory or -.")
@click.option("-R", "--recursive", is_flag=True, help="Directories with all below them.")
@click.option("--dry-run", type=click.Choice(["none", "server"]), default="none", help="server: check, change nothing.")
@connected_command
def apply(session: Session, *, names: tuple[str, ...], recursive: bool, dry_run: str) -> None:
    """Create or change what manifests describe. The documents of one file are one change: all or none."""
    manifests = list(read_manifests(names, recursive=recursive))
    validate_only = dry_run == "server"

    async def body(grove: GroveClient) -> list[Failure]:
        from grove_client import GroveError

        failures = []
        for manifest in manifests:
            try:
                answer = await grove.apply_manifest(
                    manifest.text, default_namespace=session.namespace, validate_only=validate_only
                )
            except GroveError as error:
                failures.append(located(failure_of(error, session.server), manifest.source))
            else:
                _print_applied(answer, validate_only=validate_only)
        return failures

    raise_all(session.run(body))


def _print_applied(answer: ManifestServiceApplyResponse, *, validate_only: bool) -> None:
    for result in answer.results:
        print_result(result, validate_only=validate_only)
        for warning in result.warnings:
            click.echo(f"Warning: {warning}", err=True)


def print_result(result: ManifestResult, *, validate_only: bool) -> None:
    """Print what happened to one document, as "podcliqueset/x created"."""
    click.echo(f"{result.kind.lower()}/{result.name} {result.action}" + (DRY_RUN_SUFFIX if validate_only else ""))


def raise_all(failures: list[Failure]) -> None:
    """Raise one failure for several: all lines, the exit code if they agree on one, else that of an error."""
    if failures:
        codes = {failure.exit_code for failure in failures}
        code = codes.pop() if len(codes) == 1 else EXIT_ERROR
        raise Failure([line for failure in failures for line in failure.lines], code)


def located(failure: Failure, source: str) -> Failure:
    """Return the failure with the file's name in front of each line."""
    return Failure([f"{source}: {line}" for line in failure.lines], failure.exit_code) if source else failure


def read_manifests(names: tuple[str, ...], *, recursive: bool) -> Iterator[Manifest]:
    """Yield the text of each file, of each manifest in a directory (sorted), or of standard input ("-")."""
    for name in names:
        if name == "-":
            yield Manifest("", _decode(sys.stdin.buffer.read(MANIFEST_SIZE_MAX_BYTES + 1), "standard input"))
            continue
        path = Path(name)
        try:
            files = [path] if not path.is_dir() else _manifests_in(path, recursive=recursive)
            for file in files:
                with file.open("rb") as opened:
                    yield Manifest(str(file), _decode(opened.read(MANIFEST_SIZE_MAX_BYTES + 1), str(file)))
        except OSError as error:
            raise Failure(f"{error.filename or name}: {error.strerror}") from None


def _manifests_in(directory: Path, *, recursive: bool) -> list[Path]:
    pattern = "**/*" if recursive else "*"
    files = sorted(file for file in directory.glob(pattern) if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise Failure(f"{directory}: no manifest in it ({', '.join(SUFFIXES)})")
    return files


def _decode(content: bytes, source: str) -> str:
    if len(content) > MANIFEST_SIZE_MAX_BYTES:
        raise Failure(f"{source}: larger than {MANIFEST_SIZE_MAX_BYTES // 1024 // 1024} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"{source}: not UTF-8 at byte {error.start}") from None


@click.command()
@click.argument("words", nargs=-1, metavar="KIND NAME... | KIND/NAME...", required=True)
@click.option("--replicas", type=click.IntRange(0, 2**31 - 1), required=True, help="The new size.")
@connected_command
def scale(session: Session, *, words: tuple[str, ...], replicas: int) -> None:
    """Set the size of a set (copies), a group (group replicas) or a clique (pods)."""
    targets = named_targets(words)
    for target in targets:
        must_offer(target.info, "scale")

    async def body(grove: GroveClient) -> list[Failure]:
        from grove_client import GroveError

        failures = []
        for info, name in targets:
            collection = cast("Scalable[Resource]", access(grove, info))
            try:
                await collection.scale(name or "", replicas, namespace=session.namespace)
            except GroveError as error:
                failures.append(located(failure_of(error, session.server), f"{info.resource}/{name}"))
            else:
                click.echo(f"{info.resource}/{name} scaled")
        return failures

    raise_all(session.run(body))


@click.command()
@click.argument("names", nargs=-1, metavar="NODE...", required=True)
@connected_command
def cordon(session: Session, *, names: tuple[str, ...]) -> None:
    """Keep new pods off nodes; what runs keeps running. Several nodes are one change."""
    nodes = node_names(names)
    changed = session.run(lambda grove: grove.nodes.cordon(nodes))
    for name in nodes:
        click.echo(f"node/{name} cordoned" if name in changed else f"node/{name} already cordoned")


@click.command()
@click.argument("names", nargs=-1, metavar="NODE...", required=True)
@connected_command
def uncordon(session: Session, *, names: tuple[str, ...]) -> None:
    """Let new pods onto nodes again. Several nodes are one change."""
    nodes = node_names(names)
    changed = session.run(lambda grove: grove.nodes.uncordon(nodes))
    for name in nodes:
        click.echo(f"node/{name} uncordoned" if name in changed else f"node/{name} already uncordoned")


@click.group()
def node() -> None:
    """Let simulated nodes fail and come back."""


@node.command()
@click.argument("names", nargs=-1, metavar="NODE...", required=True)
@connected_command
def down(session: Session, *, names: tuple[str, ...]) -> None:
    """Let simulated nodes fail: their pods are not ready, no pod is placed there. Several nodes are one change."""
    nodes = node_names(names)
    changed = session.run(lambda grove: grove.nodes.mark_down(nodes))
    for name in nodes:
        click.echo(f"node/{name} down" if name in changed else f"node/{name} already down")


@node.command()
@click.argument("names", nargs=-1, metavar="NODE...", required=True)
@connected_command
def up(session: Session, *, names: tuple[str, ...]) -> None:
    """Bring simulated nodes back: their pods go on without a restart. Several nodes are one change."""
    nodes = node_names(names)
    changed = session.run(lambda grove: grove.nodes.mark_up(nodes))
    for name in nodes:
        click.echo(f"node/{name} up" if name in changed else f"node/{name} already up")


def node_names(words: tuple[str, ...]) -> list[str]:
    """Return the names of nodes, given plainly or as node/NAME."""
    names = []
    for word in words:
        kind, slash, name = word.partition("/")
        if slash and (find(kind).kind != "Node" or not name):
            raise usage(f'"{word}" is not a node')
        names.append(name if slash else word)
    return list(dict.fromkeys(names))
