"""Counts which constraint kept how many nodes out for one shape; each node counts once, under the first that does.

Rules: the order is that of `ExclusionKind`; the meaning is `matching`'s, asked once per distinct signature of nodes.
Used after a failure only.

Not here: domains (`explain`), what would help (`remedies`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.ledger import GPU_ROW
from grove_server.placement.matching import UNSCHEDULABLE_TAINT, effective_taints, untolerated
from grove_server.placement.nodes import NodeState
from grove_server.placement.requests import GPU_RESOURCE, GPU_SHARE, PodShape, RuleKind
from grove_server.placement.results import Exclusion, ExclusionKind, amount_text
from grove_server.placement.ruled_counts import RuledClass
from grove_server.placement.topology import BoolArray, IntArray

EXCLUSIONS_MAX = 16
"""Most lines in a verdict; the rest is added up in one line per kind."""


class SetAside(NamedTuple):
    """Nodes, bool[slots], that are kept for other gangs, whose names `gangs` says."""

    by_slot: BoolArray
    gangs: str


class _Tally:
    """Takes nodes out of play, constraint by constraint. All arrays are by slot."""

    def __init__(self, in_play: BoolArray) -> None:
        self.in_play = in_play
        self.lines: list[Exclusion] = []

    def take(self, kind: ExclusionKind, detail: str, hit: BoolArray) -> None:
        taken = self.in_play & hit
        count = int(np.count_nonzero(taken))
        if count:
            self.lines.append(Exclusion(kind=kind, detail=detail, node_count=count))
            self.in_play &= ~taken


def count_exclusions(
    cluster: Cluster,
    request_class: RequestClass,
    keys: tuple[str, ...],
    inside: BoolArray,
    binding: str,
    aside: SetAside | None = None,
) -> tuple[Exclusion, ...]:
    """Return why nodes do not take a pod of the shape; nodes that do are in no line.

    `keys` are the labels which the level needs, `inside` bool[slots] the nodes of the binding domain, which `binding`
    names, `aside` what is kept for others.
    """
    rules, shape = cluster.rules, request_class.shape
    tally = _Tally(rules.signatures()[0] != 0)
    _take_signatures(cluster, shape, tally)
    for key, value in shape.node_selector:
        column = rules.column(key)
        tally.take(ExclusionKind.NODE_SELECTOR, f"{key}={value}", column.codes != column.codes_of.get(value, -2))
    if shape.affinity is not None:
        eligible, _ = rules.eligibility(PodShape(affinity=shape.affinity, tolerations=shape.tolerations))
        tally.take(ExclusionKind.AFFINITY, "", ~eligible)
    for rule, hit in request_class.closed_nodes() if isinstance(request_class, RuledClass) else ():
        kind = ExclusionKind.POD_ANTI_AFFINITY if rule.kind == RuleKind.APART else ExclusionKind.POD_AFFINITY
        by_slot = np.zeros(len(rules.states), dtype=np.bool_)
        by_slot[request_class.layout.slots] = hit
        tally.take(kind, rule.about(), by_slot)
    for key in keys:
        tally.take(ExclusionKind.MISSING_LABEL, key, rules.column(key).codes < 0)
    tally.take(ExclusionKind.OUTSIDE_DOMAIN, binding, ~inside)
    if aside is not None:
        tally.take(ExclusionKind.SET_ASIDE, aside.gangs, aside.by_slot)
    _take_amounts(cluster, request_class, tally)
    return _shortened(tally.lines)


def _take_signatures(cluster: Cluster, shape: PodShape, tally: _Tally) -> None:
    """Take out nodes that are down, cordoned or tainted."""
    codes, signatures = cluster.rules.signatures()
    causes: dict[tuple[ExclusionKind, str], list[int]] = {}
    for code, state in enumerate(signatures):
        cause = None if state is None else _cause(state, shape)
        if cause is not None:
            causes.setdefault(cause, []).append(code)
    order = list(ExclusionKind)
    for (kind, detail), hit in sorted(causes.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        is_hit = np.zeros(len(signatures), dtype=np.bool_)
        is_hit[hit] = True
        tally.take(kind, detail, is_hit[codes])


def _cause(state: NodeState, shape: PodShape) -> tuple[ExclusionKind, str] | None:
    if not state.ready:
        return ExclusionKind.NOT_READY, ""
    taint = untolerated(shape.tolerations, effective_taints(state))
    if taint is None:
        return None
    return (ExclusionKind.CORDONED, "") if taint == UNSCHEDULABLE_TAINT else (ExclusionKind.TAINT, str(taint))


def _take_amounts(cluster: Cluster, request_class: RequestClass, tally: _Tally) -> None:
    """Take out nodes that are too small for one pod even when empty, then those that are too full."""
    ledger, slot_count = cluster.ledger, len(cluster.rules.states)
    for resource, amount in request_class.shape.requests:
        if amount > 0 and resource not in ledger.rows:
            tally.take(ExclusionKind.TOO_SMALL, resource, np.ones(slot_count, dtype=np.bool_))
    milli = request_class.shape.gpu_milli
    if milli:
        tally.take(ExclusionKind.TOO_SMALL, GPU_RESOURCE, ledger.allocatable[GPU_ROW, :slot_count] <= 0)
    names = {row: resource for resource, row in ledger.rows.items()}
    for kind, amounts in ((ExclusionKind.TOO_SMALL, ledger.allocatable), (ExclusionKind.FULL, ledger.free)):
        for row, amount in _scarcest_first(request_class, amounts):
            tally.take(kind, names[row], amounts[row, :slot_count] < amount)
    if milli:
        is_full = ledger.shares_fitting(np.arange(slot_count, dtype=np.int64), milli) == 0
        tally.take(ExclusionKind.FULL, amount_text(GPU_SHARE, milli), is_full)


def _scarcest_first(request_class: RequestClass, amounts: IntArray) -> list[tuple[int, int]]:
    """Return (row, amount per pod) with the resource first that fewest nodes have enough of."""
    costs = request_class.costs or ()
    return sorted(costs, key=lambda cost: (int(np.count_nonzero(amounts[cost[0]] >= cost[1])), -cost[0]))


def _shortened(lines: list[Exclusion]) -> tuple[Exclusion, ...]:
    """Return at most EXCLUSIONS_MAX lines, the tail added up per kind."""
    if len(lines) <= EXCLUSIONS_MAX:
        return tuple(lines)
    head, tail = lines[: EXCLUSIONS_MAX - len(ExclusionKind)], lines[EXCLUSIONS_MAX - len(ExclusionKind) :]
    rest: dict[ExclusionKind, int] = {}
    for line in tail:
        rest[line.kind] = rest.get(line.kind, 0) + line.node_count
    return (*head, *(Exclusion(kind=kind, detail="others", node_count=count) for kind, count in rest.items()))
