"""`map`, a picture of the cluster, and `defrag`, a plan of moves that make room; neither changes anything."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from grove.v1.placement_pb2 import PlacementServicePlanConsolidationResponse
from grove_client.objects import to_object
from grovectl.explaining import no_table_options
from grovectl.failures import usage
from grovectl.output import parse_format, print_document
from grovectl.session import Session, connected_command
from grovectl.simulating import figures_text, room_lines
from grovectl.table import lines

if TYPE_CHECKING:
    from grove.v1.placement_pb2 import PlacementServiceGetMapResponse

MOVES_SHOWN_MAX: Final = 50
_WIDTH_DEFAULT: Final = 100


@click.command(name="map")
@click.option("--topology", default="", metavar="NAME", help="ClusterTopologyBinding to draw by; default: the first.")
@click.option("-o", "--output", metavar="FORMAT", help="svg, json, yaml or jsonpath=TEMPLATE.")
@connected_command
def map_(session: Session, *, topology: str, output: str | None) -> None:
    """Draw the cluster as it is: a mark per node, by block and rack, shaded by use; then how its GPUs are used."""
    if output == "svg":
        answer = session.run(lambda grove: grove.get_map("svg", topology_name=topology))
        click.echo(answer.picture, nl=False)
        return
    chosen = parse_format(output)
    no_table_options(chosen)
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_WIDTH_DEFAULT, 0)).columns if is_terminal else _WIDTH_DEFAULT
    has_colours = is_terminal and not chosen.name and not os.environ.get("NO_COLOR")
    answer = session.run(lambda grove: grove.get_map(topology_name=topology, width=width, colours=has_colours))
    if chosen.name:
        print_document(to_object(answer), chosen)
    else:
        click.echo("\n".join(map_lines(answer)), color=has_colours)


def map_lines(answer: PlacementServiceGetMapResponse) -> Iterator[str]:
    """Yield the picture and the figures."""
    yield answer.picture
    if answer.figures.gpu_count:
        yield ""
        yield figures_text(answer.figures)
        yield from room_lines(answer.largest_gangs)


@click.command()
@click.option("--for", "target", default="", metavar="pg/NAME", help="Make room for this waiting gang.")
@click.option("--level", default="", metavar="LEVEL", help="Free whole domains of this level; default: single nodes.")
@click.option("--topology", default="", metavar="NAME", help="ClusterTopologyBinding of the level; default: the first.")
@click.option("--domains", default=0, type=click.IntRange(0), metavar="N", help="Free at most so many; default: all.")
@click.option("--max-pods", default=0, type=click.IntRange(0), metavar="N", help="Move at most so many pods.")
@click.option("-o", "--output", metavar="FORMAT", help="json, yaml or jsonpath=TEMPLATE.")
@connected_command
def defrag(
    session: Session, *, target: str, level: str, topology: str, domains: int, max_pods: int, output: str | None
) -> None:
    """Plan which gangs to move so that a waiting gang fits, or so that whole nodes or racks come free.

    Prints benefit, disruption and moves. Nothing is moved.
    """
    chosen = parse_format(output)
    no_table_options(chosen)
    if target and (level or topology or domains):
        raise usage("--for makes room for one gang; --level, --topology and --domains free domains")
    answer = session.run(
        lambda grove: grove.plan_consolidation(
            target.removeprefix("pg/").removeprefix("podgang/"),
            namespace=session.namespace,
            topology_name=topology,
            level=level,
            domain_count_max=domains,
            pod_count_max=max_pods,
        )
    )
    if chosen.name:
        print_document(to_object(answer), chosen)
    else:
        click.echo("\n".join(plan_lines(answer)))


def plan_lines(answer: PlacementServicePlanConsolidationResponse) -> Iterator[str]:
    """Yield benefit, disruption, and the moves."""
    if not answer.helps:
        yield f"nothing to gain: {answer.sentence}"
        return
    yield f"benefit: {answer.sentence}"
    if answer.domains_freed:
        yield f"  come free: {', '.join(answer.domains_freed)}"
    priority = f", the highest priority {answer.priority_highest}" if answer.HasField("priority_highest") else ""
    yield f"disruption: {answer.pod_count_moved} pods move, {answer.gang_count_moved} gangs as a whole{priority}"
    if answer.moves:
        yield ""
        shown = answer.moves[:MOVES_SHOWN_MAX]
        rows = [[move.pod, move.pod_gang, move.from_node, move.to_node] for move in shown]
        yield from lines(("POD", "GANG", "FROM", "TO"), rows)
    if len(answer.moves) > MOVES_SHOWN_MAX:
        yield f"{len(answer.moves) - MOVES_SHOWN_MAX} more are not shown; see -o json"
    yield ""
    yield "nothing was moved."
