"""Which evictions some places really need: all other units are given back, the dearest first.

Rules: the places (nodes and counts) are fixed. What is left over on their nodes once every allowed unit is gone is
handed back unit by unit in the order in which units deserve to stay; whatever does not fit in any more has to go. So
without any one of the units that go (those aside that another one takes along) the places would not be free.
Method: the reprieve of kube-scheduler's preemption, over gangs instead of pods.

Not here: how the places were chosen (`eviction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster, GpuConflictError
from grove_server.placement.occupancy import Occupancy, Seat
from grove_server.placement.outsiders import Returns
from grove_server.placement.requests import GPU_RESOURCE, PodShape
from grove_server.placement.results import Placement
from grove_server.placement.topology import BoolArray, IntArray
from grove_server.placement.units import Units
from grove_server.placement.vacating import Vacating
from grove_server.resources.gpu_annotations import GPU_MILLI

_PLENTY: Final = 2**62


def needed_units(
    cluster: Cluster,
    units: Units,
    vacating: Vacating,
    placement: Placement,
    allowed: BoolArray,
    returns: Returns | None = None,
) -> BoolArray:
    """Return the units that have to go for a placement found on `cluster`, from which all allowed units are gone.

    The set is closed under what units take along. `returns` says who may come back by rules between pods. `cluster` is
    a copy that the caller does not need any more.
    """
    unit_of = units.unit_of[vacating.order]
    room = _Room(cluster, units.occupancy, vacating, placement, np.flatnonzero(allowed[unit_of]))
    owners = unit_of[room.rows]
    victims, undecided = units.none(), units.none()
    victims[owners] = undecided[owners] = True
    if returns is not None:
        bearing = unit_of[returns.bearing]
        victims[bearing] = undecided[bearing] = True
        undecided[unit_of[returns.barred]] = False
    undecided[owners[room.is_too_much()]] = False
    by_unit = np.argsort(owners, kind="stable")
    sorted_owners = owners[by_unit]
    left, is_again = units.dearest_first(np.flatnonzero(undecided)).tolist(), True
    while left and is_again:
        # Who comes back may be what others, refused before, have to be near: these are asked once more.
        is_again, refused = False, []
        for unit in left:
            if _is_taken(units, victims, unit):
                continue
            counted = np.flatnonzero(returns.bearing & (unit_of == unit)) if returns is not None else by_unit[:0]
            if returns is not None and not returns.admits(counted):
                refused.append(unit)
                continue
            first, end = np.searchsorted(sorted_owners, (unit, unit + 1)).tolist()
            if room.takes_back(by_unit[first:end]):
                victims[unit] = False
                if returns is not None:
                    returns.take_back(counted)
                    is_again = True
        left = refused
    return units.with_taken(victims)


class _Room:
    """What is left over on the nodes of some places, and the pods (`rows` of a vacating) that would take of it."""

    def __init__(
        self, cluster: Cluster, occupancy: Occupancy, vacating: Vacating, placement: Placement, allowed: IntArray
    ) -> None:
        need, slots = need_of(cluster, placement)
        self.slack = np.where(need > 0, cluster.ledger.free[: len(need), slots] - need, _PLENTY)
        at = np.minimum(np.searchsorted(slots, vacating.slots), len(slots) - 1)
        self.rows: IntArray = allowed[np.equal(slots[at], vacating.slots)[allowed]]
        self._amounts, self._columns = vacating.amounts[:, self.rows], at[self.rows]
        self._pods = vacating.pods[self.rows]
        has_shares = vacating.has_shares or any(clique.shape.gpu_milli for clique in placement.cliques)
        self._trial = ShareTrial(cluster, occupancy, placement) if has_shares else None

    def is_too_much(self) -> BoolArray:
        """Return by row whether that pod alone is more than is left over."""
        return np.logical_or.reduce(self._amounts > self.slack[:, self._columns], axis=0)  # type: ignore[no-any-return]  # numpy's reduce is untyped

    def takes_back(self, pods: IntArray) -> bool:
        """Return whether there is room for some of the pods (places in `rows`), and take it if so."""
        held = np.zeros_like(self.slack)
        for total, amount in zip(held, self._amounts, strict=True):
            np.add.at(total, self._columns[pods], amount[pods])
        if (held > self.slack).any() or (self._trial is not None and not self._trial.admits(self._pods[pods].tolist())):
            return False
        self.slack -= held
        return True


def need_of(cluster: Cluster, placement: Placement) -> tuple[IntArray, IntArray]:
    """Return (int64[ledger row, node] that a placement takes, the slots of its nodes, ascending)."""
    ledger = cluster.ledger
    counts: dict[tuple[int, str], int] = {}
    for at, clique in enumerate(placement.cliques):
        for binding in clique.bindings:
            counts[at, binding.node] = counts.get((at, binding.node), 0) + 1
    nodes = sorted({node for _, node in counts})
    slots = cluster.slots_at(nodes)
    order = np.argsort(slots)
    column = dict(zip((nodes[i] for i in order.tolist()), range(len(nodes)), strict=True))
    costs = [ledger.costs(clique.shape.requests) for clique in placement.cliques]
    need = np.zeros((len(ledger.rows), len(nodes)), dtype=np.int64)
    for (at, node), count in counts.items():
        for row, amount in costs[at]:
            need[row, column[node]] += amount * count
    return need, slots[order]


def _is_taken(units: Units, victims: BoolArray, unit: int) -> bool:
    """Return whether a unit has to go along with one that goes."""
    taker = int(units.taker[unit])
    return taker >= 0 and (bool(victims[taker]) or _is_taken(units, victims, taker))


class ShareTrial:
    """Whether places of a placement stay free on their nodes when pods come back there; for nodes with shared GPUs.

    Shares of several sizes have to be laid out to know whether they fit, so they are, node by node. A node on which
    only the search itself found a way keeps what it was given: nothing comes back there.
    """

    def __init__(self, cluster: Cluster, occupancy: Occupancy, placement: Placement) -> None:
        self.cluster = cluster
        self.occupancy = occupancy
        self.places: dict[str, list[PodShape]] = {}
        for clique in placement.cliques:
            for binding in clique.bindings:
                self.places.setdefault(binding.node, []).append(clique.shape)
        self.rigid = {node for node in self.places if not self._holds(node)}

    def admits(self, pods: list[int]) -> bool:
        """Put pods (rows of the occupancy) back and return True if the places stay free; else leave them out."""
        seats = [self.occupancy.seat(row) for row in pods]
        nodes = sorted({seat.node for seat in seats})
        if any(node in self.rigid for node in nodes):
            return False
        back: list[Seat] = []
        try:
            for seat in seats:
                self.cluster.bind_pod(seat.node, seat.shape, seat.gpu_ids)
                back.append(seat)
            if all(self._holds(node) for node in nodes):
                return True
        except GpuConflictError:
            # It leaves already, and its GPU is promised to somebody who gets all of it once it is gone.
            pass
        for seat in back:
            self.cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
        return False

    def _holds(self, node: str) -> bool:
        shapes = self.places[node]
        given = laid_out(self.cluster, node, shapes)
        for shape, gpu_ids in zip(shapes, given or (), strict=False):
            self.cluster.release_pod(node, shape, gpu_ids)
        return given is not None


def laid_out(cluster: Cluster, node: str, shapes: Sequence[PodShape]) -> list[tuple[int, ...]] | None:
    """Bind pods on a node, GPUs chosen, and return the ids pod by pod; None, and nothing bound, if GPUs are short.

    Tried as given, then the largest first, then shares before whole GPUs.
    """
    numbers = range(len(shapes))
    largest = sorted(numbers, key=lambda at: -(shapes[at].gpu_milli or GPU_MILLI * shapes[at].amount(GPU_RESOURCE)))
    shares = sorted(numbers, key=lambda at: (not shapes[at].gpu_milli, -shapes[at].gpu_milli))
    for order in (numbers, largest, shares):
        given: dict[int, tuple[int, ...]] = {}
        try:
            given.update((at, cluster.bind_pod(node, shapes[at])) for at in order)
        except GpuConflictError:
            for at, gpu_ids in given.items():
                cluster.release_pod(node, shapes[at], gpu_ids)
            continue
        return [given[at] for at in numbers]
    return None
