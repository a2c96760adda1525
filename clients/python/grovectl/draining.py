"""grovectl drain: empties nodes and waits until they are empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from grovectl.ages import duration_s
from grovectl.changing import node_names
from grovectl.failures import EXIT_TIMEOUT, Failure
from grovectl.session import Session, connected_command

if TYPE_CHECKING:
    from grove_client import GroveClient

# How often the server is asked how many pods are left.
INTERVAL_S: Final = 0.5


@click.command()
@click.argument("names", nargs=-1, metavar="NODE...", required=True)
@click.option("--timeout", metavar="DURATION", help="How long to wait, for example 10m. Default: until they are empty.")
@click.option("--no-wait", is_flag=True, help="Return when the drain is asked for.")
@connected_command
def drain(session: Session, *, names: tuple[str, ...], timeout: str | None, no_wait: bool) -> None:
    """Keep new pods off nodes and let those that run leave, within the availability budgets of their sets.

    Waits until the nodes are empty; the drain itself goes on until "uncordon". Several nodes are one change.
    """
    nodes = node_names(names)
    limit_s = float("inf") if timeout is None else duration_s(timeout)

    async def body(grove: GroveClient) -> int:
        import asyncio

        answer = await grove.nodes.drain(nodes)
        for name in nodes:
            click.echo(f"node/{name} draining" if name in answer.changed else f"node/{name} already draining")
        left = said = answer.pods_left
        started_s = asyncio.get_running_loop().time()
        while left and not no_wait:
            if left != said:
                click.echo(f"{left} pods left")
                said = left
            if asyncio.get_running_loop().time() - started_s >= limit_s:
                break
            await asyncio.sleep(INTERVAL_S)
            left = (await grove.nodes.drain(nodes)).pods_left
        return left

    left = session.run(body)
    if no_wait:
        return
    if left:
        raise Failure(f"timed out with {left} pods left; the drain goes on", EXIT_TIMEOUT)
    for name in nodes:
        click.echo(f"node/{name} drained")
