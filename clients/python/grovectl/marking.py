"""`label` and `taint`: what simulated nodes are like, in kubectl's words; several nodes are one change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from grovectl.failures import usage
from grovectl.kinds import find
from grovectl.session import Session, connected_command

if TYPE_CHECKING:
    from grove.v1.node_pb2 import Taint

_SIGNS: Final = ("=", ":")


@click.command()
@click.argument("words", nargs=-1, metavar="no NAME... KEY=VALUE... KEY-...", required=True)
@connected_command
def label(session: Session, *, words: tuple[str, ...]) -> None:
    """Set labels of simulated nodes (KEY=VALUE, which replaces what is there) and remove them (KEY-)."""
    names, changes = _nodes(words)
    labels = dict(_pair(word) for word in changes if "=" in word)
    removed = [word[:-1] for word in changes if "=" not in word]
    changed = session.run(lambda grove: grove.nodes.label(names, labels, removed))
    for name in names:
        click.echo(f"node/{name} {'labeled' if name in changed else 'not labeled'}")


@click.command()
@click.argument("words", nargs=-1, metavar="no NAME... KEY=VALUE:EFFECT... KEY[:EFFECT]-...", required=True)
@connected_command
def taint(session: Session, *, words: tuple[str, ...]) -> None:
    """Put taints on simulated nodes (KEY=VALUE:EFFECT) and take them off (KEY:EFFECT-, KEY- for all effects)."""
    names, changes = _nodes(words)
    removed = [_taint(word[:-1]) for word in changes if word.endswith("-")]
    added = [_taint(word) for word in changes if not word.endswith("-")]
    for each, word in zip(added, (word for word in changes if not word.endswith("-")), strict=True):
        if not each.effect:
            raise usage(f'"{word}" has no effect; write KEY=VALUE:NoSchedule')
    changed = session.run(lambda grove: grove.nodes.taint(names, added, removed))
    for name in names:
        click.echo(f"node/{name} {'tainted' if name in changed else 'not changed'}")


def _nodes(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names of the nodes and what is to be changed: names come first, and have no sign in them."""
    head, rest = words[0], list(words[1:])
    kind, slash, name = head.partition("/")
    if find(kind).kind != "Node":
        raise usage(f"{kind} cannot be marked; only nodes can")
    names = [name] if slash and name else []
    while rest and not rest[0].endswith("-") and not any(sign in rest[0] for sign in _SIGNS):
        names.append(rest.pop(0).removeprefix("node/").removeprefix("no/"))
    if not names:
        raise usage("the name of a node is needed")
    wrong = [word for word in rest if not word.endswith("-") and not any(sign in word for sign in _SIGNS)]
    if wrong:
        raise usage(f'"{wrong[0]}" cannot follow a change; name all nodes first')
    if not rest:
        raise usage("a change is needed, for example KEY=VALUE or KEY-")
    return list(dict.fromkeys(names)), rest


def _pair(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, value


def _taint(word: str) -> Taint:
    from grove.v1.node_pb2 import Taint

    rest, _, effect = word.partition(":")
    key, _, value = rest.partition("=")
    return Taint(key=key, value=value, effect=effect)
