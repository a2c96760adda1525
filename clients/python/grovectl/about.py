"""Commands that tell about the program itself: version, api-resources, completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from grovectl.kinds import KINDS
from grovectl.session import Session, connected_command
from grovectl.table import NONE, lines
from grovectl.version import __version__

if TYPE_CHECKING:
    from grove.v1.server_pb2 import ServerServiceGetInfoResponse
    from grove_client import GroveClient


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only the client's; needs no server.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Print as JSON.")
@connected_command
def version(session: Session, *, client_only: bool, output: str | None) -> None:
    """Show the versions of client and server."""
    versions: dict[str, dict[str, str]] = {"client": {"version": __version__}}
    if output is None:
        click.echo(f"client {__version__}")
    if not client_only:
        info = session.run(_server_info)
        details = {"version": info.version, "commit": info.commit, "store": info.store, "runtime": info.runtime}
        versions["server"] = {key: value for key, value in details.items() if value}
        if output is None:
            click.echo(f"server {info.version} (store {info.store}, runtime {info.runtime})")
    if output is not None:
        import json

        click.echo(json.dumps(versions, indent=4))


async def _server_info(grove: GroveClient) -> ServerServiceGetInfoResponse:
    return await grove.server_info(timeout_s=5.0)


@click.command("api-resources")
@click.option("--no-headers", is_flag=True, help="Leave out the line of titles.")
def api_resources(*, no_headers: bool) -> None:
    """Show the kinds of resources."""
    rows = [
        (
            info.plural,
            ",".join(info.short_names) or NONE,
            info.api_version,
            str(info.is_namespaced).lower(),
            info.kind,
            ",".join(sorted({"get", "list", "watch", *info.verbs} if "get" in info.verbs else {"list", "watch"})),
        )
        for info in KINDS
    ]
    titles = ("NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS")
    for text in lines(titles, rows, headers=not no_headers):
        click.echo(text)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, for example: source <(grovectl completion bash)."""
    from click.shell_completion import get_completion_class

    from grovectl.program import program

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(program, {}, "grovectl", "_GROVECTL_COMPLETE").source())
