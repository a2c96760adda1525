"""Start order: what cliques wait for, and whether the waiting could ever end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from grove_server.admission.findings import Findings
from grove_server.resources.manifest import STARTUP_EXPLICIT, CliqueTemplate, PodCliqueSetTemplate


def check_start_order(template: PodCliqueSetTemplate, findings: Findings) -> None:
    """Check every ``startsAfter``: known, not itself, once, and without a cycle. It counts only with Explicit."""
    explicit = template.clique_startup_type == STARTUP_EXPLICIT
    position = {clique.name: index for index, clique in reversed(tuple(enumerate(template.cliques)))}
    for index, clique in enumerate(template.cliques):
        if not clique.spec.starts_after:
            continue
        if explicit:
            _check_entries(clique, f"spec.template.cliques[{index}].spec.startsAfter", position, findings)
        else:
            findings.warn(
                f"clique {clique.name}: startsAfter has no effect, because cliqueStartupType is not {STARTUP_EXPLICIT}"
            )
    if explicit:
        parents = {clique.name: clique.spec.starts_after for clique in template.cliques}
        for cycle in find_cycles(parents):
            path = f"spec.template.cliques[{position[cycle[0]]}].spec.startsAfter"
            findings.invalid(path, f"would never start, because of a cycle: {' -> '.join((*cycle, cycle[0]))}")


def _check_entries(clique: CliqueTemplate, path: str, known: Mapping[str, int], findings: Findings) -> None:
    seen: set[str] = set()
    for index, parent in enumerate(clique.spec.starts_after):
        if not parent:
            findings.required(f"{path}[{index}]", "must not be empty")
        elif parent == clique.name:
            findings.invalid(f"{path}[{index}]", "a clique cannot start after itself")
        elif parent in seen:
            findings.duplicate(f"{path}[{index}]", parent)
        elif parent not in known:
            findings.not_found(f"{path}[{index}]", f"there is no clique {parent!r} in this set")
        seen.add(parent)


def find_cycles(parents: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Return cycles of two or more that together touch every strongly connected part of the graph.

    Each is listed in the order of waiting (each waits for the next, the last for the first), beginning with the member
    that *parents* lists first. References to the node itself and to unknown nodes are reported elsewhere, and ignored.
    """
    edges = {node: [p for p in listed if p in parents and p != node] for node, listed in parents.items()}
    cycles: list[tuple[str, ...]] = []
    while True:
        edges = _without_ends(edges)
        if not edges:
            return cycles
        # Every node left waits for another one left, so this walk must come back to a node it has seen.
        walk: list[str] = [next(iter(edges))]
        seen = {walk[0]: 0}
        while (following := edges[walk[-1]][0]) not in seen:
            seen[following] = len(walk)
            walk.append(following)
        cycle = walk[seen[following] :]
        first = min(range(len(cycle)), key=lambda index: list(parents).index(cycle[index]))
        cycles.append((*cycle[first:], *cycle[:first]))
        edges = _without(edges, cycle)


def _without_ends(edges: dict[str, list[str]]) -> dict[str, list[str]]:
    """Drop, again and again, nodes that wait for nothing."""
    while ends := [node for node, targets in edges.items() if not targets]:
        edges = _without(edges, ends)
    return edges


def _without(edges: dict[str, list[str]], nodes: Iterable[str]) -> dict[str, list[str]]:
    dropped = set(nodes)
    return {
        node: [target for target in targets if target not in dropped]
        for node, targets in edges.items()
        if node not in dropped
    }
