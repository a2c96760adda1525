"""`simulate`: what placement would do with manifests, or if nodes and sets came or went; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from grove.v1.placement_pb2 import (
    ClusterFigures,
    LargestGang,
    PlacementServiceSimulateResponse,
    SimulatedGang,
)
from grove_client.objects import to_object
from grovectl.changing import read_manifests
from grovectl.columns import gang_domains
from grovectl.explaining import GANGS_SHOWN_MAX, explanation_lines, no_table_options
from grovectl.failures import usage
from grovectl.output import now, parse_format, print_document
from grovectl.session import Session, connected_command
from grovectl.table import lines

_VICTIMS_SHOWN_MAX: Final = 5


@click.command()
@click.option("-f", "--filename", "names", multiple=True, metavar="FILE", help="File, directory or -.")
@click.option("-R", "--recursive", is_flag=True, help="Directories with all below them.")
@click.option("--drain", "drained", multiple=True, metavar="NODE", help="As if this node were drained first.")
@click.option("--add-nodes", "added", multiple=True, metavar="FILE", help="As if these Nodes and NodePools were there.")
@click.option("--without", multiple=True, metavar="pcs/NAME|pg/NAME", help="As if this were gone.")
@click.option("-o", "--output", metavar="FORMAT", help="json, yaml or jsonpath=TEMPLATE.")
@connected_command
def simulate(
    session: Session,
    *,
    names: tuple[str, ...],
    recursive: bool,
    drained: tuple[str, ...],
    added: tuple[str, ...],
    without: tuple[str, ...],
    output: str | None,
) -> None:
    """Show what placement would do now: fits or not, where, what is missing, whom it displaces. Changes nothing."""
    chosen = parse_format(output)
    no_table_options(chosen)
    if not (names or drained or added or without):
        raise usage("nothing to ask: give -f, --drain, --add-nodes or --without")
    # One question for all files, so that they compete for the same room. Documents are separated as in YAML.
    text = "\n---\n".join(each.text for each in read_manifests(names, recursive=recursive)) if names else ""
    nodes = "\n---\n".join(_text(name) for name in added)
    answer = session.run(
        lambda grove: grove.simulate(
            text,
            default_namespace=session.namespace,
            drained_nodes=[name.removeprefix("node/") for name in drained],
            added_nodes=nodes,
            without=without,
        )
    )
    for warning in answer.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if chosen.name:
        print_document(to_object(answer), chosen)
    else:
        click.echo("\n".join(simulation_lines(answer, now())))


def _text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise usage(f"{name}: is not UTF-8 text") from None


def simulation_lines(answer: PlacementServiceSimulateResponse, moment: datetime) -> Iterator[str]:
    """Yield a table of the gangs, then the explanation of those that do not fit, then what is left of the cluster."""
    rows = [_simulated_row(gang) for gang in answer.gangs]
    if rows:
        yield from lines(("GANG", "ROLE", "FITS", "SURPLUS", "REASON", "SCORE", "TOPOLOGY"), rows)
    missing = [gang for gang in answer.gangs if not gang.fits]
    yield ""
    if answer.pod_count_displaced:
        yield f"{answer.pod_count_displaced} pods would lose their nodes."
    yield f"{len(answer.gangs) - len(missing)} of {len(answer.gangs)} gangs would be placed now; nothing was changed."
    for gang in missing[:GANGS_SHOWN_MAX]:
        yield ""
        yield from explanation_lines(f"podgang/{gang.name}", gang.explanation, moment)
        yield from _eviction_lines(gang)
    if len(missing) > GANGS_SHOWN_MAX:
        yield f"\n{len(missing) - GANGS_SHOWN_MAX} more that do not fit are not shown; see -o json"
    if answer.HasField("figures") and answer.figures.gpu_count:
        yield ""
        yield f"afterwards: {figures_text(answer.figures)}"
    yield from room_lines(answer.largest_gangs)


def _simulated_row(gang: SimulatedGang) -> list[str]:
    explanation = gang.explanation
    return [
        gang.name,
        (gang.role or "<none>") + (" (displaced)" if gang.displaced else ""),
        "yes" if gang.fits else "by eviction" if gang.evictions else "no",
        f"{gang.surplus_pod_count_placed}/{gang.surplus_pod_count}",
        explanation.reason or "<none>",
        f"{explanation.placement_score:.2f}" if explanation.HasField("placement_score") else "<none>",
        gang_domains(explanation.topology, gang.name),
    ]


def _eviction_lines(gang: SimulatedGang) -> Iterator[str]:
    victims = list(gang.evictions)
    if not victims:
        return
    pods = sum(len(victim.pods) for victim in victims)
    yield f"  it would displace {pods} pod{'s' * (pods != 1)} of {len(victims)} gang{'s' * (len(victims) != 1)}:"
    yield from (f"    {reason}" for reason in gang.eviction_reasons)
    for victim in victims[:_VICTIMS_SHOWN_MAX]:
        what = "all of it" if victim.kind == "Gang" else "surplus"
        yield f"    {victim.namespace}/{victim.name} (priority {victim.priority}): {len(victim.pods)} pods, {what}"
    if len(victims) > _VICTIMS_SHOWN_MAX:
        yield f"    and {len(victims) - _VICTIMS_SHOWN_MAX} gangs more"


def figures_text(figures: ClusterFigures) -> str:
    """Return how GPUs are used, in one line."""
    share = figures.gpu_count_allocated / figures.gpu_count if figures.gpu_count else 0.0
    parts = [f"{figures.gpu_count_allocated:g} of {figures.gpu_count:g} GPUs allocated ({share:.1%})"]
    for use in figures.levels:
        total = use.domain_count_empty + use.domain_count_partly_used + use.domain_count_full
        name = use.key.rpartition("/")[2] or "node"
        parts.append(f"{use.domain_count_partly_used} of {total} {name}s partly used")
    if figures.HasField("gpu_count_unusable"):
        parts.append(f"{figures.gpu_count_unusable:g} free but unusable for the pods that run")
    return "; ".join(parts)


def room_lines(largest: Iterable[LargestGang]) -> Iterator[str]:
    """Yield a table of the largest gangs: a line per kind of pod, a column per level."""
    by_pod: dict[str, list[LargestGang]] = {}
    for each in largest:
        pod = ", ".join(f"{each.requests[name]} {name}" for name in sorted(each.requests)) or "nothing"
        by_pod.setdefault(pod, []).append(each)
    if not by_pod:
        return
    first = next(iter(by_pod.values()))
    heads = ["NODE" if each.node else (each.key.rpartition("/")[2] or "cluster").upper() for each in first]
    yield ""
    yield "largest gangs of such pods that fit into one domain:"
    rows = [
        [pod, *(f"{e.pod_count}" + (f" ({e.domain})" if e.domain else "") for e in each)]
        for pod, each in by_pod.items()
    ]
    yield from lines(("POD", *heads), rows)
