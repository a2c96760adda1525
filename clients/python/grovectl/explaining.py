"""`explain`: why a gang waits or is where it is, on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from grove.v1.explanation_pb2 import (
    NodeExclusion,
    PlacementAlternative,
    PlacementExplanation,
    PlacementLevelRow,
    PlacementNeeds,
)
from grove.v1.pod_gang_pb2 import PodGang, PodGangServiceExplainResponse
from grove_client.objects import Json, to_object
from grovectl.ages import age
from grovectl.columns import domains
from grovectl.failures import EXIT_NOT_FOUND, Failure, usage
from grovectl.kinds import KindInfo, single_target
from grovectl.output import Format, now, parse_format, print_document
from grovectl.reading import PAGE_SIZE, get_one
from grovectl.scaling import KIND as SCALING_POLICY
from grovectl.scaling import policy_lines
from grovectl.session import Session, connected_command
from grovectl.tree import GANG, PART_OF

if TYPE_CHECKING:
    from grove_client import GroveClient

# A set may have thousands of gangs; the first ones tell the story, the count tells the rest.
GANGS_SHOWN_MAX: Final = 10
# One line per tier; what is left out is counted.
EXCLUSIONS_SHOWN_MAX: Final = 4
_LABEL_WIDTH: Final = 14
_JUST_NOW: Final = frozenset({"0s", "1s", "2s"})


@click.command()
@click.argument("words", nargs=-1, metavar="KIND NAME | KIND/NAME", required=True)
@click.option("-o", "--output", metavar="FORMAT", help="json, yaml or jsonpath=TEMPLATE.")
@click.option("--copy", type=click.IntRange(0), help="With sp: only one copy of the set.")
@connected_command
def explain(session: Session, *, words: tuple[str, ...], output: str | None, copy: int | None) -> None:
    """Show why a gang waits or is where it is, or why a scaling policy scales as it does.

    KIND is pg; with pclq or po it is the gang of that clique or pod, with pcs the set's gangs that wait (all, if none
    waits), with pcsg the gangs of its group replicas. With sp it is what was measured, proposed and decided.
    """
    info, name = single_target(words)
    chosen = parse_format(output)
    no_table_options(chosen)
    if info.kind == SCALING_POLICY:
        _explain_policy(session, name, chosen, copy)
        return
    if copy is not None:
        raise usage("--copy goes with scaling policies only")

    async def body(grove: GroveClient) -> tuple[list[PodGangServiceExplainResponse], int]:
        names = await _gangs_of(grove, session.namespace, info, name)
        shown = names[:GANGS_SHOWN_MAX]
        answers = [await grove.pod_gangs.explain(gang, namespace=session.namespace) for gang in shown]
        return answers, len(names) - len(shown)

    answers, left_out = session.run(body)
    if chosen.name:
        objects: list[Json] = [to_object(answer) for answer in answers]
        print_document(objects[0] if info.kind == "PodGang" else {"items": objects}, chosen)
        return
    moment = now()
    for index, answer in enumerate(answers):
        if index:
            click.echo()
        click.echo("\n".join(explanation_lines(f"podgang/{answer.name}", answer.explanation, moment)))
    if left_out:
        click.echo(f"\n{left_out} more gangs are not shown; name one: grovectl explain pg NAME")


def _explain_policy(session: Session, name: str, chosen: Format, copy: int | None) -> None:
    """Show what led to the last decisions about a policy."""
    answer = session.run(lambda grove: grove.scaling_policies.explain(name, copy=copy, namespace=session.namespace))
    if chosen.name:
        print_document(to_object(answer), chosen)
        return
    click.echo("\n".join(policy_lines(name, answer, now())))


def no_table_options(output: Format) -> None:
    """Refuse formats that only tables of resources have."""
    if output.name in {"wide", "name"}:
        raise usage("-o is json, yaml or jsonpath=TEMPLATE here")


async def _gangs_of(grove: GroveClient, namespace: str, info: KindInfo, name: str) -> list[str]:
    """Return the names of the gangs that a resource is about."""
    if info.kind == "PodGang":
        return [name]
    if info.kind in {"PodClique", "Pod"}:
        resource = await get_one(grove, info, namespace, name)
        gang = resource.metadata.labels.get(GANG, "")
        if not gang:
            raise Failure(f"{info.resource}/{name} belongs to no gang", EXIT_NOT_FOUND)
        return [gang]
    if info.kind == "PodCliqueScalingGroup":
        await get_one(grove, info, namespace, name)
        selector = f"grove.io/podcliquescalinggroup={name}"
        cliques = grove.pod_cliques.list(page_size=PAGE_SIZE, namespace=namespace, label_selector=selector)
        names = [clique.metadata.labels.get(GANG, "") async for clique in cliques]
        return [gang for gang in dict.fromkeys(names) if gang]
    if info.kind == "PodCliqueSet":
        await get_one(grove, info, namespace, name)
        listed = grove.pod_gangs.list(page_size=PAGE_SIZE, namespace=namespace, label_selector=f"{PART_OF}={name}")
        return _telling([gang async for gang in listed])
    raise usage(f"{info.resource} has no gang to explain")


def _telling(gangs: list[PodGang]) -> list[str]:
    """Return the names of the gangs that wait, of all if none waits."""
    waiting = [gang.metadata.name for gang in gangs if gang.status.phase == "Pending"]
    return waiting or [gang.metadata.name for gang in gangs]


def explanation_lines(label: str, explanation: PlacementExplanation, moment: datetime) -> Iterator[str]:
    """Yield one screen: the sentence, what is asked for, what the cluster has, level by level, and what would help."""
    times = []
    if explanation.since:
        times.append(f"since {age(explanation.since, moment)}")
    if explanation.evaluated_at:
        times.append(f"evaluated {age(explanation.evaluated_at, moment)} ago")
    head = f"{label} is {explanation.state.lower() or 'unknown'}"
    head += f": {explanation.reason}" if explanation.reason else ""
    if explanation.surplus:
        count = explanation.surplus_pod_count_waiting
        head += f"; {count} surplus pod{' waits' if count == 1 else 's wait'}: {explanation.surplus[0].reason}"
    yield head + (f"  ({', '.join(times)})" if times else "")
    if explanation.sentence:
        yield f"  {explanation.sentence}"
    yield from _details(explanation, moment)
    for each in explanation.surplus:
        yield ""
        yield from (f"  {line}" for line in explanation_lines("surplus", each, moment))


def _proof(explanation: PlacementExplanation, moment: datetime) -> str:
    """Return that there is no way, on the cluster as it is, or as it was when that was found out."""
    ago = age(explanation.evaluated_at, moment) if explanation.evaluated_at else "0s"
    if ago in _JUST_NOW:
        return "proven impossible as the cluster is"
    return f"proven impossible as the cluster was {ago} ago"


def _details(explanation: PlacementExplanation, moment: datetime) -> Iterator[str]:
    """Yield the labelled lines of one explanation."""
    if explanation.HasField("queue_position"):
        place = f"{explanation.queue_position}. of those that wait in queue {explanation.queue}"
        yield from _labelled("turn", [f"{place}, priority {explanation.priority}"])
    yield from _labelled("kept for it", [f"{n.clique}: {n.pod_count} on {n.node}" for n in explanation.nominated])
    if explanation.HasField("needs"):
        yield from _labelled("needs", _needs(explanation.needs))
    if explanation.HasField("cluster"):
        yield from _labelled("cluster", _cluster(explanation))
    yield from _labelled("levels", [_level(row) for row in explanation.levels])
    if explanation.failed_scope:
        yield from _labelled("did not fit", [explanation.failed_scope])
    if explanation.reason and explanation.HasField("proof"):
        proof = _proof(explanation, moment) if explanation.proof else "the search stopped at its budget"
        yield from _labelled("certainty", [proof])
    yield from _labelled("would fit if", explanation.would_fit_if)
    yield from _labelled("placed in", [f"{d.scope}: {d.level or d.key}={d.domain}" for d in explanation.topology])
    if explanation.HasField("placement_score"):
        yield from _labelled("score", [f"{explanation.placement_score:.2f}"])
    yield from _labelled("why here", [why for why in explanation.why_here if why != explanation.sentence])
    yield from _labelled("instead of", [_alternative(other) for other in explanation.alternatives])


def _labelled(label: str, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield f"  {label.ljust(_LABEL_WIDTH)}{text}".rstrip()
        label = ""


def _needs(needs: PlacementNeeds) -> Iterator[str]:
    # What asks for no minimum is about surplus pods alone.
    text = f"{needs.pod_count_min} pods" if needs.pod_count_min else f"{needs.pod_count} surplus pods"
    if needs.pod_count > needs.pod_count_min > 0:
        text += f" (and {needs.pod_count - needs.pod_count_min} surplus)"
    text += f", all in one {needs.required_level}" if needs.required_level else ""
    text += f", preferably in one {needs.preferred_level}" if needs.preferred_level else ""
    text += f", within {domains(needs.within)}" if needs.within else ""
    yield text
    for clique in needs.cliques:
        pods = clique.pod_count_min or clique.pod_count
        one = f"{clique.name}: {pods} pods of {_resources(clique.requests)}"
        yield one + (f", in one {clique.required_level}" if clique.required_level else "")


def _cluster(explanation: PlacementExplanation) -> Iterator[str]:
    """Yield how many nodes there are and fit, then the others by tier: kept out, never large enough, full now."""
    cluster = explanation.cluster
    yield f"{cluster.node_count} nodes: {cluster.node_count_fitting} fit"
    kept_out = [entry for entry in cluster.excluded if entry.reason not in {"TooSmall", "Full", "SetAside"}]
    aside = [entry for entry in cluster.excluded if entry.reason == "SetAside"]
    for entry in aside:
        yield f"{entry.node_count} set aside for {entry.detail}"
    tiers = (
        ("take no such pod", kept_out),
        ("too small even if empty", [entry for entry in cluster.excluded if entry.reason == "TooSmall"]),
        ("full now", [entry for entry in cluster.excluded if entry.reason == "Full"]),
    )
    for words, entries in tiers:
        if entries:
            count = sum(entry.node_count for entry in entries)
            told = [_exclusion(entry) for entry in entries[:EXCLUSIONS_SHOWN_MAX]]
            if len(entries) > EXCLUSIONS_SHOWN_MAX:
                told.append(f"{len(entries) - EXCLUSIONS_SHOWN_MAX} reasons more")
            yield f"{count} {words}: {', '.join(told)}"


def _alternative(other: PlacementAlternative) -> str:
    return f"{other.level or other.key or 'node'} {other.domain}: {other.why}"


def _exclusion(entry: NodeExclusion) -> str:
    return f"{entry.node_count} {entry.reason}" + (f" ({entry.detail})" if entry.detail else "")


def _level(row: PlacementLevelRow) -> str:
    level = row.level or row.key
    if level:
        text = f"{row.scope}: {level}" + (" (required)" if row.required else "")
        text += f": {row.domain_count_fitting} of {row.domain_count} fit"
    else:
        text = f"{row.scope}: whole cluster: " + ("fits" if row.domain_count_fitting else "too small")
    if not row.domain_count_fitting and (row.best_domain or not level):
        text += f"; best {row.best_domain}" if level else ","
        text += f" fits {row.best_pod_count} of {row.needed_pod_count} pods"
    return text + (f", lacks {_resources(row.missing)}" if row.missing else "")


def _resources(quantities: Mapping[str, str]) -> str:
    return ", ".join(f"{quantities[name]} {name}" for name in sorted(quantities)) or "nothing"
