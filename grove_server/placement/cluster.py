"""The cluster: the only mutable owner of placement's state.

Rules: one writer, no threads. Every public change is one step of `generation`; several names in one call are one
change. Decisions (`place.place`) read it and leave it as they found it; `reserve` makes one decision real, completely
or not at all. An event touches only its nodes; what follows from it (request classes, layouts) is brought up to date
when somebody asks. A removed node keeps the account of its pods until they are released, so a node that comes back is
right at once.

Not here: choosing nodes (`place`), what-ifs beyond an independent copy (`fork`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from grove_server.placement import gpus
from grove_server.placement.adoption import GpusHeldError, gpus_of_running
from grove_server.placement.counts import RequestClass
from grove_server.placement.ledger import GPU_ROW, RESOURCES_MAX, Ledger
from grove_server.placement.nodes import NodeState, problem_of
from grove_server.placement.promises import Promise, hold, let_go, obstacles, promise_of
from grove_server.placement.requests import CliqueRequest, GangRequest, GroupRequest, PodShape
from grove_server.placement.results import Placement, PodBinding
from grove_server.placement.rules import NodeRules, rules_relaxed
from grove_server.placement.stranding import Mix, Stranding
from grove_server.placement.topology import IntArray, Layout, lay_out
from grove_server.resources.gpu_annotations import GPU_MILLI

NODES_MAX: Final = 200_000
"""Most nodes of one cluster."""

_LAYOUTS_MAX: Final = 16
_CLASS_CELLS_MAX: Final = 1_000_000
_CLASSES_MIN: Final = 32
_CLASSES_MAX: Final = 256
_GROWTH_MAX: Final = 32_768


class ClusterError(ValueError):
    """A change that the cluster's state does not allow; nothing was changed."""


class UnknownNodeError(ClusterError):
    """A name that no node has or had."""


class NodeInvalidError(ClusterError):
    """A node with amounts out of bounds."""


class GpuConflictError(ClusterError):
    """GPUs that are taken already, or more of them than the node has free."""


class StalePlacementError(ClusterError):
    """A placement that does not fit any more; decide again on the present state."""


class Cluster:
    """Nodes, what is reserved on them, and the cached views that decisions are made on."""

    __slots__ = (
        "_classes",
        "_growth",
        "_growth_floor",
        "_layouts",
        "_promises",
        "_slots",
        "_vacant",
        "generation",
        "ledger",
        "rules",
        "stranding",
    )

    def __init__(self, nodes: Iterable[NodeState] = ()) -> None:
        self.generation = 0
        self.ledger = Ledger()
        self.rules = NodeRules()
        self.stranding: Stranding | None = None
        self._promises: dict[str, Promise] = {}
        self._slots: dict[str, int] = {}
        self._vacant: list[int] = []
        self._layouts: OrderedDict[tuple[str, ...], Layout] = OrderedDict()
        self._classes: OrderedDict[tuple[PodShape, tuple[str, ...]], RequestClass] = OrderedDict()
        self._growth: deque[tuple[int, int]] = deque()
        self._growth_floor = 0
        self.upsert_nodes(nodes)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def upsert_node(self, state: NodeState) -> None:
        """Add a node or replace what is known of it; its reservations stay. NodeInvalidError if out of bounds."""
        self.upsert_nodes((state,))

    def upsert_nodes(self, states: Iterable[NodeState]) -> None:
        """Add or replace several nodes as one change; NodeInvalidError before anything is changed."""
        states = tuple(states)
        for state in states:
            problem = problem_of(state)
            if problem is not None:
                raise NodeInvalidError(f"node {state.name}: {problem}")
        if (
            len(self._slots) + len(states) > NODES_MAX
            and len({*self._slots, *(each.name for each in states)}) > NODES_MAX
        ):
            raise NodeInvalidError(f"more than {NODES_MAX} nodes")
        resources = {*self.ledger.rows, *(resource for state in states for resource in state.allocatable)}
        if len(resources) > RESOURCES_MAX:
            raise NodeInvalidError(f"more than {RESOURCES_MAX} different resources")
        self.generation += 1
        for state in states:
            self._upsert(state)

    def remove_node(self, name: str) -> None:
        """Remove a node; the account of its pods stays until they are released. UnknownNodeError if there is none."""
        slot = self._slot(name)
        self.generation += 1
        self.rules.set_state(slot, None)
        self.ledger.set_allocatable(slot, {}, frozenset())
        self._layouts.clear()
        self._vacate_if_unused(name, slot)

    def set_schedulable(self, names: Iterable[str], *, schedulable: bool) -> None:
        """Uncordon or cordon several nodes as one change; UnknownNodeError before anything is changed."""
        slots = [self._slot(name) for name in names]
        self.generation += 1
        for slot in slots:
            state = self.rules.states[slot]
            if state is not None and state.unschedulable == schedulable:
                self._upsert(replace(state, unschedulable=not schedulable))

    def pack_for(self, mix: Mix | None) -> None:
        """Place few pods so that they strand the least GPU for a mix of pods; None: tightest first, as at the start.

        Decisions alone change; it is a setting, and no step of `generation`.
        """
        self.stranding = None if mix is None else Stranding(mix, self.ledger, self.rules)
        self._classes.clear()

    def node(self, name: str) -> NodeState:
        """Return what is known of a node; UnknownNodeError if there is none."""
        state = self.rules.states[self._slot(name)]
        assert state is not None
        return state

    def node_names(self) -> list[str]:
        """Return the names of all nodes, sorted."""
        return sorted(state.name for state in self.rules.states if state is not None)

    def slots_at(self, names: Iterable[str]) -> IntArray:
        """Return the slot of each name, -1 where there is no such node."""
        states, known = self.rules.states, self._slots
        slots = [known.get(name, -1) for name in names]
        return np.array([slot if slot >= 0 and states[slot] is not None else -1 for slot in slots], dtype=np.int64)

    def free_of(self, name: str) -> dict[str, int]:
        """Return what is free on a node by resource; negative where the node shrank under its pods."""
        slot = self._slot(name)
        return {resource: int(self.ledger.free[row, slot]) for resource, row in sorted(self.ledger.rows.items())}

    def gpus_free_of(self, name: str) -> tuple[int, ...]:
        """Return the ids of the free GPUs of a node."""
        return gpus.ids_of(self.ledger.gpu_free[self._slot(name)])

    def gpu_shares_of(self, name: str) -> dict[int, int]:
        """Return what is free of each partly used GPU of a node, in milli by id; broken GPUs are not in it."""
        return self.ledger.open_of(self._slot(name))

    # -- reservations --------------------------------------------------------------------------------------------

    def reserve(self, placement: Placement) -> None:
        """Make a placement real, all of it; StalePlacementError (and nothing changed) if it does not fit any more."""
        if placement.generation != self.generation:
            self._check_fits(placement)
        self.generation += 1
        for clique in placement.cliques:
            self._move_all(clique.shape, clique.bindings, 1)

    def release(self, placement: Placement) -> None:
        """Give back all that a placement reserved, as one change; UnknownNodeError before anything is changed."""
        self.release_pods((clique.shape, clique.bindings) for clique in placement.cliques)

    def bind_pod(self, node: str, shape: PodShape, gpu_ids: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Register one pod that runs on a node, as after a restart, and return its GPU ids.

        Room is not checked, for the pod is there. Without ids the node's best free ones are taken. UnknownNodeError;
        GpuConflictError if ids are taken or too few are free.
        """
        slot = self._slot(node)
        try:
            gpu_ids = gpus_of_running(self.ledger, slot, shape, gpu_ids)
        except GpusHeldError as error:
            raise GpuConflictError(f"node {node}: {error}") from error
        self.generation += 1
        self._move_all(shape, (PodBinding(node, gpu_ids),), 1)
        return gpu_ids

    def release_pod(self, node: str, shape: PodShape, gpu_ids: tuple[int, ...] = ()) -> None:
        """Give back what one pod had; the node may be gone. UnknownNodeError if it never was."""
        self.release_pods(((shape, (PodBinding(node, gpu_ids),)),))

    def release_pods(self, pods: Iterable[tuple[PodShape, Iterable[PodBinding]]]) -> None:
        """Give back what many pods had, as one change; UnknownNodeError before anything is changed."""
        batches = [(shape, tuple(bindings)) for shape, bindings in pods]
        for _, bindings in batches:
            for binding in bindings:
                if binding.node not in self._slots:
                    raise UnknownNodeError(f"there is no node {binding.node}")
        self.generation += 1
        for shape, bindings in batches:
            self._move_all(shape, bindings, -1)

    # -- promises ------------------------------------------------------------------------------------------------

    def promise(self, placement: Placement) -> None:
        """Set places aside for a gang, also such that others still hold; see `promises`.

        StalePlacementError if a node is gone or does not take the pods; ClusterError if the gang has a promise already
        or a GPU is promised to another one.
        """
        if placement.gang in self._promises:
            raise ClusterError(f"gang {placement.gang} has a promise already")
        self._check_nodes(placement)
        promise = promise_of(placement, self._slots)
        if any(mask & self.ledger.gpu_promised.get(slot, 0) for slot, mask in promise.masks.items()):
            raise ClusterError(f"GPUs for gang {placement.gang} are promised already")
        self.generation += 1
        self._promises[placement.gang] = promise
        hold(self.ledger, promise)

    def withdraw(self, gang: str) -> Placement:
        """Let go of what a gang was promised and return it; ClusterError if that is nothing."""
        promise = self._promise(gang)
        self.generation += 1
        del self._promises[gang]
        let_go(self.ledger, promise)
        names = {self._slots[binding.node]: binding.node for c in promise.placement.cliques for binding in c.bindings}
        for slot in promise.slots:
            self._note_growth(slot)
            self._vacate_if_unused(names[slot], slot)
        return promise.placement

    def keep(self, gang: str) -> Placement:
        """Turn a promise into a reservation and return it; StalePlacementError, and it stays, if not all is there."""
        promise = self._promise(gang)
        self._check_nodes(promise.placement)
        missing = next(obstacles(self.ledger, promise), "")
        if missing:
            raise StalePlacementError(f"the promise to gang {gang} cannot be kept: {missing}")
        self.generation += 1
        del self._promises[gang]
        let_go(self.ledger, promise)
        for clique in promise.placement.cliques:
            self._move_all(clique.shape, clique.bindings, 1)
        return promise.placement

    def broken_promises(self) -> dict[str, str]:
        """Return by gang why its promise can never be kept: a node is gone or does not take the pods any more."""
        broken = {}
        for gang, promise in sorted(self._promises.items()):
            try:
                self._check_nodes(promise.placement)
            except StalePlacementError as error:
                broken[gang] = str(error)
        return broken

    # -- views ---------------------------------------------------------------------------------------------------

    def layout(self, keys: tuple[str, ...]) -> Layout:
        """Return the nodes in the order of a topology (its level keys, broadest first)."""
        layout = self._layouts.get(keys)
        if layout is None:
            columns = [self.rules.column(key) for key in keys]
            layout = lay_out(keys, self.rules.slots_by_name(), len(self.rules.states), columns)
            self._layouts[keys] = layout
            if len(self._layouts) > _LAYOUTS_MAX:
                self._layouts.popitem(last=False)
        else:
            self._layouts.move_to_end(keys)
        return layout

    def request_class(self, shape: PodShape, layout: Layout) -> RequestClass:
        """Return the up-to-date counts of a shape over a layout."""
        key = (shape, layout.keys)
        cached = self._classes.get(key)
        if cached is None or cached.layout is not layout:
            cached = RequestClass(shape, layout, self.ledger, self.rules.eligibility(shape), self.rules.changes.end)
            cached.stranding = self.stranding
            self._classes[key] = cached
            self._classes.move_to_end(key)
            most = min(max(_CLASS_CELLS_MAX // max(1, len(layout.slots)), _CLASSES_MIN), _CLASSES_MAX)
            while len(self._classes) > most:
                self._classes.popitem(last=False)
            return cached
        self._classes.move_to_end(key)
        self.refresh(cached)
        return cached

    def refresh(self, cached: RequestClass) -> None:
        """Bring a request class up to date with the nodes that changed since it was last used."""
        rules = self.rules
        if cached.rules_read != rules.changes.end:
            slots = rules.changes.since(cached.rules_read)
            shape = cached.shape
            if not cached.refresh_rules(slots, rules.changes.end, lambda slot: rules.eligibility_at(shape, slot)):
                cached.rebuild(self.ledger, rules.eligibility(shape), rules.changes.end)
                return
            cached.recount(self.ledger, slots or [])
        if not cached.refresh(self.ledger):
            cached.rebuild(self.ledger, rules.eligibility(cached.shape), rules.changes.end)

    def fork(self) -> Cluster:
        """Return an independent copy for what-ifs: arrays copied, immutable layouts shared."""
        other = Cluster()
        other.generation = self.generation
        other.ledger = self.ledger.fork()
        other.rules = self.rules.fork()
        other._promises = dict(self._promises)
        other._slots = dict(self._slots)
        other._vacant = list(self._vacant)
        other._layouts = OrderedDict(self._layouts)
        other._growth = self._growth.copy()
        other._growth_floor = self._growth_floor
        if self.stranding is not None:
            other.pack_for(self.stranding.mix)
        return other

    # -- growth --------------------------------------------------------------------------------------------------

    def capacity_grew_since(self, generation: int) -> bool:
        """Return whether any node has more room, or admits more pods, than at `generation`."""
        return generation < self._growth_floor or bool(self._growth and self._growth[-1][0] > generation)

    def may_help(self, request: GangRequest, generation: int) -> bool:
        """Return whether anything that grew after `generation` could matter to a gang that failed at it.

        Sound for verdicts: if it is False, the same request meets no node it could use better than then.
        """
        if generation < self._growth_floor:
            return True
        slots: dict[int, None] = {}
        for grown_at, slot in reversed(self._growth):
            if grown_at <= generation:
                break
            slots[slot] = None
        if not slots:
            return False
        layout = self.layout(request.topology)
        grown = np.fromiter(slots, dtype=np.int64, count=len(slots))
        for key in sorted({rule.key for rule in request.rules}):
            # A pod that went may open its whole domain; of a node that is gone too, nobody knows the domain any more.
            codes = self.rules.column(key).codes
            if any(self.rules.states[slot] is None for slot in slots):
                return True
            grown = np.union1d(grown, np.flatnonzero((codes >= 0) & np.isin(codes, codes[grown])))
        positions = layout.positions[grown]
        positions = positions[positions >= 0]
        return any(
            bool((self.request_class(shape, layout).everywhere[-1][positions] > 0).any())
            for shape in shapes_of(request)
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def _slot(self, name: str) -> int:
        slot = self._slots.get(name)
        if slot is None or self.rules.states[slot] is None:
            raise UnknownNodeError(f"there is no node {name}")
        return slot

    def _upsert(self, state: NodeState) -> None:
        slot = self._slots.get(state.name)
        if slot is None:
            slot = self._vacant.pop() if self._vacant else self._new_slot()
            self._slots[state.name] = slot
        before = self.rules.states[slot]
        self.rules.set_state(slot, state)
        grew = before is None or rules_relaxed(before, state)
        self._drop_layouts(before, state)
        if before is None or before.gpu_islands != state.gpu_islands:
            self.ledger.gpu_islands[slot] = tuple(gpus.mask_of(island) for island in state.gpu_islands)
        if before is None or before.allocatable != state.allocatable or before.gpu_busy != state.gpu_busy:
            grew |= self.ledger.set_allocatable(slot, state.allocatable, state.gpu_busy)
        if grew:
            self._note_growth(slot)

    def _drop_layouts(self, before: NodeState | None, after: NodeState) -> None:
        if before is None:
            self._layouts.clear()
        elif before.labels != after.labels:
            for keys in list(self._layouts):
                if any(before.labels.get(key) != after.labels.get(key) for key in keys):
                    del self._layouts[keys]

    def _new_slot(self) -> int:
        self.rules.add_slot()
        return self.ledger.add_slot()

    def _vacate_if_unused(self, name: str, slot: int) -> None:
        if self.rules.states[slot] is None and self.ledger.is_unused(slot):
            del self._slots[name]
            self._vacant.append(slot)

    def _move_all(self, shape: PodShape, bindings: Iterable[PodBinding], sign: int) -> None:
        """Take (sign 1) or give back (-1) what equal pods cost on their nodes."""
        counts: dict[str, int] = {}
        masks: dict[str, int] = {}
        milli = sign * shape.gpu_milli
        for node, gpu_ids in bindings:
            counts[node] = counts.get(node, 0) + 1
            if milli:
                for gpu_id in gpu_ids:
                    self.ledger.take_share(self._slots[node], gpu_id, milli)
            elif gpu_ids:
                masks[node] = masks.get(node, 0) | gpus.mask_of(gpu_ids)
        costs = self.ledger.costs(shape.requests)
        for node, count in counts.items():
            slot = self._slots[node]
            mask = masks.get(node, 0)
            if mask and sign > 0:
                self.ledger.take_gpus(slot, mask)
            elif mask:
                self.ledger.give_gpus(slot, mask)
            self.ledger.move(slot, costs, sign * count)
            if sign < 0:
                self._note_growth(slot)
                self._vacate_if_unused(node, slot)

    def _check_fits(self, placement: Placement) -> None:
        """Raise StalePlacementError unless all of a placement fits on the present state."""
        self._check_nodes(placement)
        need: dict[tuple[int, int], int] = {}
        milli: dict[tuple[int, int], int] = {}
        for clique in placement.cliques:
            costs = self.ledger.costs(clique.shape.requests)
            for node, gpu_ids in clique.bindings:
                slot = self._slots[node]
                for gpu_id in gpu_ids:
                    taken = milli.get((slot, gpu_id), 0) + (clique.shape.gpu_milli or GPU_MILLI)
                    if taken > self._milli_free(slot, gpu_id):
                        raise StalePlacementError(f"GPUs {list(gpu_ids)} of node {node} are not free any more")
                    milli[slot, gpu_id] = taken
                for row, amount in costs:
                    need[row, slot] = need.get((row, slot), 0) + amount
        for (row, slot), amount in need.items():
            if row != GPU_ROW and amount > int(self.ledger.free[row, slot]):
                raise StalePlacementError(f"gang {placement.gang} does not fit any more")

    def _check_nodes(self, placement: Placement) -> None:
        """Raise StalePlacementError unless every node of a placement is there and may be used by its pods."""
        for clique in placement.cliques:
            for node in dict.fromkeys(node for node, _ in clique.bindings):
                slot = self._slots.get(node)
                if slot is None or not self.rules.eligibility_at(clique.shape, slot)[0]:
                    raise StalePlacementError(f"node {node} cannot take pods of clique {clique.name} any more")

    def _promise(self, gang: str) -> Promise:
        promise = self._promises.get(gang)
        if promise is None:
            raise ClusterError(f"gang {gang} was promised nothing")
        return promise

    def _milli_free(self, slot: int, gpu_id: int) -> int:
        """Return how much of one GPU can be given out, in milli."""
        if self.ledger.gpu_free[slot] >> gpu_id & 1:
            return GPU_MILLI
        return self.ledger.open_of(slot).get(gpu_id, 0) if slot in self.ledger.shares.used else 0

    def _note_growth(self, slot: int) -> None:
        if len(self._growth) >= _GROWTH_MAX:
            self._growth_floor = self._growth.popleft()[0]
        if not self._growth or self._growth[-1] != (self.generation, slot):
            self._growth.append((self.generation, slot))


def shapes_of(request: GangRequest | GroupRequest) -> list[PodShape]:
    """Return the distinct shapes of a request in its order."""
    shapes: dict[PodShape, None] = {}
    for member in request.members:
        for shape in [member.shape] if isinstance(member, CliqueRequest) else shapes_of(member):
            shapes[shape] = None
    return list(shapes)
