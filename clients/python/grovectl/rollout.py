"""`rollout status|pause|resume|undo|restart|history`: the updates of a set, in kubectl's words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click

from grove_client.watching import DELETED
from grovectl.ages import duration_s
from grovectl.failures import EXIT_ERROR, EXIT_NOT_FOUND, EXIT_TIMEOUT, Failure, usage
from grovectl.kinds import single_target
from grovectl.session import Session, connected_command
from grovectl.table import NONE, lines

if TYPE_CHECKING:
    from grove.v1.pod_clique_set_pb2 import PodCliqueSet
    from grove_client import GroveClient

STUCK: Final = "ProgressDeadlineExceeded"
_WORDS: Final = "pcs NAME | pcs/NAME"


@click.group()
def rollout() -> None:
    """Follow and steer the updates of a set."""


@rollout.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@click.option("--watch/--no-watch", "-w", "follow", default=True, help="Wait until the update is over (default).")
@click.option("--timeout", default="0s", metavar="DURATION", help="How long to wait; 0s: as long as it takes.")
@connected_command
def status(session: Session, *, words: tuple[str, ...], follow: bool, timeout: str) -> None:
    """Print how far the update of a set is, until it is over.

    Exit code 1 if it is stuck or was taken back, 4 if time is over.
    """
    name = _one_set(words)
    limit_s = duration_s(timeout)

    async def body(grove: GroveClient) -> None:
        try:
            async with asyncio.timeout(limit_s or None):
                await _follow(grove, session, name, follow=follow)
        except TimeoutError:
            raise Failure(f"timed out waiting for the update of podcliqueset/{name}", EXIT_TIMEOUT) from None

    session.run(body)


async def _follow(grove: GroveClient, session: Session, name: str, *, follow: bool) -> None:
    current = await grove.pod_clique_sets.get(name, namespace=session.namespace)
    last = ""
    if not follow:
        click.echo(sentence(current))
        return
    async for event in grove.pod_clique_sets.watch(namespace=session.namespace, name=name):
        if event.object is None:
            continue
        if event.type == DELETED:
            raise Failure(f"podcliqueset/{name} was deleted while waiting for it", EXIT_NOT_FOUND)
        left = event.object.status.rolled_back_from
        if left != current.status.rolled_back_from and left:
            raise Failure(_rolled_back(name, left), EXIT_ERROR)
        text = sentence(event.object)
        if text != last:
            click.echo(text)
            last = text
        if is_over(event.object):
            if left:
                # Who looks only when the set is back must not take the way back for what was asked of it.
                raise Failure(_rolled_back(name, left), EXIT_ERROR)
            return
        if _reason(event.object) == STUCK:
            raise Failure(f"podcliqueset/{name}: the update exceeded its progress deadline", EXIT_ERROR)


def is_over(resource: PodCliqueSet) -> bool:
    """Return whether the set is wholly at what its template says, and all copies have their minimum ready.

    Under OnDelete there is nothing to wait for.
    """
    status = resource.status
    if status.observed_generation != resource.metadata.generation or not status.current_generation_hash:
        return False
    if resource.spec.update_strategy.type == "OnDelete":
        return True
    progress = status.update_progress
    is_active = status.HasField("update_progress") and not progress.update_ended_at
    return not is_active and min(status.updated_replicas, status.available_replicas) >= resource.spec.replicas


def sentence(resource: PodCliqueSet) -> str:
    """Return how far the update is, in one line."""
    status = resource.status
    name, copies_wanted = f"podcliqueset/{resource.metadata.name}", resource.spec.replicas
    counts = f"{status.updated_replicas} of {copies_wanted} copies are updated, {status.available_replicas} available"
    if is_over(resource):
        if status.updated_replicas < copies_wanted:
            return f"{name}: {counts}; under OnDelete the others follow whoever is deleted"
        return f"{name} is up to date: {counts}"
    if status.observed_generation != resource.metadata.generation:
        return f"{name}: the change has not been seen yet"
    progress = status.update_progress
    copies = ", ".join(str(turn.replica_index) for turn in progress.currently_updating)
    parts = [counts]
    parts += [f"copy {copies} is being updated"] if copies else []
    parts += [f"back from revision {status.rolled_back_from}"] if status.rolled_back_from else []
    parts += ["paused"] if status.paused_at else []
    return f"{name}: " + ", ".join(parts)


@rollout.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@connected_command
def pause(session: Session, *, words: tuple[str, ...]) -> None:
    """Let updates rest; pods that die come back at the revision of their copy."""
    name = _one_set(words)
    changed = session.run(lambda grove: grove.pod_clique_sets.pause_rollout(name, namespace=session.namespace))
    click.echo(f"podcliqueset/{name} {'paused' if changed else 'already paused'}")


@rollout.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@connected_command
def resume(session: Session, *, words: tuple[str, ...]) -> None:
    """Let updates go on."""
    name = _one_set(words)
    changed = session.run(lambda grove: grove.pod_clique_sets.resume_rollout(name, namespace=session.namespace))
    click.echo(f"podcliqueset/{name} {'resumed' if changed else 'not paused'}")


@rollout.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@click.option("--to-revision", type=click.IntRange(0, 2**31 - 1), default=0, help="Its number; 0: the one before.")
@connected_command
def undo(session: Session, *, words: tuple[str, ...], to_revision: int) -> None:
    """Go back to a revision of the history; sizes stay."""
    name = _one_set(words)
    changed = session.run(
        lambda grove: grove.pod_clique_sets.undo_rollout(name, to_revision, namespace=session.namespace)
    )
    click.echo(f"podcliqueset/{name} {'rolled back' if changed else 'unchanged'}")


@rollout.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@connected_command
def restart(session: Session, *, words: tuple[str, ...]) -> None:
    """Replace all pods, as an update does."""
    name = _one_set(words)
    session.run(lambda grove: grove.pod_clique_sets.restart_rollout(name, namespace=session.namespace))
    click.echo(f"podcliqueset/{name} restarted")


@rollout.command()
@click.argument("words", nargs=-1, metavar=_WORDS, required=True)
@connected_command
def history(session: Session, *, words: tuple[str, ...]) -> None:
    """Show the revisions kept, oldest first; the current one has a star."""
    name = _one_set(words)
    revisions = session.run(lambda grove: grove.pod_clique_sets.revisions(name, namespace=session.namespace))
    rows = [
        [
            f"{revision.number}{'*' if revision.is_current else ''}",
            revision.hash,
            revision.created_at,
            revision.change_cause or NONE,
            ",".join(sorted(set(revision.images.values()))) or NONE,
        ]
        for revision in revisions
    ]
    for text in lines(["REVISION", "HASH", "CREATED", "CHANGE-CAUSE", "IMAGES"], rows):
        click.echo(text)


def _rolled_back(name: str, left: str) -> str:
    return f"podcliqueset/{name}: the update to revision {left} exceeded its progress deadline and was rolled back"


def _reason(resource: PodCliqueSet) -> str:
    """Return why the update of the present template does not progress; what is said of one before does not count."""
    if resource.status.observed_generation != resource.metadata.generation:
        return ""
    return next((c.reason for c in resource.status.conditions if c.type == "Progressing" and c.status == "False"), "")


def _one_set(words: tuple[str, ...]) -> str:
    """Return the name of the set that *words* name."""
    info, name = single_target(words)
    if info.kind != "PodCliqueSet":
        raise usage(f"{info.resource} has no updates of its own; name its set: pcs NAME")
    return name
