"""The cluster with all that runs on it at one moment: what what-ifs are asked of, changed freely, and thrown away.

Rules: it owns its copy of the cluster, and keeps who sits where in step with it. A drained node loses its pods, and the
gangs they belong to ask for new places as they would after a real drain. What a gang that moves has to keep (its
levels, the domains of what stays) is asked for in the same words as anything that comes later.

Not here: planning and placing gangs (`trial`), which gangs should move (`consolidation`, `clearing`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from grove_server.lifecycle.blueprint import TopologyLevels
from grove_server.placement.admittance import Queueing, Waiting
from grove_server.placement.allowances import Allowances
from grove_server.placement.cluster import Cluster, ClusterError
from grove_server.placement.consolidation import Move
from grove_server.placement.earmarks import Earmark
from grove_server.placement.fragmentation import SHAPES_MAX
from grove_server.placement.gang_facts import facts_of, facts_of_leaving, full_name, surplus_budgets
from grove_server.placement.gangs import Ask, GangScene, ask_minimum, ask_surplus, is_placed, split_pods
from grove_server.placement.occupancy import Occupancy, Seat
from grove_server.placement.planned import Held, PlannedGang, seat_of
from grove_server.placement.requests import CliqueRequest, GangRequest, GroupRequest, PodShape
from grove_server.placement.results import PodBinding
from grove_server.placement.stage import Stage
from grove_server.placement.stranding import Mix
from grove_server.placement.trial import Trial
from grove_server.placement.trial_answer import Refused, Surroundings
from grove_server.placement.work import Work
from grove_server.resources.queues import DEFAULT_QUEUE, Queue, queue_of
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodGang


class Running(NamedTuple):
    """One pod with what it holds in the cluster."""

    pod: Pod
    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...]

    @property
    def held(self) -> Held:
        """What it holds."""
        return Held(self.node, self.shape, self.gpu_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What there is beside nodes and running pods.

    `sets` and `cliques` are those that gangs and pods belong to, `pending` the pods without nodes, `queues` all queues.
    `leaving`: full names of pods that were told to go and do not show it yet. `kept` by queue what is promised to
    gangs, `waiting` the gangs without places, `earmarks` what is set aside for them. `refused`: by full name of a gang
    that lacks places what it was refused.
    """

    sets: Sequence[PodCliqueSet] = ()
    cliques: Sequence[PodClique] = ()
    pending: Sequence[Pod] = ()
    queues: Sequence[Queue] = ()
    leaving: frozenset[str] = frozenset()
    kept: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waiting: Sequence[Waiting] = ()
    earmarks: Sequence[Earmark] = ()
    refused: Mapping[str, Refused] = field(default_factory=dict)


class PodMove(NamedTuple):
    """One pod that goes from a node to another, and the GPUs it gets there."""

    pod: str
    from_node: str
    to_node: str
    gpu_ids: tuple[int, ...]


def name_of(resource: Pod | PodGang | PodClique | PodCliqueSet) -> str:
    """Return namespace and name: pods and gangs of all namespaces lie beside each other."""
    return f"{resource.metadata.namespace}/{resource.metadata.name}"


def _gang_of(pod: Pod) -> str:
    return full_name(pod.metadata.namespace, pod.identity.gang)


class Moment:
    """Cluster, gangs and running pods; `levels` are those of each ClusterTopologyBinding by name."""

    def __init__(
        self,
        cluster: Cluster,
        gangs: Iterable[PodGang],
        running: Iterable[Running],
        levels: TopologyLevels,
        standing: Standing | None = None,
    ) -> None:
        self.cluster = cluster
        self.stage = Stage(cluster, levels)
        self.levels = levels
        self.gangs = {name_of(gang): gang for gang in gangs}
        self._copies: dict[tuple[str, int, str], list[str]] = {}
        for name, gang in self.gangs.items():
            self._copies.setdefault((gang.set_uid, gang.copy, gang.metadata.namespace), []).append(name)
        self._there = standing if standing is not None else Standing()
        self._sets = {name_of(owner): owner for owner in self._there.sets}
        self._cliques = {name_of(clique): clique for clique in self._there.cliques}
        self._pending: dict[str, list[Pod]] = {}
        for pod in self._there.pending:
            self._pending.setdefault(_gang_of(pod), []).append(pod)
        self._gone: set[str] = set()
        self._running: dict[str, Running] = {}
        self._of_gang: dict[str, dict[str, None]] = {}
        for each in sorted(running, key=lambda one: name_of(one.pod)):
            name = name_of(each.pod)
            self._running[name] = each
            self._of_gang.setdefault(_gang_of(each.pod), {})[name] = None
            self.stage.peers.note(each.pod)

    # -- changes -----------------------------------------------------------------------------------------------------

    def take_away(self, pods: Iterable[str]) -> None:
        """Let pods go; those that are not there already hold nothing."""
        batches: dict[PodShape, list[PodBinding]] = {}
        for name in pods:
            each = self._running.pop(name, None)
            if each is not None:
                del self._of_gang[_gang_of(each.pod)][name]
                batches.setdefault(each.shape, []).append(PodBinding(each.node, each.gpu_ids))
                self.stage.peers.release(each.pod.metadata.namespace, each.pod.metadata.name)
        self.cluster.release_pods(batches.items())

    def remove_set(self, namespace: str, name: str) -> int:
        """Let all pods of a set go, and return how many they were."""
        return self._remove(
            gang for gang, each in self.gangs.items() if (each.metadata.namespace, each.set_name) == (namespace, name)
        )

    def remove_gang(self, namespace: str, name: str) -> int:
        """Let all pods of a gang go, with those of the scaled gangs that depend on it; return how many they were."""
        return self._remove(
            gang
            for gang, each in self.gangs.items()
            if each.metadata.namespace == namespace and name in {each.metadata.name, each.base_gang}
        )

    def drain(self, nodes: Collection[str]) -> list[PlannedGang]:
        """Cordon nodes and let their pods go; return the gangs that ask for new places, base gangs first.

        UnknownNodeError, and nothing changed, if there is no such node.
        """
        self.cluster.set_schedulable(sorted(nodes), schedulable=False)
        gone = [name for name, each in self._running.items() if each.node in nodes]
        displaced: dict[str, list[Pod]] = {}
        for name in gone:
            pod = self._running[name].pod
            if pod.is_active:
                displaced.setdefault(_gang_of(pod), []).append(_unbound(pod))
        self.take_away(gone)
        for name in displaced:
            displaced[name] += self._pending.get(name, ())
        planned = []
        for name, pods in sorted(displaced.items()):
            gang = self.gangs.get(name)
            if gang is not None:
                every = [*self._pods(name), *pods]
                planned.append(PlannedGang(gang=gang, pods=every, copy_bound=self._copy(gang)))
        return planned

    def bring(self, owner: PodCliqueSet) -> None:
        """Take a set as if it were there; one of its name is gone."""
        self.remove_set(owner.metadata.namespace, owner.metadata.name)
        self._sets[name_of(owner)] = owner

    def bring_queues(self, queues: Iterable[Queue]) -> None:
        """Take queues as if they were there; those of their names are replaced."""
        joined = {queue.metadata.name: queue for queue in (*self._there.queues, *queues)}
        self._there = replace(self._there, queues=tuple(joined.values()))

    # -- views -------------------------------------------------------------------------------------------------------

    def trial(self, *, now: float = 0.0, work: Work | None = None) -> Trial:
        """Return a trial on this moment, which it changes; *now* is in epoch seconds."""
        waiting = [each for each in self._there.waiting if each.name in self.gangs and each.name not in self._gone]
        queueing = Queueing(
            allowances=Allowances(self._there.queues), queue_of=self.queue_of, kept=self._there.kept, waiting=waiting
        )
        around = Surroundings(
            owner_of=self._owner_of,
            queueing=queueing,
            earmarks=[each for each in self._there.earmarks if each.gang not in self._gone],
            budgets_of=self.budgets_of,
            gang_of=self.gang_of,
            waiting=self.waiting,
            refused=self._there.refused,
            now=now,
        )
        return Trial(self.stage, self.occupancy(), around, work=work)

    def gang_of(self, name: str) -> PlannedGang | None:
        """Return a gang that is there with all its pods, also those without nodes; None if it is not there."""
        gang = self.gangs.get(name)
        if gang is None or name in self._gone:
            return None
        pods = [*self._pods(name), *self._pending.get(name, ())]
        return PlannedGang(gang=gang, pods=pods, copy_bound=self._copy(gang))

    def waiting(self) -> list[PlannedGang]:
        """Return the gangs that lack places, but for those for which some are kept."""
        names = (name for name in sorted(self._pending) if name not in self._gone and name in self.gangs)
        gangs = (self.gang_of(name) for name in names if self.gangs[name].status.nomination is None)
        return [gang for gang in gangs if gang is not None and gang.gang.metadata.deleted_at is None]

    def queue_of(self, gang: PodGang) -> str:
        """Return the queue that a gang's set is in; the default one once the set is gone."""
        owner = self._owner_of(gang)
        return DEFAULT_QUEUE if owner is None else queue_of(owner)

    def occupancy(self, *, with_leaving: bool = True) -> Occupancy:
        """Return who sits where.

        Pods that leave already stand by themselves, to be counted on first; without them they are nobody's victims.
        """
        occupancy = Occupancy(self.stage.counted)
        facts = {name: facts_of(self.gangs[name], self.queue_of(self.gangs[name])) for name in self._seated()}
        seats = []
        for name, each in self._running.items():
            own = facts.get(_gang_of(each.pod))
            if own is None:
                continue
            if name in self._there.leaving or not each.pod.is_active:
                if not with_leaving:
                    continue
                own = facts_of_leaving(own)
            if own.name not in occupancy.gangs:
                occupancy.set_gang(own)
            seats.append(seat_of(each.pod, own.name, each.held))
        occupancy.add_pods(seats)
        return occupancy

    def request_of(self, gang: str, seats: tuple[Seat, ...]) -> GangRequest | None:
        """Return what to ask for when some pods of a gang move; None if they cannot be asked for together."""
        found = self.gangs.get(gang)
        if found is None or found.topology_error:
            return None
        moving = {seat.pod for seat in seats}
        pods = [_movable(self._running[n].pod) if n in moving else self._running[n].pod for n in self._of_gang[gang]]
        copy_bound = [pod for pod in self._copy(found) if name_of(pod) not in moving]
        scene = self.stage.scene(found, split_pods(pods), self._owner_of(found), lambda: copy_bound)
        return self._apart(moving, lambda: self._asked(gang, found, scene))

    def without_gang(self, gang: PodGang) -> Cluster:
        """Return a copy of the cluster on which a gang does not run."""
        copy = self.cluster.fork()
        names = self._of_gang.get(name_of(gang), {})
        each = [self._running[name] for name in names]
        copy.release_pods((one.shape, (PodBinding(one.node, one.gpu_ids),)) for one in each)
        return copy

    def pods_on(self, nodes: Collection[str]) -> int:
        """Return how many pods run on some nodes."""
        return sum(each.node in nodes for each in self._running.values())

    def mix(self) -> Mix | None:
        """Return the most common shapes with GPUs among what runs, by number; None if nothing with GPUs does."""
        counts: dict[PodShape, int] = {}
        for each in self._running.values():
            if each.shape.needs_gpu:
                counts[each.shape] = counts.get(each.shape, 0) + 1
        common = sorted(counts.items(), key=lambda item: -item[1])[:SHAPES_MAX]
        return Mix(shapes=tuple(common)) if common else None

    def moved(self, move: Move) -> list[PodMove]:
        """Return where each pod of a move goes; pods of a clique are equal, so they go in the order of their index.

        A pod on whose node one of its clique will be stays there, and is no move.
        """
        by_clique: dict[str, list[str]] = {}
        for name in sorted(move.pods, key=lambda each: (self._running[each].pod.index, each)):
            by_clique.setdefault(self._running[name].pod.identity.name, []).append(name)
        moves = []
        for clique in move.placement.cliques:
            pods, places = by_clique.get(clique.name, []), list(clique.bindings)
            for name in list(pods):
                here = next((each for each in places if each.node == self._running[name].node), None)
                if here is not None:
                    places.remove(here)
                    pods.remove(name)
            moves += [
                PodMove(name, self._running[name].node, binding.node, binding.gpu_ids)
                for name, binding in zip(pods, places, strict=False)
            ]
        return moves

    # -- inside ------------------------------------------------------------------------------------------------------

    def _asked(self, name: str, gang: PodGang, scene: GangScene) -> GangRequest | None:
        if not any(scene.pods.bound.values()):
            asks = ask_minimum(scene)
        elif is_placed(gang, scene.pods):
            asks = ask_surplus(scene)
        else:
            return None
        return _whole(name, asks)

    def _apart(self, moving: Collection[str], ask: Callable[[], GangRequest | None]) -> GangRequest | None:
        """Ask with some pods out of the book: where they were must not keep them from, or draw them to, anything."""
        peers = self.stage.peers
        pods = [self._running[name].pod for name in sorted(moving)]
        for pod in pods:
            peers.release(pod.metadata.namespace, pod.metadata.name)
        try:
            return ask()
        finally:
            for pod in pods:
                peers.note(pod)

    def _seated(self) -> list[str]:
        """Return the gangs with pods that run, by name."""
        return sorted(name for name, pods in self._of_gang.items() if pods and name in self.gangs)

    def _owner_of(self, gang: PodGang) -> PodCliqueSet | None:
        return self._sets.get(full_name(gang.metadata.namespace, gang.set_name))

    def budgets_of(self, name: str, told: Collection[str] = ()) -> tuple[tuple[str, int], ...]:
        """Return by standalone clique of a gang how many of its surplus pods may go, once some, by name, were told."""
        gang = self.gangs.get(name)
        if gang is None:
            return ()
        namespace = gang.metadata.namespace
        pods = [_unready(pod) if name_of(pod) in told else pod for pod in self._pods(name)]
        return surplus_budgets(
            gang,
            self._owner_of(gang),
            lambda clique: self._cliques.get(full_name(namespace, clique)),
            [*pods, *self._pending.get(name, ())],
        )

    def _remove(self, gangs: Iterable[str]) -> int:
        gone = list(gangs)
        self._gone.update(gone)
        for name in gone:
            with contextlib.suppress(ClusterError):
                # Nothing is kept for a gang that is gone.
                self.cluster.withdraw(name)
        pods = [pod for gang in gone for pod in self._of_gang.get(gang, ())]
        self.take_away(pods)
        return len(pods)

    def _pods(self, gang: str) -> list[Pod]:
        return [self._running[name].pod for name in self._of_gang.get(gang, ())]

    def _copy(self, gang: PodGang) -> list[Pod]:
        """Return the bound pods of a gang's copy."""
        of_copy = self._copies.get((gang.set_uid, gang.copy, gang.metadata.namespace), ())
        return [pod for name in of_copy for pod in self._pods(name) if pod.is_active]


def _unbound(pod: Pod) -> Pod:
    """Return a pod's successor after it lost its node: it goes back there, or near, if it can."""
    return replace(pod, node="", gpu_ids=(), previous_node=pod.node)


def _unready(pod: Pod) -> Pod:
    """Return the successor of a pod that was told to leave: it does not serve."""
    return replace(pod, node="", ready_at=None)


def _movable(pod: Pod) -> Pod:
    return replace(pod, node="", gpu_ids=(), previous_node="")


def _whole(name: str, asks: Sequence[Ask]) -> GangRequest | None:
    """Return one question for all pods of some questions, none of them optional."""
    if not asks:
        return None
    members = tuple(_firm(member) for ask in asks for member in ask.request.members)
    return replace(asks[0].request, name=name, members=members)


def _firm(member: CliqueRequest | GroupRequest) -> CliqueRequest | GroupRequest:
    if isinstance(member, CliqueRequest):
        return replace(member, minimum=member.minimum + member.optional, optional=0)
    return replace(member, members=tuple(_firm(each) for each in member.members))
