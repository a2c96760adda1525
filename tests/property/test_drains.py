"""Drains over random histories: no router is left with a pod that stops under it, and no pod waits for ever.

A machine plays one set: people scale it and delete its pods; routers come, answer, fall silent and leave; pods crash;
time passes. After each step a pass runs, and what it stopped is held against what the routers knew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from grove_server.lifecycle.orders import CopyOrders, RouterLease
from grove_server.lifecycle.removal import DrainEnd, StopReason, drain_end, stopped
from grove_server.resources.workload import Pod, PodClique
from tests.lifecycle_cases import World, clique, group, lost, world

LEASE_S: Final = 15.0
TIMEOUT_S: Final = 20.0
ROUTERS: Final = ("r1", "r2", "r3")
CLIQUE: Final = "s-0-a"
GROUP: Final = "s-0-g"


class Drains(RuleBasedStateMachine):
    """One copy, its routers, and what became of its pods."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = world([clique("a", 3, 1), clique("b")], [group("g", ["b"], 2, 1)])
        self.due_s: dict[str, float] = {}
        self.began: dict[str, Pod] = {}
        self.turn()
        self.pods_start()
        self.router_speaks("r1")

    # What happens.

    @rule(size=st.integers(0, 4))
    def scale_clique(self, size: int) -> None:
        """Resize the clique."""
        self.world.scale_clique(CLIQUE, size)
        self.turn()

    @rule(size=st.integers(0, 3))
    def scale_group(self, size: int) -> None:
        """Resize the group."""
        self.world.scale_group(GROUP, size)
        self.turn()

    @rule(router=st.sampled_from(ROUTERS))
    def router_speaks(self, router: str) -> None:
        """A router comes, or renews."""
        self.due_s[router] = self.world.now + LEASE_S
        self.turn()

    @precondition(lambda self: self.due_s)
    @rule(data=st.data())
    def router_leaves(self, data: st.DataObject) -> None:
        """A router says goodbye."""
        del self.due_s[data.draw(st.sampled_from(sorted(self.due_s)))]
        self.turn()

    @precondition(lambda self: self.draining)
    @rule(data=st.data(), router=st.sampled_from(ROUTERS))
    def router_answers(self, data: st.DataObject, router: str) -> None:
        """A router has left some draining pod."""
        pod = data.draw(st.sampled_from(self.draining))
        if router not in pod.drain_acks:
            self.world.put(replace(pod, drain_acks=(*pod.drain_acks, router)))
        self.turn()

    @precondition(lambda self: self.world.pods())
    @rule(data=st.data())
    def somebody_deletes(self, data: st.DataObject) -> None:
        """A person deletes a pod, as the API does."""
        pod = data.draw(st.sampled_from(self.world.pods()))
        if pod.node:
            self.world.put(stopped(pod, StopReason.DELETED, self.orders, self.world.now))
        self.turn()

    @rule(data=st.data())
    def pod_crashes(self, data: st.DataObject) -> None:
        """A pod that runs loses its container."""
        running = [pod for pod in self.world.of(Pod) if pod.is_ready and not pod.is_terminating]
        if running:
            self.world.put(lost(data.draw(st.sampled_from(running)), self.world.now))
        self.turn()

    @rule()
    def pods_start(self) -> None:
        """All pods get nodes and serve; stopped ones go."""
        self.world.run([pod for pod in self.world.pods() if not pod.is_ready])
        self.world.reap()
        self.turn()

    @rule(seconds=st.sampled_from([1.0, 6.0, 14.0, 15.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        """The clock moves on, with passes only where one was asked for."""
        until = self.world.now + seconds
        while (wake := self.world.last.wake_at) is not None and wake <= until:
            assert wake > self.world.now, "a pass asked to be woken in the past"
            self.world.now = wake
            self.turn()
        self.world.now = until

    # What is checked.

    def turn(self) -> None:
        """Run a pass and look at what it stopped."""
        before = {pod.metadata.uid: pod for pod in self.world.of(Pod)}
        self.world.orders = self.orders
        self.world.step()
        # Time stands still in most steps, and what is made anew in the same moment has the same uid.
        present = {pod.metadata.uid for pod in self.world.of(Pod)}
        self.began = {uid: pod for uid, pod in self.began.items() if uid in present}
        for pod in self.world.of(Pod):
            old = before.get(pod.metadata.uid)
            if old is not None and pod.is_terminating and not old.is_terminating:
                self.check_stop(old, pod)
            if pod.is_draining:
                first = self.began.setdefault(pod.metadata.uid, pod)
                assert (pod.draining_at, pod.drain_deadline, pod.stop_reason) == (
                    first.draining_at,
                    first.drain_deadline,
                    first.stop_reason,
                ), "a drain was started twice"

    def check_stop(self, old: Pod, pod: Pod) -> None:
        """A ready pod stops only with every living router's word, or at its deadline."""
        living = {router for router, due_s in self.due_s.items() if due_s > self.world.now}
        if not old.is_ready or not living:
            return
        assert old.is_draining, "a pod that routers use was stopped without a word"
        assert old.drain_deadline is not None
        if drain_end(pod) is DrainEnd.DEADLINE:
            assert self.world.now >= old.drain_deadline
        else:
            assert living <= set(old.drain_acks), "a router was not waited for"

    @property
    def orders(self) -> CopyOrders:
        """What the loop would gather now."""
        leases = tuple(RouterLease(router=name, expires_at=due_s) for name, due_s in sorted(self.due_s.items()))
        return CopyOrders(routers=leases, drain_timeout_s=TIMEOUT_S)

    @property
    def draining(self) -> list[Pod]:
        """The pods that drain."""
        return [pod for pod in self.world.of(Pod) if pod.is_draining and not pod.is_terminating]

    @invariant()
    def nobody_waits_past_the_deadline(self) -> None:
        """A draining pod has time left, and a pass comes before it is over."""
        for pod in self.draining:
            assert pod.drain_deadline is not None
            assert pod.drain_deadline > self.world.now
            assert self.world.last.wake_at is not None
            assert self.world.last.wake_at <= pod.drain_deadline

    @invariant()
    def draining_pods_count_nowhere(self) -> None:
        """A clique's size is made of other pods, and its status counts only those."""
        status = self.world.one(PodClique, CLIQUE).status
        pods = self.world.pods(CLIQUE)
        assert len(pods) == self.world.one(PodClique, CLIQUE).replicas
        assert status.ready_replicas <= len(pods)
        leaving = [pod for pod in self.world.of(Pod) if pod.identity.name == CLIQUE and not pod.is_active]
        assert status.terminating_replicas == len(leaving)

    def teardown(self) -> None:
        """Whatever was, all drains are over when the longest time has passed."""
        self.time_passes(TIMEOUT_S)
        assert self.draining == []


Drains.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDrains = Drains.TestCase
