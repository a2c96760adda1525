"""Keeps the book of pods with nodes that rules between pods are judged by, in step with what the loop decides.

A pod is in the book from the decision on, so that two gangs of one round see each other, and until it is gone for good:
one that terminates still keeps others away, as in Kubernetes. Gangs that wait to be near other pods are asked again
when a pod came to a node; for those that wait for a pod to go, `Cluster.may_help` knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grove_server.control.decisions import Decision
from grove_server.placement.peers import PeerBook
from grove_server.placement.requests import RuleKind
from grove_server.resources.meta import Key


def forget_pods(book: PeerBook, keys: Iterable[Key]) -> None:
    """Drop pods that are gone, or whose places were not taken after all."""
    for key in keys:
        book.release(key.namespace, key.name)


class Followers:
    """Finds the waiting gangs that a pod which came to a node may help."""

    def __init__(self, book: PeerBook) -> None:
        self._book = book
        self._seen = 0

    def due(self, waiting: Mapping[Key, Decision]) -> list[Key]:
        """Return the gangs that have to be near other pods, if any pod came since the last look."""
        seen, self._seen = self._seen, self._book.arrivals
        return [] if seen == self._seen else [key for key, decision in waiting.items() if _follows(decision)]


def _follows(decision: Decision) -> bool:
    return any(
        rule.kind == RuleKind.TOGETHER and not rule.weight
        for each in (decision, *decision.others)
        if each.request is not None
        for rule in each.request.rules
    )
