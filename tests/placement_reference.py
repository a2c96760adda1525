"""The exact reference for gangs on some dozens of nodes: an integer program of its own, solved by HiGHS.

Shapes without shares of GPUs only. `placement_oracle` is the reference for tiny clusters with everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

import highspy

from grove_server.placement import CliqueRequest, Cluster, GangRequest, GroupRequest
from grove_server.placement.matching import is_eligible

Scopes: TypeAlias = tuple[GangRequest | GroupRequest | CliqueRequest, ...]
Rows: TypeAlias = list[tuple[float, dict[int, float], float]]


def is_possible(cluster: Cluster, request: GangRequest, *, seconds_max: float = 60.0) -> bool:
    """Return whether any assignment of all minimums exists.

    Reads nodes one by one and states every rule as it is written, so that it shares nothing with what it judges: one
    column for each clique and node, one for each scope and domain, and a clique's pods on a node only if every scope
    around it has that node's domain. TimeoutError if the solver does not decide.
    """
    names = cluster.node_names()
    free = [cluster.free_of(name) for name in names]
    rows: Rows = []
    uppers: list[float] = []

    def column(upper: float) -> int:
        uppers.append(upper)
        return len(uppers) - 1

    homes: dict[str, dict[tuple[str, ...], int]] = {}
    use: list[dict[str, dict[int, float]]] = [{} for _ in names]
    for clique, scopes in _cliques(request, ()):
        for scope in scopes:
            if scope.required is not None and scope.name not in homes:
                domains = sorted({path for name in names if (path := _path(cluster, request, name, scope.required))})
                homes[scope.name] = {path: column(1) for path in domains}
                rows.append((1, dict.fromkeys(homes[scope.name].values(), 1), 1))
        pods: dict[int, float] = {}
        for at, name in enumerate(names):
            if not _allows(cluster, request, name, (*scopes, clique)):
                continue
            here = column(clique.minimum)
            pods[here] = 1
            use[at].setdefault("pods", {})[here] = 1
            for resource, amount in clique.shape.requests:
                if amount:
                    use[at].setdefault(resource, {})[here] = amount
            for scope in scopes:
                path = _path(cluster, request, name, scope.required)
                if scope.required is not None and path is not None:
                    rows.append((-math.inf, {here: 1, homes[scope.name][path]: -clique.minimum}, 0))
        rows.append((clique.minimum, pods, clique.minimum))
    for at, amounts in enumerate(use):
        rows.extend((-math.inf, entries, free[at].get(resource, 0)) for resource, entries in amounts.items())
    return _has_point(uppers, rows, seconds_max)


def _allows(cluster: Cluster, request: GangRequest, name: str, scopes: Scopes) -> bool:
    """Return whether a node is right for pods of the last scope: labels, taints, domains; room aside."""
    node, clique = cluster.node(name), scopes[-1]
    return (
        isinstance(clique, CliqueRequest)
        and is_eligible(clique.shape, node)
        and all(node.labels.get(key) == value for scope in scopes for key, value in scope.within)
        and all(scope.required is None or _path(cluster, request, name, scope.required) for scope in scopes)
    )


def _path(cluster: Cluster, request: GangRequest, name: str, level: str | None) -> tuple[str, ...] | None:
    """Return the labels of a node down to a level; None if it lacks one, or if there is no level."""
    if level is None:
        return None
    labels = cluster.node(name).labels
    keys = request.topology[: request.topology.index(level) + 1]
    return tuple(labels[key] for key in keys) if all(key in labels for key in keys) else None


def _cliques(
    scope: GangRequest | GroupRequest | CliqueRequest, above: Scopes
) -> Iterator[tuple[CliqueRequest, Scopes]]:
    """Yield each clique with the scopes it lies in, itself included."""
    if isinstance(scope, CliqueRequest):
        yield scope, (*above, scope)
        return
    for member in scope.members:
        yield from _cliques(member, (*above, scope))


def _has_point(uppers: list[float], rows: Rows, seconds_max: float) -> bool:
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its __init__ lacks a type
    for option, value in {"output_flag": False, "threads": 1, "time_limit": seconds_max}.items():
        solver.setOptionValue(option, value)
    for upper in uppers:
        solver.addVar(0, upper)
    for at in range(len(uppers)):
        solver.changeColIntegrality(at, highspy.HighsVarType.kInteger)
    for low, entries, high in rows:
        solver.addRow(low, high, len(entries), list(entries), list(entries.values()))
    solver.run()
    status = solver.getModelStatus()
    if status not in {highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible}:
        raise TimeoutError(f"the solver ended with {status}")
    return bool(status == highspy.HighsModelStatus.kOptimal)
