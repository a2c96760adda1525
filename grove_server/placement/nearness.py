"""Whom a clique's pods want to be near, by annotation: the pods of another clique or group of their copy.

Rules: `grove.io/near` on a clique names a clique or a group of its set; several are set apart by commas. What is asked
for together is placed in that order; what comes later goes around the pods that are there. Within one group, a clique
is near the members of its own group replica. It is a wish: the narrowest domain first, broader ones after it.

Not here: trying domains (`candidates`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from grove_server.placement.requests import DomainPath
from grove_server.resources.labels import NEAR
from grove_server.resources.workload import CliqueIdentity, Pod


def wanted_near(pod: Pod) -> tuple[str, ...]:
    """Return the names of cliques and groups that a pod wants to be near."""
    text = pod.template.annotations.get(NEAR)
    return () if text is None else near_names(text)


def near_names(text: str) -> tuple[str, ...]:
    """Return the names that the annotation's text lists."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def is_wanted(names: Iterable[str], own: CliqueIdentity, other: CliqueIdentity) -> bool:
    """Return whether pods of one clique are those that another one wants to be near."""
    if other.name == own.name or not {other.clique, other.group} & set(names):
        return False
    return not own.group or own.group != other.group or own.group_replica == other.group_replica


def near_cliques(pod: Pod, asked: Mapping[str, Pod]) -> tuple[str, ...]:
    """Return the cliques of a request that a clique wants to be near; both are known by one pod each."""
    names = wanted_near(pod)
    if not names:
        return ()
    return tuple(name for name, other in asked.items() if is_wanted(names, pod.identity, other.identity))


def path_around(
    pod: Pod, bound: Iterable[Pod], topology: Sequence[str], labels_of: Callable[[str], Mapping[str, str] | None]
) -> DomainPath:
    """Return the narrowest domain that holds all pods with nodes that a pod wants to be near; () if there is none."""
    names = wanted_near(pod)
    nodes = {other.node for other in bound if is_wanted(names, pod.identity, other.identity)} if names else set()
    paths = []
    for node in sorted(nodes):
        labels = labels_of(node)
        if labels is not None:
            keys = itertools.takewhile(labels.__contains__, topology)
            paths.append(tuple((key, labels[key]) for key in keys))
    return common_path(paths)


def common_path(paths: Sequence[DomainPath]) -> DomainPath:
    """Return the narrowest domain that lies around all of some domains; () if there are none."""
    if not paths:
        return ()
    alike = itertools.takewhile(lambda pairs: len(set(pairs)) == 1, zip(*paths, strict=False))
    return tuple(pairs[0] for pairs in alike)
