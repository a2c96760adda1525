"""Scaling policies for people: `pause`, `resume`, `override` of `grovectl autoscale`, and the screen of `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from grovectl.ages import age
from grovectl.failures import usage
from grovectl.kinds import find, single_target
from grovectl.session import Session, connected_command
from grovectl.table import lines

if TYPE_CHECKING:
    from datetime import datetime

    from grove.v1.scaling_decision_pb2 import ScalingDecision, ScalingReading, ScalingRoleDecision
    from grove.v1.scaling_policy_pb2 import ScalingPolicyServiceExplainResponse
    from grove_client import GroveClient

KIND: Final = "ScalingPolicy"
# A set may have thousands of copies; the first ones tell the story, the count tells the rest.
DECISIONS_SHOWN_MAX: Final = 10
_LABEL_WIDTH: Final = 14
_WORDS: Final = "NAME | sp/NAME"


@click.group()
def autoscale() -> None:
    """Let scaling policies rest, or give a role a size by hand, for a time."""


@autoscale.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@click.option("--for", "duration", required=True, metavar="DURATION", help="How long, for example 30m; at most 168h.")
@click.option("--direction", default="both", metavar="both|in|out", help="What rests: both, only in, only out.")
@click.option("--reason", default="", help="Why, for those who wonder.")
@connected_command
def pause(session: Session, *, words: tuple[str, ...], duration: str, direction: str, reason: str) -> None:
    """Let a policy change nothing for a time."""
    _pause(session, words, duration, direction, reason)


@autoscale.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@click.option("--direction", default="both", metavar="both|in|out", help="Which pause ends.")
@connected_command
def resume(session: Session, *, words: tuple[str, ...], direction: str) -> None:
    """End a pause."""
    _pause(session, words, "0s", direction, "")


def _pause(session: Session, words: tuple[str, ...], duration: str, direction: str, reason: str) -> None:
    name = _one_policy(words)

    async def body(grove: GroveClient) -> str:
        answer = await grove.scaling_policies.pause(
            name, duration, direction=direction, reason=reason, namespace=session.namespace
        )
        return answer.until

    until = session.run(body)
    click.echo(f"scalingpolicy/{name} " + (f"paused until {until}" if until else "resumed"))


@autoscale.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@click.option("--role", required=True, help="Which role of the policy.")
@click.option("--replicas", type=click.IntRange(0), help="The size; left out, the override ends.")
@click.option("--for", "duration", default="", metavar="DURATION", help="How long, for example 1h; at most 168h.")
@click.option("--copy", "copy", type=click.IntRange(0), help="Only for one copy of the set.")
@click.option("--reason", default="", help="Why, for those who wonder.")
@connected_command
def override(
    session: Session,
    *,
    words: tuple[str, ...],
    role: str,
    replicas: int | None,
    duration: str,
    copy: int | None,
    reason: str,
) -> None:
    """Give a role a size by hand for a time, or end that; limits and budget still hold."""
    name = _one_policy(words)
    if (replicas is None) == bool(duration):
        raise usage("give --replicas with --for, or neither to end the override")

    async def body(grove: GroveClient) -> str:
        answer = await grove.scaling_policies.override(
            name,
            role,
            replicas,
            duration or "0s",
            copy=copy,
            reason=reason,
            namespace=session.namespace,
        )
        return answer.until

    until = session.run(body)
    end = f"{replicas} replicas until {until}" if until else "sized by its policy again"
    click.echo(f"scalingpolicy/{name} {role}: {end}")


def _one_policy(words: tuple[str, ...]) -> str:
    """Return the name of the policy that a command is about."""
    if len(words) == 1 and "/" not in words[0]:
        return words[0]
    info, name = single_target(words)
    if info is not find(KIND):
        raise usage(f"{info.resource} is no scalingpolicy")
    return name


def policy_lines(name: str, answer: ScalingPolicyServiceExplainResponse, moment: datetime) -> Iterator[str]:
    """Yield one screen: for each copy and role the size, why, what was measured, each proposal, each clamp."""
    for note in answer.notes:
        yield f"scalingpolicy/{name}: {note}"
    for decision in answer.decisions[:DECISIONS_SHOWN_MAX]:
        yield from _decision(name, decision, moment)
    left_out = len(answer.decisions) - DECISIONS_SHOWN_MAX
    if left_out > 0:
        yield f"{left_out} more copies are not shown; name one: grovectl explain sp {name} --copy N"


def _decision(name: str, decision: ScalingDecision, moment: datetime) -> Iterator[str]:
    head = f"scalingpolicy/{name} copy {decision.copy} of {decision.pod_clique_set}: {decision.mode}"
    head += f", {decision.outcome}" if decision.outcome else ""
    when = f"  (decided {age(decision.decided_at, moment)} ago, {decision.id})" if decision.decided_at else ""
    yield head + when
    if decision.message:
        yield f"  {decision.message}"
    if decision.HasField("gpus_max"):
        yield from _labelled("GPUs", [f"{decision.gpus_held:g} of {decision.gpus_max} held"])
    elif decision.HasField("gpus_held"):
        yield from _labelled("GPUs", [f"{decision.gpus_held:g} held"])
    if decision.HasField("ratio"):
        yield from _labelled("ratio", [f"{decision.ratio:.2f} prefill for each decode"])
    yield from _labelled("demand", [f"{key}: {decision.demand[key]:g}" for key in sorted(decision.demand)])
    yield from _readings(list(decision.readings), "  ")
    for role in decision.roles:
        yield from (f"  {line}" for line in _role(role))


def _role(role: ScalingRoleDecision) -> Iterator[str]:
    sizes = f"{role.current_replicas} -> {role.desired_replicas}"
    states = f"{role.ready_replicas} ready, {role.pending_replicas} pending, {role.draining_replicas} draining"
    yield f"{role.name} ({role.role or 'role'}): {sizes}: {role.reason}  ({states})"
    if role.message:
        yield f"  {role.message}"
    for proposal in role.proposals:
        size = str(proposal.replicas) if proposal.HasField("replicas") else "unknown"
        formula = f"  {proposal.formula}" if proposal.formula else ""
        trust = "" if proposal.trusted else "  (not fresh: may only ask for more)"
        yield from _labelled("proposal", [f"{proposal.policy}: {size} {proposal.reason}{formula}{trust}"])
    yield from _labelled(
        "then",
        [
            f"{clamp.reason}: {clamp.before} -> {clamp.after}" + (f"  {clamp.message}" if clamp.message else "")
            for clamp in role.clamps
        ],
    )
    yield from _readings(list(role.readings), "  ")
    yield from _labelled(
        "model", [f"{each.name} = {each.value:g} {each.unit} ({each.source})" for each in role.parameters]
    )
    yield from _labelled("changes if", list(role.would_change_if))


def _readings(readings: list[ScalingReading], indent: str) -> Iterator[str]:
    """Yield a table of what was measured."""
    if not readings:
        return
    rows = [
        [
            each.name,
            f"{each.value:g} {each.unit}".strip() if each.HasField("value") else "unknown",
            each.status,
            each.age or "-",
            f"{each.coverage:.0%}" if each.HasField("coverage") else "-",
            each.message or each.source or "-",
        ]
        for each in readings
    ]
    yield from (f"{indent}{line}" for line in lines(("SIGNAL", "VALUE", "STATUS", "AGE", "COVERAGE", "FROM"), rows))


def _labelled(label: str, texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield f"  {label.ljust(_LABEL_WIDTH)}{text}".rstrip()
        label = ""
