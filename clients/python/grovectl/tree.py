"""`tree`: a set with its copies, groups, cliques and pods, with readiness, node and domain.

What belongs where is read from Grove's labels, never from names. A line has only the cells that mean something for it:
domains belong to gangs and their parts, nodes and GPUs to pods.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_gang_pb2 import PodGang
from grove.v1.pod_pb2 import Pod
from grove_client.resources import ListQuery
from grovectl import table
from grovectl.ages import age
from grovectl.columns import GPU_IDS, domains, pod_node, pod_ready, pod_status
from grovectl.failures import usage
from grovectl.kinds import single_target
from grovectl.output import now
from grovectl.reading import PAGE_SIZE
from grovectl.session import Session, connected_command
from grovectl.table import BLANK, NONE

if TYPE_CHECKING:
    from grove_client import GroveClient

PART_OF: Final = "app.kubernetes.io/part-of"
COPY: Final = "grove.io/podcliqueset-replica-index"
CLIQUE: Final = "grove.io/podclique"
GANG: Final = "grove.io/podgang"
BASE_GANG: Final = "grove.io/base-podgang"
GROUP: Final = "grove.io/podcliquescalinggroup"
GROUP_REPLICA: Final = "grove.io/podcliquescalinggroup-replica-index"
POD_INDEX: Final = "grove.io/podclique-pod-index"
DELETING: Final = "Deleting"
TITLES: Final = ("NAME", "READY", "STATUS", "NODE", "DOMAIN", "GPUS", "AGE")


@dataclass(slots=True)
class Branch:
    """One line of the tree and what hangs from it; `cells` are those after the name."""

    name: str
    cells: tuple[str, ...]
    children: list[Branch] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Parts:
    """A set and everything that carries its label."""

    pod_clique_set: PodCliqueSet
    cliques: list[PodClique]
    groups: list[PodCliqueScalingGroup]
    gangs: dict[str, PodGang]
    pods: dict[str, list[Pod]]


@click.command()
@click.argument("words", nargs=-1, metavar="pcs NAME", required=True)
@click.option("--no-pods", is_flag=True, help="Down to the cliques only.")
@click.option("--no-headers", is_flag=True, help="Leave out the line of titles.")
@connected_command
def tree(session: Session, *, words: tuple[str, ...], no_pods: bool, no_headers: bool) -> None:
    """Show a set with everything in it."""
    info, name = single_target(words)
    if info.kind != "PodCliqueSet":
        raise usage("tree shows a podcliqueset; write: tree pcs NAME")
    parts = session.run(lambda grove: collect(grove, session.namespace, name))
    root = grow(parts, now(), with_pods=not no_pods)
    rows = [[prefix + branch.name, *branch.cells] for prefix, branch in _flatten(root)]
    click.echo("\n".join(table.lines(TITLES, rows, headers=not no_headers)))


async def collect(grove: GroveClient, namespace: str, name: str) -> Parts:
    """Read the set and its parts."""
    pod_clique_set = await grove.pod_clique_sets.get(name, namespace=namespace)
    query: ListQuery = {"namespace": namespace, "label_selector": f"{PART_OF}={name}"}
    pods: dict[str, list[Pod]] = defaultdict(list)
    async for pod in grove.pods.list(page_size=PAGE_SIZE, **query):
        pods[pod.metadata.labels.get(CLIQUE, "")].append(pod)
    gangs = grove.pod_gangs.list(page_size=PAGE_SIZE, **query)
    return Parts(
        pod_clique_set=pod_clique_set,
        cliques=[clique async for clique in grove.pod_cliques.list(page_size=PAGE_SIZE, **query)],
        groups=[group async for group in grove.pod_clique_scaling_groups.list(page_size=PAGE_SIZE, **query)],
        gangs={gang.metadata.name: gang async for gang in gangs},
        pods=pods,
    )


def grow(parts: Parts, moment: datetime, *, with_pods: bool = True) -> Branch:
    """Return the tree of a set."""
    pod_clique_set = parts.pod_clique_set
    copies = {_number(clique.metadata.labels.get(COPY, "")) for clique in parts.cliques}
    copies |= {_number(group.metadata.labels.get(COPY, "")) for group in parts.groups}
    status = DELETING if pod_clique_set.metadata.deletion_timestamp else pod_clique_set.status.phase
    ready = f"{pod_clique_set.status.available_replicas}/{pod_clique_set.spec.replicas}"
    root = Branch(
        f"podcliqueset/{pod_clique_set.metadata.name}",
        (ready, status, BLANK, BLANK, BLANK, age(pod_clique_set.metadata.creation_timestamp, moment)),
    )
    root.children = [_copy(parts, copy, moment, with_pods=with_pods) for copy in sorted(copies)]
    return root


def _copy(parts: Parts, copy: int, moment: datetime, *, with_pods: bool) -> Branch:
    """Return one copy: standalone cliques first, then groups with their group replicas."""
    cliques = [clique for clique in parts.cliques if _number(clique.metadata.labels.get(COPY, "")) == copy]
    groups = [group for group in parts.groups if _number(group.metadata.labels.get(COPY, "")) == copy]
    base = next((_base_gang(clique) for clique in cliques), "")
    gang = parts.gangs.get(base)
    branch = Branch(f"copy {copy}", (_ready_pods(cliques), _phase(gang), BLANK, _domain(gang, base), BLANK, BLANK))
    if gang is not None:
        branch.cells = (*branch.cells[:-1], age(gang.metadata.creation_timestamp, moment))
    for clique in cliques:
        if not clique.metadata.labels.get(GROUP):
            branch.children.append(_clique(parts, clique, moment, with_pods=with_pods))
    for group in groups:
        members = [clique for clique in cliques if clique.metadata.labels.get(GROUP) == group.metadata.name]
        branch.children.append(_group(parts, group, members, moment, with_pods=with_pods))
    return branch


def _group(
    parts: Parts, group: PodCliqueScalingGroup, members: list[PodClique], moment: datetime, *, with_pods: bool
) -> Branch:
    """Return one group with its group replicas."""
    name = group.metadata.name
    available, replicas = group.status.available_replicas, group.spec.replicas
    status = _state(group, replicas, group.spec.min_available, group.status.scheduled_replicas, available)
    created = age(group.metadata.creation_timestamp, moment)
    cells = (f"{available}/{replicas}", status, BLANK, BLANK, BLANK, created)
    branch = Branch(f"podcliquescalinggroup/{name}", cells)
    for replica in sorted({_number(clique.metadata.labels.get(GROUP_REPLICA, "")) for clique in members}):
        cliques = [c for c in members if _number(c.metadata.labels.get(GROUP_REPLICA, "")) == replica]
        gang = parts.gangs.get(cliques[0].metadata.labels.get(GANG, ""))
        domain = _domain(gang, f"{name}-{replica}")
        if not domain and gang is not None and cliques[0].metadata.labels.get(BASE_GANG):
            domain = _domain(gang, gang.metadata.name)
        oldest = age(min(clique.metadata.creation_timestamp for clique in cliques), moment)
        cells = (_ready_pods(cliques), _phase(gang), BLANK, domain, BLANK, oldest)
        child = Branch(f"replica {replica}", cells)
        child.children = [_clique(parts, clique, moment, with_pods=with_pods) for clique in cliques]
        branch.children.append(child)
    return branch


def _clique(parts: Parts, clique: PodClique, moment: datetime, *, with_pods: bool) -> Branch:
    """Return one clique with its pods by index."""
    name = clique.metadata.name
    gang = parts.gangs.get(clique.metadata.labels.get(GANG, ""))
    ready, replicas = clique.status.ready_replicas, clique.spec.replicas
    status = _state(clique, replicas, clique.spec.min_available, clique.status.scheduled_replicas, ready)
    created = age(clique.metadata.creation_timestamp, moment)
    branch = Branch(f"podclique/{name}", (f"{ready}/{replicas}", status, BLANK, _domain(gang, name), BLANK, created))
    if with_pods:
        pods = sorted(parts.pods.get(name, ()), key=lambda pod: _number(pod.metadata.labels.get(POD_INDEX, "")))
        branch.children = [_pod(pod, moment) for pod in pods]
    return branch


def _pod(pod: Pod, moment: datetime) -> Branch:
    gpus = pod.metadata.annotations.get(GPU_IDS, BLANK)
    created = age(pod.metadata.creation_timestamp, moment)
    return Branch(f"pod/{pod.metadata.name}", (pod_ready(pod), pod_status(pod), pod_node(pod), BLANK, gpus, created))


def _base_gang(clique: PodClique) -> str:
    labels = clique.metadata.labels
    return labels.get(BASE_GANG, "") or labels.get(GANG, "")


def _phase(gang: PodGang | None) -> str:
    """Return the gang's phase, with the reason of a gang that waits."""
    if gang is None:
        return BLANK
    phase = gang.status.phase
    return f"{phase}:{gang.status.reason}" if gang.status.reason else phase


def _domain(gang: PodGang | None, scope: str) -> str:
    if gang is None:
        return BLANK
    chosen = domains(gang.status.topology, scope)
    return BLANK if chosen == NONE else chosen


def _state(
    part: PodClique | PodCliqueScalingGroup, replicas: int, min_available: int, scheduled: int, ready: int
) -> str:
    """Return the state of a clique or group in one word, seen from its minimum."""
    if part.metadata.deletion_timestamp:
        return DELETING
    if replicas == 0:
        return "Idle"
    if ready >= min(min_available or replicas, replicas):
        return "Running"
    return "Pending" if scheduled < min(min_available or replicas, replicas) else "NotReady"


def _ready_pods(cliques: Iterable[PodClique]) -> str:
    """Return ready pods of those wanted."""
    cliques = list(cliques)
    ready = sum(clique.status.ready_replicas for clique in cliques)
    return f"{ready}/{sum(clique.spec.replicas for clique in cliques)}"


def _number(text: str) -> int:
    """Return an index from a label; -1 if the label is missing or not a number."""
    return int(text) if text.isdecimal() else -1


def _flatten(root: Branch) -> Iterable[tuple[str, Branch]]:
    """Yield each line with the lines that join it to its parent."""
    yield "", root
    yield from _flatten_children(root, "")


def _flatten_children(branch: Branch, indent: str) -> Iterable[tuple[str, Branch]]:
    for index, child in enumerate(branch.children):
        last = index == len(branch.children) - 1
        yield indent + ("└── " if last else "├── "), child
        yield from _flatten_children(child, indent + ("    " if last else "│   "))
