"""Fake pods and their addresses over generated histories.

Goal: no behaviour makes a pod write without end or contradict itself, and no two living pods share an address. Method:
one pod is advanced through generated times under a generated behaviour; addresses are compared with a dict.
"""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import Pod, PodPhase
from grove_server.runtime.addresses import PodAddresses
from grove_server.runtime.behaviour import Behaviour
from grove_server.runtime.schedule import NEVER, advance
from tests.unit.runtime.simulated import EPOCH_S, node, pod

# What one pod may write at one moment: started, crashed and restarted, ready, crashed again.
WRITES_AT_ONCE_MAX = 4

delays = st.sampled_from([0.0, 0.5, 1.0, 5.0, 60.0, 700.0])
behaviours = st.builds(
    Behaviour,
    start_delay_s=delays,
    ready_delay_s=delays,
    crash_after_s=st.none() | delays,
    crash_times=st.none() | st.integers(0, 4),
    exit_code=st.integers(0, 2),
    stop_delay_s=delays,
    ignores_sigterm=st.booleans(),
    grace_period_s=delays,
    restart_policy=st.sampled_from(["Always", "OnFailure", "Never"]),
)


def assert_consistent(before: Pod, after: Pod, now: float) -> None:
    """Check what holds for every write."""
    assert after != before
    assert after.restart_count - before.restart_count in (0, 1)
    if after.ready_at is not None:
        assert after.phase is PodPhase.RUNNING
        assert after.started_at is not None
        assert after.started_at <= after.ready_at <= now
        assert after.waiting_reason == ""
    if after.phase is PodPhase.RUNNING:
        assert after.pod_ip
    assert (after.finished_at is not None) == (after.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED))
    if after.restart_count:
        assert after.last_exit_code is not None


@given(behaviours, st.lists(st.tuples(st.sampled_from([0.0, 0.1, 3.0, 90.0, 5_000.0]), st.booleans()), max_size=30))
def test_a_pod_settles_at_every_moment(behaviour: Behaviour, history: list[tuple[float, bool]]) -> None:
    """Whatever passes, a pod comes to rest after a few writes, and every write makes sense."""
    now = EPOCH_S
    subject = pod()
    for passed_s, is_up in history:
        now += passed_s
        for _ in range(WRITES_AT_ONCE_MAX + 1):
            step = advance(subject, behaviour, node(ready=is_up), pod_ip="10.0.0.1", now=now)
            assert not step.is_gone
            if step.pod is None:
                break
            assert_consistent(subject, step.pod, now)
            subject = step.pod
        else:
            raise AssertionError(f"still writing after {WRITES_AT_ONCE_MAX} writes at one moment: {subject}")
        assert step.due_at > now


@given(behaviours, st.floats(0, 10_000))
def test_a_stopping_pod_is_gone_within_its_grace_period(behaviour: Behaviour, ran_s: float) -> None:
    """No behaviour keeps a deleted pod longer than its grace period."""
    deleted_at = EPOCH_S + ran_s
    stopping = pod(deleted_at=deleted_at, phase=PodPhase.RUNNING, started_at=EPOCH_S, pod_ip="10.0.0.1")
    end = deleted_at + behaviour.grace_period_s
    assert advance(stopping, behaviour, node(), pod_ip="", now=end).is_gone
    early = advance(stopping, behaviour, node(), pod_ip="", now=deleted_at)
    assert early.is_gone or deleted_at < early.due_at <= end < NEVER


@given(st.lists(st.tuples(st.sampled_from("arx"), st.integers(0, 200), st.integers(0, 3)), max_size=300))
def test_no_two_pods_share_an_address(history: list[tuple[str, int, int]]) -> None:
    """Addresses are unique among pods that hold one, stay with them, and survive a restart of the server."""
    addresses = PodAddresses()
    held: dict[Key, tuple[str, str]] = {}
    for action, pod_number, node_number in history:
        key = Key(Kind.POD, "default", f"p{pod_number}")
        if action == "a":
            on = held[key][0] if key in held else f"n{node_number}"
            held[key] = (on, addresses.assign(key, on)) if key not in held else held[key]
            assert addresses.assign(key, on) == held[key][1]
        elif action == "r":
            held.pop(key, None)
            addresses.release(key)
        else:
            addresses = PodAddresses()
            for owner, (on, address) in held.items():
                addresses.adopt(owner, on, address)
        taken = [address for _, address in held.values()]
        assert len(set(taken)) == len(taken)
    for _, address in held.values():
        parsed = ipaddress.IPv4Address(address)
        assert parsed in ipaddress.IPv4Network("10.0.0.0/8")
        assert int(parsed) & 255 not in (0, 255)
