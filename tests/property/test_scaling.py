"""What holds of the autoscaler's core for any load, any failure of its readings, and any order of its pods."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.memory import decode, encode
from autoscaler.observation import Reading
from tests.scaling_cases import DECODE_ROLE, PREFILL_ROLE, TICK_S, World, chat_readings, policy, role

LOADS = st.lists(st.one_of(st.none(), st.floats(0.0, 150.0)), min_size=1, max_size=40)
BUDGET = 120


@settings(max_examples=40, deadline=None)
@given(loads=LOADS)
def test_rates_bounds_and_budget_hold_for_any_load(loads: list[float | None]) -> None:
    """Whatever comes, sizes stay in bounds and budget, and grow within HPA's default rate over every period."""
    world = World(policy=policy(budget={"gpus": BUDGET}))
    for load in loads:
        before = dict(world.sizes)
        decided = world.tick(load)
        assert sum(4 * size for size in world.sizes.values()) <= BUDGET
        for name, each in decided.items():
            assert 1 <= each.replicas <= 40
            assert each.replicas <= max(2 * before[name], before[name] + 4)
            if load is None:
                assert each.replicas >= before[name]


@settings(max_examples=40, deadline=None)
@given(loads=LOADS)
def test_every_step_from_wish_to_size_is_kept(loads: list[float | None]) -> None:
    """The clamps of a decision lead from one size to the next without a gap, and end at the decided size."""
    world = World(policy=policy(budget={"gpus": BUDGET}))
    for load in loads:
        for each in world.tick(load).values():
            for one, other in zip(each.clamps, each.clamps[1:], strict=False):
                assert one.after == other.before
            if each.clamps:
                assert each.clamps[-1].after == each.replicas
            else:
                assert each.wanted == each.replicas


@settings(max_examples=30, deadline=None)
@given(loads=LOADS, cut=st.integers(0, 39))
def test_a_restart_at_any_tick_changes_nothing(loads: list[float | None], cut: int) -> None:
    """Memory that is stored and read back at any tick leads to the same decisions."""
    whole, stopped = World(), World()
    for index, load in enumerate(loads):
        if index == cut:
            stopped.memory = decode(encode(stopped.memory))
        assert whole.tick(load) == stopped.tick(load)


@settings(max_examples=30, deadline=None)
@given(loads=LOADS)
def test_a_restart_without_memory_never_shrinks_at_once(loads: list[float | None]) -> None:
    """For a window after all was forgotten no role gets smaller."""
    world = World(sizes={"prefill": 12, "decode": 15})
    for load in loads[:20]:
        before = dict(world.sizes)
        world.tick(load)
        assert all(world.sizes[name] >= size for name, size in before.items())


@settings(max_examples=40, deadline=None)
@given(
    history=st.lists(st.floats(1.0, 80.0), min_size=2, max_size=20),
    less=st.floats(0.0, 150.0),
    more=st.floats(0.0, 150.0),
)
def test_more_demand_never_gives_fewer_replicas(history: list[float], less: float, more: float) -> None:
    """After the same past, a higher load is decided at least as high."""
    less, more = min(less, more), max(less, more)
    low, high = World(), World()
    for load in history:
        low.tick(load)
        high.tick(load)
    fewer, enough = low.tick(less), high.tick(more)
    assert all(enough[name].wanted >= each.wanted for name, each in fewer.items())


@settings(max_examples=25, deadline=None)
@given(loads=st.lists(st.floats(0.0, 80.0), min_size=10, max_size=60))
def test_no_turn_inside_the_window(loads: list[float]) -> None:
    """A role that has grown does not shrink before the window for shrinking has passed."""
    window_s = 300.0
    behavior = {"scaleDown": {"stabilizationWindowSeconds": int(window_s)}}
    roles = [role(PREFILL_ROLE, behavior=behavior), role(DECODE_ROLE, behavior=behavior)]
    world = World(policy=policy(roles=roles))
    grew: dict[str, float] = {}
    for load in loads:
        before = dict(world.sizes)
        world.tick(load)
        for name, size in world.sizes.items():
            if size > before[name]:
                grew[name] = world.at
            elif size < before[name]:
                # The wish that made it grow was of the tick in which it grew.
                assert world.at - grew.get(name, 0.0) >= window_s - TICK_S


@settings(max_examples=25, deadline=None)
@given(loads=st.lists(st.floats(0.0, 80.0), min_size=1, max_size=20), seed=st.permutations(range(6)))
def test_the_order_of_readings_does_not_matter(loads: list[float], seed: list[int]) -> None:
    """Readings and roles in any order lead to the same sizes."""
    straight, shuffled = World(), World()
    for load in loads:
        readings: dict[str, Reading] = {**chat_readings(load)}
        names = sorted(readings, key=lambda name: seed[sorted(readings).index(name)])
        states = [shuffled.role_state(name, load) for name in reversed(list(shuffled.sizes))]
        states = [replace(state, readings=dict(reversed(list(state.readings.items())))) for state in states]
        mixed = shuffled.tick(load, readings={name: readings[name] for name in names}, roles=states)
        plain = straight.tick(load, readings=readings)
        assert {name: each.replicas for name, each in mixed.items()} == {n: e.replicas for n, e in plain.items()}
