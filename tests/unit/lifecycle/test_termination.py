"""Gang termination: clocks, units, back-off, and what survives a recycle."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.lifecycle.gang_status import displaced
from grove_server.lifecycle.termination import RECYCLES_KEPT_MAX
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodGang
from tests.lifecycle_cases import NOW, World, bound, clique, condition, group, lost, manifest, world

DELAY_S = 10.0


def workload1(**more: Any) -> World:  # noqa: ANN401 -- fields of the manifest
    """Return a running copy: pc-a 2 of 2; group sg-x 2 of 2 of pc-b 1, pc-c 3 of 3. Ten pods, nothing to spare."""
    return running([clique("a", 2), clique("b"), clique("c", 3)], [group("x", ["b", "c"], 2, 2)], **more)


def workload2(**more: Any) -> World:  # noqa: ANN401 -- fields of the manifest
    """Return a running copy: pc-a 2 of 1; group sg-x 2 of 1 of pc-b 1, pc-c 3 of 1. Ten pods."""
    return running([clique("a", 2, 1), clique("b"), clique("c", 3, 1)], [group("x", ["b", "c"], 2, 1)], **more)


def running(cliques: list[Any], groups: list[Any], **more: Any) -> World:  # noqa: ANN401 -- fields of the manifest
    """Return a copy that has a delay of 10 s and runs."""
    made = world(cliques, groups, **{"terminationDelay": "10s", **more})
    made.settle()
    made.run()
    made.settle()
    return made


def lose(made: World, clique_name: str, count: int = 1) -> None:
    """Let pods of a clique go for good: their replacements get no node."""
    made.change_pods(lambda _: None, [pod for pod in made.pods(clique_name) if pod.node][:count])
    made.settle()


def uids(made: World, clique_name: str = "") -> set[str]:
    """Return the uids of the active pods."""
    return {pod.metadata.uid for pod in made.pods(clique_name)}


def after(made: World, seconds: float) -> World:
    """Let time pass and look at the copy."""
    made.now += seconds
    made.step()
    made.reap()
    return made


def test_gt1_a_standalone_clique_below_its_minimum_recycles_the_copy() -> None:
    """Nothing happens before the delay has run out; then all ten pods are replaced, and ten run again."""
    made = workload1()
    lose(made, "s-0-a")
    before = uids(made)
    assert made.plan()[0].wake_at == NOW + DELAY_S
    assert uids(after(made, DELAY_S - 0.001)) == before
    assert not uids(after(made, 0.001)) & before
    assert len(made.pods()) == 10
    made.run()
    made.settle()
    assert made.owner.status.available_replicas == 1


def test_gt2_a_group_below_its_minimum_recycles_the_copy() -> None:
    """A group that has no replica to spare takes the copy with it."""
    made = workload1()
    lose(made, "s-0-x-0-c")
    before = uids(made)
    assert not uids(after(made, DELAY_S)) & before
    (told,) = [note for note in made.last.notes if note.reason == "GangTerminated"]
    assert told.name == "s-0"
    assert "s-0-x was broken for 10 s" in told.message


def test_gt3_only_a_lost_minimum_counts() -> None:
    """A clique with a pod to spare recycles nothing; when that is gone too, everything."""
    made = workload2()
    lose(made, "s-0-a")
    before = uids(made)
    assert uids(after(made, 100 * DELAY_S)) == before
    lose(made, "s-0-a")
    before = uids(made)
    assert not uids(after(made, DELAY_S)) & before


def test_gt4_a_group_replica_alone_then_the_copy() -> None:
    """A replica that its group can spare is recycled alone; when the next one breaks, the copy is."""
    made = workload2()
    lose(made, "s-0-x-0-c")
    before = uids(made)
    assert uids(after(made, 100 * DELAY_S)) == before
    lose(made, "s-0-x-0-c", 2)
    by_clique = {name: uids(made, name) for name in made.names(PodClique)}
    after(made, DELAY_S)
    replaced = {name for name, pods in by_clique.items() if not uids(made, name) & pods}
    kept = {name for name, pods in by_clique.items() if uids(made, name) == pods}
    assert replaced == {"s-0-x-0-b", "s-0-x-0-c"}
    assert kept == {"s-0-a", "s-0-x-1-b", "s-0-x-1-c"}
    lose(made, "s-0-x-1-c")
    everything = uids(made)
    assert uids(after(made, 100 * DELAY_S)) == everything
    lose(made, "s-0-x-1-c", 2)
    everything = uids(made)
    assert not uids(after(made, DELAY_S)) & everything


def test_what_never_worked_is_left_alone() -> None:
    """A copy that never found its nodes waits for them for ever, and asks for no look at a clock."""
    made = world([clique("a")], terminationDelay="10s")
    made.settle()
    before = uids(made)
    assert uids(after(made, 1_000_000)) == before
    assert made.last.wake_at is None


def test_what_was_recycled_and_never_came_back_is_left_alone() -> None:
    """After a recycle a unit has to work before its clock runs again."""
    made = workload1()
    lose(made, "s-0-a")
    after(made, DELAY_S)
    before = uids(made)
    assert uids(after(made, 1_000_000)) == before


def test_starting_pods_are_not_broken() -> None:
    """A pod that is merely slow to start breaks nothing, however long it takes."""
    made = world([clique("a")], terminationDelay="10s")
    made.settle()
    made.change_pods(bound)
    made.settle()
    before = uids(made)
    assert uids(after(made, 1_000_000)) == before


def test_a_breach_that_heals_resets_its_clock() -> None:
    """Only an unbroken breach counts: what comes back in between starts anew."""
    made = workload1()
    made.change_pods(lost, made.pods("s-0-a")[:1])
    made.settle()
    after(made, DELAY_S - 1)
    made.run(made.pods("s-0-a"))
    made.settle()
    made.change_pods(lost, made.pods("s-0-a")[:1])
    made.settle()
    before = uids(made)
    assert uids(after(made, DELAY_S - 1)) == before
    assert not uids(after(made, 1)) & before


@pytest.mark.parametrize(
    ("of_set", "of_group", "due_s"),
    [("10s", None, 10), ("10s", "never", None), ("never", "20s", 20), ("never", None, None), ("10s", "1m", 60)],
)
def test_a_group_may_have_its_own_delay(of_set: str, of_group: str | None, due_s: float | None) -> None:
    """The group's delay stands in front of the set's, and either may be switched off."""
    own = {} if of_group is None else {"terminationDelay": of_group}
    made = running([clique("a"), clique("b")], [group("x", ["b"], 1, 1, **own)], terminationDelay=of_set)
    lose(made, "s-0-x-0-b")
    assert made.plan()[0].wake_at == (None if due_s is None else NOW + due_s)
    before = uids(made)
    if due_s is None:
        assert uids(after(made, 1_000_000)) == before
    else:
        assert not uids(after(made, due_s)) & before


def test_never_switched_off_for_a_standalone_clique() -> None:
    """With ``never`` a broken clique waits for its pods and nothing else is touched."""
    made = workload1(terminationDelay="never")
    lose(made, "s-0-a")
    before = uids(made)
    assert uids(after(made, 1_000_000)) == before


def broken_again(made: World, worked_s: float = 1.0) -> float:
    """Let what was recycled run for a while and break again; return how long its clock runs."""
    made.run()
    made.settle()
    made.now += worked_s
    made.change_pods(lost, made.pods("s-0-a")[:1])
    made.settle()
    wake_at = made.plan()[0].wake_at
    assert wake_at is not None
    return wake_at - made.now


def test_repetitions_back_off() -> None:
    """The first recycle comes after the delay; each repetition waits twice as long, up to six hours."""
    made = workload1()
    waits = []
    for _ in range(14):
        waits.append(broken_again(made))
        after(made, waits[-1])
    assert waits == [min(10 * 2**n, 6 * 3600) for n in range(14)]
    counts = [recycle.count for recycle in made.one(PodGang, "s-0").status.recycles]
    assert counts == list(range(14 - RECYCLES_KEPT_MAX + 1, 15))


def test_a_delay_longer_than_the_longest_back_off_stays() -> None:
    """With a delay of a day a repetition waits a day."""
    made = workload1(terminationDelay="24h")
    for _ in range(3):
        assert broken_again(made) == 24 * 3600
        after(made, 24 * 3600)


def test_what_held_for_a_while_is_forgiven() -> None:
    """After ten minutes of work a unit counts as never recycled; the history keeps it all the same."""
    made = workload1()
    for _ in range(3):
        after(made, broken_again(made))
    assert broken_again(made, worked_s=600) == DELAY_S
    after(made, DELAY_S)
    assert [recycle.count for recycle in made.one(PodGang, "s-0").status.recycles] == [1, 2, 3, 1]


def test_replicas_of_a_group_back_off_each_on_its_own() -> None:
    """The repetitions of one group replica do not slow down the first recycle of another."""
    made = workload2()
    for expected_s in (10, 20):
        made.change_pods(lost, made.pods("s-0-x-0-c"))
        made.settle()
        assert made.plan()[0].wake_at == made.now + expected_s
        after(made, expected_s)
        made.run()
        made.settle()
    made.change_pods(lost, made.pods("s-0-x-1-c"))
    made.settle()
    assert made.plan()[0].wake_at == made.now + 10
    history = made.one(PodCliqueScalingGroup, "s-0-x").status.recycles
    assert [(r.scope, r.group_replica, r.count) for r in history] == [("GroupReplica", 0, 1), ("GroupReplica", 0, 2)]


def test_recovery_keeps_the_scaled_sizes() -> None:
    """#826, #796: sizes set by scale calls are those after the recycle, of cliques and of groups."""
    made = workload2()
    made.scale_clique("s-0-a", 5)
    made.scale_group("s-0-x", 4)
    made.settle()
    made.run()
    made.settle()
    lose(made, "s-0-a", 5)
    before = uids(made)
    after(made, DELAY_S)
    assert not uids(made) & before
    assert len(made.pods("s-0-a")) == 5
    assert made.one(PodCliqueScalingGroup, "s-0-x").replicas == 4
    assert len(made.pods()) == 5 + 4 * 4


def test_what_is_at_size_zero_is_never_broken() -> None:
    """#677, #676: workers scaled to zero do not get the router killed."""
    made = running([clique("router"), clique("w", 2)], [group("g", ["w"], 2, 1)])
    made.scale_group("s-0-g", 0)
    made.settle()
    made.reap()
    before = uids(made)
    assert uids(after(made, 1_000_000)) == before == uids(made, "s-0-router")


def test_a_ready_pod_with_an_old_crash_is_not_broken() -> None:
    """#697: a pod that crashed once and serves again counts as serving."""
    made = running([clique("a")], [])
    made.change_pods(lost)
    made.settle()
    made.run()
    made.settle()
    before = uids(made)
    assert uids(after(made, 1_000_000)) == before


def test_a_recycled_copy_says_so_until_it_is_back() -> None:
    """GangTerminationInProgress stands on each group of a recycled copy until the group has its minimum again."""
    made = workload1()
    lose(made, "s-0-a")
    after(made, DELAY_S)
    active = condition(made.one(PodCliqueScalingGroup, "s-0-x"), "GangTerminationInProgress")
    assert (active.status, active.reason) == ("True", "GangTerminationActive")
    made.run()
    made.settle()
    over = condition(made.one(PodCliqueScalingGroup, "s-0-x"), "GangTerminationInProgress")
    assert (over.status, over.reason) == ("False", "GangTerminationOver")


def test_recycled_pods_stop_as_recycled() -> None:
    """Pods with a node are asked to stop and say why; their replacements do not wait for their end."""
    made = workload1()
    lose(made, "s-0-a")
    made.now += DELAY_S
    made.step()
    stopping = [pod for pod in made.of(Pod) if pod.is_terminating]
    assert {pod.stop_reason for pod in stopping} == {"Recycled"}
    assert len(stopping) == 9
    assert len(made.pods()) == 10


def test_other_copies_are_left_alone() -> None:
    """A recycle is of one copy; the others keep their pods."""
    made = running([clique("a", 2)], [], replicas=2)
    lose(made, "s-0-a")
    others = uids(made, "s-1-a")
    made.now += DELAY_S
    made.settle()
    assert uids(made, "s-1-a") == others
    assert {pod.stop_reason for pod in made.of(Pod) if pod.is_terminating} == {"Recycled"}


def test_switching_it_off_ends_a_clock() -> None:
    """An edit to ``never`` takes effect on a breach under way, and so does an edit back."""
    made = running([clique("a", 2)], [])
    lose(made, "s-0-a")
    made.apply(manifest([clique("a", 2)], terminationDelay="never"))
    before = uids(made)
    assert uids(after(made, DELAY_S)) == before
    made.apply(manifest([clique("a", 2)], terminationDelay="5s"))
    assert not uids(after(made, 0)) & before


def preempt(made: World, gang: str) -> None:
    """Let all pods of a gang leave for another one, as placement commits it; their successors get no node."""
    made.put(displaced(made.one(PodGang, gang), "Preempted", "for t-0", now=made.now))
    made.change_pods(lambda _: None, [pod for pod in made.pods() if pod.node and pod.identity.gang == gang])
    made.settle()


def test_a_copy_that_had_to_leave_is_not_recycled() -> None:
    """Preemption breaks nothing: no clock runs while the gang waits for places, and later losses count as before."""
    made = workload1()
    preempt(made, "s-0")
    before = uids(made)
    assert condition(made.one(PodClique, "s-0-a"), "MinAvailableBreached").reason == "Preempted"
    assert made.plan()[0].wake_at is None
    assert uids(after(made, 100 * DELAY_S)) == before
    made.run()
    made.settle()
    assert condition(made.one(PodGang, "s-0"), "DisruptionTarget").status == "False"
    lose(made, "s-0-a")
    assert made.plan()[0].wake_at == made.now + DELAY_S


def test_a_group_that_lost_replicas_to_others_is_not_recycled() -> None:
    """A group below its minimum because a base gang had to leave does not count as broken."""
    made = workload2()
    preempt(made, "s-0")
    assert condition(made.one(PodCliqueScalingGroup, "s-0-x"), "MinAvailableBreached") is not None
    assert made.plan()[0].wake_at is None
