"""Seeded churn of nodes and gangs on placement, with an account of its own to compare with after every event.

Rules: one seed, one history. The account is kept pod by pod in plain dictionaries, apart from the ledger. After
each event every node's free amounts, GPUs and shares are compared with it; every answer passes `violations`; the counts
of one shape, which the cluster keeps up to date bit by bit, are compared with counting anew; and now and then a cluster
that is filled from nothing has to give the same answer.

`python -m tests.churn --events 100000 --seed 1` runs a long one (`make churn`).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    ClusterError,
    GangRequest,
    GroupRequest,
    NodeState,
    Placement,
    PodBinding,
    PodShape,
    StalePlacementError,
    Taint,
    Toleration,
    UnknownNodeError,
    Verdict,
    place,
)
from grove_server.placement.matching import is_eligible
from grove_server.placement.requests import PodRule, RuleKind
from grove_server.placement.violations import violations
from tests.placement_cases import BLOCK, HOST, RACK, TOPOLOGY, ZONE

NODES_MAX = 48
GANGS_MAX = 60
_REFILL_EVERY = 500
_LEVELS = (None, None, None, ZONE, BLOCK, RACK, HOST)


class ChurnError(AssertionError):
    """The cluster and the account disagree."""


@dataclass(slots=True)
class Held:
    """One pod's hold on a node; a promise holds nothing but keeps others off."""

    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...]


@dataclass(slots=True)
class Account:
    """What is where, by gang; `gone` are the states of nodes that were removed under their pods."""

    gangs: dict[str, list[Held]] = field(default_factory=dict)
    promised: dict[str, tuple[GangRequest, list[Held]]] = field(default_factory=dict)

    def on(self, node: str) -> Iterator[tuple[Held, bool]]:
        """Yield what is held on a node, and whether it is only promised."""
        for pods in self.gangs.values():
            for pod in pods:
                if pod.node == node:
                    yield pod, False
        for _, pods in self.promised.values():
            for pod in pods:
                if pod.node == node:
                    yield pod, True


class Churn:
    """One history. `counts` says what happened how often."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"churn {seed}")
        self.cluster = Cluster()
        self.account = Account()
        self.counts: Counter[str] = Counter()
        self.shapes = [self._shape() for _ in range(10)]
        self.number = 0
        for _ in range(NODES_MAX // 2):
            self.cluster.upsert_node(self._state(self._name()))

    def step(self) -> None:
        """Let one thing happen and check everything."""
        events = (
            (self.place_gang, 30),
            (self.release_gang, 8),
            (self.release_pod, 8),
            (self.adopt_pod, 4),
            (self.promise, 6),
            (self.keep, 4),
            (self.withdraw, 3),
            (self.add_node, 5),
            (self.remove_node, 4),
            (self.change_node, 20),
        )
        event = self.chance.choices([each for each, _ in events], [weight for _, weight in events])[0]
        before = self.cluster.generation
        self.counts[event()] += 1
        if self.cluster.generation < before:
            raise ChurnError("the generation went back")
        self.check()

    # -- gangs ---------------------------------------------------------------------------------------------------

    def place_gang(self) -> str:
        """Ask for a gang and take its places."""
        request = self._request()
        outcome = self._asked(request)
        if isinstance(outcome, Verdict):
            return "refused with proof" if outcome.proof else "given up"
        if len(self.account.gangs) >= GANGS_MAX:
            return "placed, not taken"
        self.cluster.reserve(outcome)
        self.account.gangs[request.name] = _held(outcome)
        return "placed"

    def release_gang(self) -> str:
        """Let a whole gang go."""
        if not self.account.gangs:
            return "nothing"
        pods = self.account.gangs.pop(self.chance.choice(sorted(self.account.gangs)))
        self.cluster.release_pods((pod.shape, [PodBinding(pod.node, pod.gpu_ids)]) for pod in pods)
        return "gang released"

    def release_pod(self) -> str:
        """Let one pod go."""
        if not self.account.gangs:
            return "nothing"
        name = self.chance.choice(sorted(self.account.gangs))
        pod = self.account.gangs[name].pop(self.chance.randrange(len(self.account.gangs[name])))
        if not self.account.gangs[name]:
            del self.account.gangs[name]
        self.cluster.release_pod(pod.node, pod.shape, pod.gpu_ids)
        return "pod released"

    def adopt_pod(self) -> str:
        """Register a pod that runs somewhere already, whatever room there is."""
        names = self.cluster.node_names()
        if not names or len(self.account.gangs) >= GANGS_MAX:
            return "nothing"
        node, shape = self.chance.choice(names), self.chance.choice(self.shapes)
        try:
            gpu_ids = self.cluster.bind_pod(node, shape)
        except ClusterError:
            return "adoption refused"
        self.account.gangs[self._gang_name()] = [Held(node, shape, gpu_ids)]
        return "pod adopted"

    def promise(self) -> str:
        """Promise a gang its places."""
        request = _without_optional(self._request())
        outcome = self._asked(request)
        if isinstance(outcome, Verdict) or len(self.account.promised) >= 6:
            return "no promise"
        self.cluster.promise(outcome)
        self.account.promised[request.name] = (request, _held(outcome))
        return "promised"

    def keep(self) -> str:
        """Keep a promise, if it can be kept."""
        if not self.account.promised:
            return "nothing"
        name = self.chance.choice(sorted(self.account.promised))
        try:
            placement = self.cluster.keep(name)
        except StalePlacementError:
            return "promise not kept yet"
        _, pods = self.account.promised.pop(name)
        if _held(placement) != pods:
            raise ChurnError(f"the promise to {name} was kept elsewhere")
        self.account.gangs[name] = pods
        return "promise kept"

    def withdraw(self) -> str:
        """Withdraw a promise."""
        if not self.account.promised:
            return "nothing"
        name = self.chance.choice(sorted(self.account.promised))
        self.cluster.withdraw(name)
        del self.account.promised[name]
        return "promise withdrawn"

    # -- nodes ---------------------------------------------------------------------------------------------------

    def add_node(self) -> str:
        """Add a node, or bring one back that left its pods behind."""
        if len(self.cluster.node_names()) >= NODES_MAX:
            return "nothing"
        known = set(self.cluster.node_names())
        lost = sorted({pod.node for pods in self.account.gangs.values() for pod in pods} - known)
        name = self.chance.choice(lost) if lost and self.chance.random() < 0.5 else self._name()
        self.cluster.upsert_node(self._state(name))
        return "node back" if name in lost else "node added"

    def remove_node(self) -> str:
        """Remove a node under its pods."""
        names = self.cluster.node_names()
        if len(names) <= NODES_MAX // 4:
            return "nothing"
        self.cluster.remove_node(self.chance.choice(names))
        return "node removed"

    def change_node(self) -> str:
        """Cordon, break, taint, relabel or resize a node."""
        names = self.cluster.node_names()
        name = self.chance.choice(names)
        state, fresh = self.cluster.node(name), self._state(name)
        kind = self.chance.choice(["cordon", "down", "taint", "relabel", "resize", "gpus"])
        if kind == "cordon":
            some = self.chance.sample(names, min(3, len(names)))
            self.cluster.set_schedulable(some, schedulable=self.chance.random() < 0.7)
            return kind
        changed = {
            "down": replace(state, ready=self.chance.random() < 0.8),
            "taint": replace(state, taints=fresh.taints),
            "relabel": replace(state, labels=fresh.labels),
            "resize": replace(state, allocatable=fresh.allocatable, gpu_islands=()),
            "gpus": replace(state, gpu_busy=fresh.gpu_busy),
        }[kind]
        self.cluster.upsert_node(changed)
        return kind

    # -- checks --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare every node and the counts of one shape with the account."""
        for name in self.cluster.node_names():
            self._check_node(name)
        self._check_counts()
        for name in self.cluster.broken_promises():
            if name not in self.account.promised:
                raise ChurnError(f"a promise to {name} is said to be broken, and there is none")

    def check_refilled(self) -> None:
        """Ask a cluster that is filled from nothing the same, and compare answers."""
        other = Cluster(self.cluster.node(name) for name in reversed(self.cluster.node_names()))
        for pods in self.account.gangs.values():
            for pod in pods:
                try:
                    other.bind_pod(pod.node, pod.shape, pod.gpu_ids)
                except UnknownNodeError:
                    continue
                except ClusterError:
                    # It lost GPUs that its pods hold; a server that starts then cannot enter these pods.
                    return
        if self.account.promised:
            return
        for _ in range(5):
            request = self._request()
            one, two = place(self.cluster, request), place(other, request)
            if replace(one, generation=0) != replace(two, generation=0):
                raise ChurnError(f"answers differ after filling anew: {one} and {two}")

    def _check_node(self, name: str) -> None:
        state = self.cluster.node(name)
        used: Counter[str] = Counter()
        whole: set[int] = set()
        promised: set[int] = set()
        shares: Counter[int] = Counter()
        for pod, is_promised in self.account.on(name):
            used["pods"] += 1
            for resource, amount in pod.shape.requests:
                used[resource] += amount
            if pod.shape.gpu_milli:
                shares.update(dict.fromkeys(pod.gpu_ids, pod.shape.gpu_milli))
            elif is_promised:
                promised.update(pod.gpu_ids)
            elif whole & set(pod.gpu_ids):
                raise ChurnError(f"node {name}: GPUs {pod.gpu_ids} are held twice")
            else:
                whole.update(pod.gpu_ids)
        usable = set(range(state.gpu_count)) - state.gpu_busy
        free_ids = usable - whole - promised - {gpu_id for gpu_id, milli in shares.items() if milli}
        if set(self.cluster.gpus_free_of(name)) != free_ids:
            raise ChurnError(f"node {name}: GPUs {self.cluster.gpus_free_of(name)} are said to be free, not {free_ids}")
        open_ids = {
            each: 1_000 - milli for each, milli in shares.items() if milli and each in usable - whole - promised
        }
        if self.cluster.gpu_shares_of(name) != dict(sorted(open_ids.items())):
            raise ChurnError(f"node {name}: shares {self.cluster.gpu_shares_of(name)}, not {open_ids}")
        free = self.cluster.free_of(name)
        for resource in ("pods", "cpu", "memory"):
            if free.get(resource, 0) != state.allocatable.get(resource, 0) - used[resource]:
                raise ChurnError(f"node {name}: {free.get(resource, 0)} of {resource} are said to be free")

    def _check_counts(self) -> None:
        shape = self.chance.choice(self.shapes)
        layout = self.cluster.layout(TOPOLOGY)
        counts = self.cluster.request_class(shape, layout).everywhere
        total = 0
        for position, slot in enumerate(layout.slots.tolist()):
            state = self.cluster.rules.states[slot]
            assert state is not None
            fits = self._fits(shape, state) if is_eligible(shape, state) else 0
            total += fits
            if int(counts[-1][position]) != fits:
                raise ChurnError(f"node {state.name}: {counts[-1][position]} pods are said to fit, not {fits}")
        if any(int(level.sum()) != total for level in counts):
            raise ChurnError("the sums of levels differ")

    def _fits(self, shape: PodShape, state: NodeState) -> int:
        free = self.cluster.free_of(state.name)
        amounts = {"pods": 1, **dict(shape.requests)}
        fits = min(max(0, free.get(resource, 0)) // amount for resource, amount in amounts.items() if amount)
        if shape.gpu_milli:
            shares = [milli // shape.gpu_milli for milli in self.cluster.gpu_shares_of(state.name).values()]
            whole = len(self.cluster.gpus_free_of(state.name)) * (1_000 // shape.gpu_milli)
            fits = min(fits, sum(shares) + whole)
        return fits

    def _asked(self, request: GangRequest) -> Placement | Verdict:
        outcome = place(self.cluster, request)
        wrong = violations(self.cluster, request, outcome)
        if wrong:
            raise ChurnError(f"{request}: {wrong}")
        return outcome

    # -- drawing -------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        self.number += 1
        return f"n{self.number:06}"

    def _gang_name(self) -> str:
        self.number += 1
        return f"gang-{self.number}"

    def _state(self, name: str) -> NodeState:
        chance = self.chance
        rack = chance.randrange(8)
        labels = {ZONE: f"z{rack // 4}", BLOCK: f"b{rack // 2}", RACK: f"r{rack}", HOST: name}
        for key in (ZONE, BLOCK, RACK):
            if chance.random() < 0.04:
                del labels[key]
        gpu_count = chance.choice((0, 2, 4, 8, 8))
        return NodeState(
            name=name,
            labels=labels,
            allocatable={
                "cpu": chance.randrange(4, 65),
                "memory": chance.randrange(8, 257),
                "pods": chance.choice((4, 16, 110)),
                GPU_RESOURCE: gpu_count,
            },
            taints=(Taint(key="dedicated", value="train"),) if chance.random() < 0.3 else (),
            unschedulable=chance.random() < 0.05,
            ready=chance.random() > 0.05,
            gpu_busy=frozenset({chance.randrange(8)}) if chance.random() < 0.2 else frozenset(),
            gpu_islands=((0, 1, 2, 3), (4, 5, 6, 7)) if gpu_count == 8 and chance.random() < 0.5 else (),
        )

    def _shape(self) -> PodShape:
        chance = self.chance
        gpu_count = chance.choice((0, 0, 1, 1, 2, 4, 8))
        milli = 0 if gpu_count else chance.choice((0, 100, 250, 300, 500, 700))
        requests = {"cpu": chance.randrange(1, 9), "memory": chance.randrange(1, 17), GPU_RESOURCE: gpu_count}
        return PodShape(
            requests=tuple((resource, amount) for resource, amount in sorted(requests.items()) if amount),
            gpu_milli=milli,
            tolerations=(Toleration(operator="Exists"),) if chance.random() < 0.3 else (),
            node_selector=((ZONE, "z0"),) if chance.random() < 0.1 else (),
        )

    def _request(self) -> GangRequest:
        chance = self.chance
        members: list[CliqueRequest | GroupRequest] = []
        for index in range(chance.choice((1, 1, 1, 2, 3))):
            if chance.random() < 0.7:
                members.append(self._clique(f"c{index}"))
            else:
                inner = tuple(self._clique(f"g{index}-{number}") for number in range(chance.choice((1, 2))))
                members.append(GroupRequest(name=f"g{index}", members=inner, required=chance.choice(_LEVELS)))
        required, preferred = chance.choice(_LEVELS), chance.choice(_LEVELS)
        request = GangRequest(
            name=self._gang_name(), members=tuple(members), topology=TOPOLOGY, required=required, preferred=preferred
        )
        return replace(request, rules=tuple(self._rules(request)))

    def _rules(self, request: GangRequest) -> Iterator[PodRule]:
        """Draw a rule between the pods of two cliques, or of one, now and then."""
        if self.chance.random() < 0.2:
            cliques = sorted(_cliques(request))
            yield PodRule(
                kind=self.chance.choice((RuleKind.APART, RuleKind.APART, RuleKind.TOGETHER)),
                key=self.chance.choice((ZONE, RACK, HOST)),
                cliques=(self.chance.choice(cliques),),
                others=(self.chance.choice(cliques),),
                counts=(("z0", 1),) if self.chance.random() < 0.2 else (),
            )

    def _clique(self, name: str) -> CliqueRequest:
        return CliqueRequest(
            name=name,
            shape=self.chance.choice(self.shapes),
            minimum=self.chance.choice((1, 1, 2, 3, 5)),
            optional=self.chance.choice((0, 0, 0, 2)),
        )


def _cliques(scope: GangRequest | GroupRequest) -> Iterator[str]:
    for member in scope.members:
        if isinstance(member, CliqueRequest):
            yield member.name
        else:
            yield from _cliques(member)


def _without_optional(request: GangRequest) -> GangRequest:
    def strip(member: CliqueRequest | GroupRequest) -> CliqueRequest | GroupRequest:
        if isinstance(member, CliqueRequest):
            return replace(member, optional=0)
        return replace(member, members=tuple(map(strip, member.members)))

    return replace(request, members=tuple(map(strip, request.members)))


def _held(placement: Placement) -> list[Held]:
    return [Held(each.node, clique.shape, each.gpu_ids) for clique in placement.cliques for each in clique.bindings]


def run(seed: int, events: int) -> Churn:
    """Run one history; ChurnError, with the number of the event, if something is wrong."""
    churn = Churn(seed)
    for number in range(events):
        try:
            churn.step()
            if number % _REFILL_EVERY == _REFILL_EVERY - 1:
                churn.check_refilled()
        except Exception as error:
            error.add_note(f"seed {seed}, event {number}")
            raise
    return churn


def main() -> int:
    """Run a long history and say what happened in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.churn", description="Churn of nodes and gangs on placement.")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    churn = run(options.seed, options.events)
    sys.stdout.write(f"{options.events} events of seed {options.seed} in {time.monotonic() - start:.0f} s\n")
    sys.stdout.writelines(f"{count:8} {name}\n" for name, count in churn.counts.most_common())
    return 0


if __name__ == "__main__":
    sys.exit(main())
