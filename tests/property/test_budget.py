"""One availability budget for all who take what serves: updates, node drains, scale-in and gang termination together.

Everything happens at random and at the same time. Whoever takes units, no single pass leaves fewer serving than the
budget allows, unless fewer served before; only what is broken is recycled, and it takes no sound copy with it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grove_server.lifecycle.orders import CopyOrders, NodeTrouble
from grove_server.lifecycle.rollout.progress import advance, turns
from grove_server.lifecycle.set_pass import with_set_status
from grove_server.lifecycle.termination import GANG_TERMINATED
from grove_server.resources.meta import Kind
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup
from tests.lifecycle_cases import Json, World, admitted, clique, failed, group, lost, manifest, ready

MEMBERS: Final = {"m": 1, "n": 2}
NODES: Final = ("n0", "n1", "n2")
COPIES: Final = 2
DELAY_S: Final = 30.0
ACTIONS: Final = (
    *("start", "start all", "start all", "start all", "crash", "fail", "reap", "wait"),
    *("edit", "edit", "resize", "grow", "shrink", "drain", "drain", "down", "heal", "heal"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes, minimums and budgets of one clique and one group."""

    strategy: str
    size: int
    replicas: int
    unavailable: int
    surge: int
    version: int = 1

    def document(self) -> Json:
        """Return the manifest."""
        spec: Json = {"podSpec": {"containers": [{"name": "main", "image": f"registry.example/app:{self.version}"}]}}
        budget: Json = {"maxUnavailable": self.unavailable}
        if self.strategy != "Coherent":
            budget["maxSurge"] = self.surge
        members = [clique(name, count, count, **spec) for name, count in MEMBERS.items()]
        document = manifest(
            [clique("a", self.size, 1, **spec), *members],
            [group("g", MEMBERS, self.replicas, 1, rollingUpdate=budget)],
            replicas=COPIES,
            terminationDelay=f"{DELAY_S:g}s",
        )
        document["spec"]["template"]["cliques"][0]["rollingUpdate"] = budget
        document["spec"]["updateStrategy"] = {"type": self.strategy}
        return document


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """Return sizes that admission accepts."""
    strategy = draw(st.sampled_from(["RollingRecreate", "OnDelete", "Coherent"]))
    surge = 0 if strategy == "Coherent" else draw(st.integers(0, 2))
    return Sizes(
        strategy=strategy,
        size=draw(st.integers(1, 6)),
        replicas=draw(st.integers(1, 4)),
        unavailable=draw(st.integers(0 if surge else 1, 3)),
        surge=surge,
    )


@dataclass(slots=True)
class Mix:
    """A set to which everything happens."""

    sizes: Sizes
    world: World
    scaled_in: set[tuple[int, int]] = field(default_factory=set)

    def play(self, action: str, chance: int) -> None:
        """Let something happen, and check every pass that follows."""
        self.world.now += 1.0
        self.scaled_in = set()
        pods = self.world.pods()
        if pods:
            self._act(action, chance, pods[chance % len(pods)])
        while True:
            had = turns(self.world.owner)
            for copy in range(COPIES):
                self.checked_pass(copy)
            update = advance(self.world.owner, self.world.totals, now=self.world.now, settle_s=0.0)
            self.world.owner = with_set_status(self.world.owner, self.world.totals, None, update, now=self.world.now)
            if turns(self.world.owner) == had:
                return

    def checked_pass(self, copy: int) -> None:
        """Look at one copy; what serves in it and in the others stays within the budget."""
        others = [self.serving(other) for other in range(COPIES) if other != copy]
        pods, replicas = self.serving(copy)
        broken = self.is_broken(copy)
        plan = self.world.step(copy)
        assert [self.serving(other) for other in range(COPIES) if other != copy] == others
        if any(note.reason == GANG_TERMINATED and note.kind is Kind.POD_GANG for note in plan.notes):
            assert broken, "a sound copy was recycled"
            return
        left_pods, left_replicas = self.serving(copy)
        size, group_size = self.wanted(copy)
        # A drained node may always take one unit.
        missing = max(1, self.sizes.unavailable) if self.world.orders.nodes else self.sizes.unavailable
        assert left_pods >= min(pods, size - missing), (pods, left_pods, size, plan.reasons)
        had = sum((copy, j) not in self.scaled_in for j in replicas)
        assert len(left_replicas) >= min(had, group_size - missing), (replicas, left_replicas, group_size, plan.reasons)

    def serving(self, copy: int) -> tuple[int, list[int]]:
        """Return how many pods of the clique and which replicas of the group serve."""
        counts = Counter(pod.identity.name for pod in self.world.pods() if pod.is_ready)
        whole = [j for j in range(8) if all(counts[f"s-{copy}-g-{j}-{n}"] >= c for n, c in MEMBERS.items())]
        return counts[f"s-{copy}-a"], whole

    def is_broken(self, copy: int) -> bool:
        """Return whether the clique or the group of a copy is below its minimum of 1."""
        pods, replicas = self.serving(copy)
        return not pods or not replicas

    def wanted(self, copy: int) -> tuple[int, int]:
        """Return the live sizes of clique and group."""
        of_group = self.world.one(PodCliqueScalingGroup, f"s-{copy}-g")
        return self.world.one(PodClique, f"s-{copy}-a").replicas, of_group.replicas

    def _act(self, action: str, chance: int, pod: Pod) -> None:
        world, now = self.world, self.world.now
        node = NODES[chance % len(NODES)]
        match action:
            case "start":
                world.change_pods(self._started, [pod])
            case "start all":
                world.change_pods(self._started)
            case "crash":
                world.change_pods(lambda p: lost(p, now), [pod])
            case "fail":
                world.change_pods(lambda p: failed(p, now), [pod])
            case "reap":
                world.reap()
            case "wait":
                world.now += (5.0, DELAY_S, 400.0)[chance % 3]
            case "edit" | "resize":
                self._edit(action, chance)
            case "grow" | "shrink":
                self._scale(chance % COPIES, 1 if action == "grow" else -1, is_group=chance % 4 < COPIES)
            case "down":
                self._trouble(node, NodeTrouble(not_ready_since=now))
                world.change_pods(lambda p: lost(p, now) if p.is_ready and p.node == node else p)
            case _:
                self._trouble(node, NodeTrouble(draining_since=now) if action == "drain" else None)

    def _started(self, pod: Pod) -> Pod:
        node = pod.node or next((n for n in NODES if n not in self.world.orders.nodes), "")
        trouble = self.world.orders.nodes.get(node)
        if not node or pod.is_ready or (trouble is not None and trouble.not_ready_since is not None):
            return pod
        # Spread over the nodes, so that each has a part of everything.
        spread = NODES[(pod.index + max(pod.identity.group_replica, 0)) % len(NODES)]
        return ready(
            replace(pod, node=pod.node or (spread if spread not in self.world.orders.nodes else node)), self.world.now
        )

    def _trouble(self, node: str, trouble: NodeTrouble | None) -> None:
        troubles = {name: each for name, each in self.world.orders.nodes.items() if name != node}
        self.world.orders = CopyOrders(nodes=troubles if trouble is None else {**troubles, node: trouble})

    def _edit(self, action: str, chance: int) -> None:
        before = [self.wanted(copy)[1] for copy in range(COPIES)]
        if action == "edit":
            self.sizes = replace(self.sizes, version=self.sizes.version + 1)
        else:
            self.sizes = replace(self.sizes, size=1 + chance % 6, replicas=1 + chance % 4)
        self.world.apply(self.sizes.document())
        if action == "resize":
            self.scaled_in = {(c, j) for c in range(COPIES) for j in range(self.sizes.replicas, before[c])}

    def _scale(self, copy: int, step: int, *, is_group: bool) -> None:
        size, replicas = self.wanted(copy)
        if is_group:
            self.scaled_in = {(copy, replicas - 1)} if step < 0 else set()
            self.world.scale_group(f"s-{copy}-g", min(5, max(1, replicas + step)))
        else:
            self.world.scale_clique(f"s-{copy}-a", min(7, max(1, size + step)))


@given(
    sizes=sizes(), actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 59)), min_size=5, max_size=30)
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_budget_holds_whoever_takes(sizes: Sizes, actions: list[tuple[str, int]]) -> None:
    """Updates, drains, scale-in and termination of other copies share one budget in each clique and group."""
    mix = Mix(sizes, World(owner=admitted(sizes.document())))
    mix.play("start all", 0)
    mix.play("start all", 0)
    for action, chance in actions:
        mix.play(action, chance)
