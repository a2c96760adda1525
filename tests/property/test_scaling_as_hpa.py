"""A role with a plain target is scaled as a HorizontalPodAutoscaler scales it, tick for tick."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.observation import Reading, RoleState
from autoscaler.replay import hpa as port
from tests.scaling_cases import DECODE_ROLE, World, policy, role

TARGET = 7
RATES = st.builds(
    lambda kind, value, period: {"type": kind, "value": value, "periodSeconds": period},
    st.sampled_from(["Pods", "Percent"]),
    st.integers(1, 100),
    st.sampled_from([15, 60, 120]),
)
RULES = st.fixed_dictionaries(
    {
        "stabilizationWindowSeconds": st.sampled_from([0, 30, 60, 300]),
        "selectPolicy": st.sampled_from(["Max", "Min", "Disabled"]),
        "policies": st.lists(RATES, min_size=1, max_size=3),
    }
)


def direction(rules: dict[str, Any]) -> port.Direction:
    """Return the same rules for the port."""
    return port.Direction(
        window_s=float(rules["stabilizationWindowSeconds"]),
        rates=tuple(
            port.Rate(
                kind="pods" if rate["type"] == "Pods" else "percent",
                value=rate["value"],
                period_s=float(rate["periodSeconds"]),
            )
            for rate in rules["policies"]
        ),
        select={"Max": "max", "Min": "min", "Disabled": "disabled"}[rules["selectPolicy"]],  # type: ignore[arg-type]  # one of three
    )


def ticks(behavior: dict[str, Any], ported: port.Behavior, values: list[int], size: int) -> None:
    """Compare both over some values of a sum; the first tick does nothing here."""
    sizer = {"kind": "target", "signal": "load", "target": TARGET, "targetType": "AverageValue"}
    manifest = role(DECODE_ROLE, maxReplicas=30, policies=[sizer], behavior=behavior)
    signals = {"load": {"query": "load", "unit": "count", "per": "clique"}}
    world = World(policy=policy(roles=[manifest], signals=signals), sizes={"decode": size})
    controller = port.Controller(behavior=ported, replicas_min=1, replicas_max=30)
    for index, value in enumerate([size * TARGET, *values]):
        current = world.sizes["decode"]
        state = RoleState(name="decode", current=current, ready=current, readings={"load": Reading(value=float(value))})
        world.tick(None, readings={}, roles=[state])
        proposed = port.average_value_metric(float(value), TARGET, current, ported)
        expected = controller.decide(world.at, current, proposed)
        assert world.sizes["decode"] == expected, index


@settings(max_examples=150, deadline=None)
@given(up=RULES, down=RULES, values=st.lists(st.integers(0, 210), min_size=1, max_size=40), size=st.integers(1, 30))
def test_any_behavior_is_that_of_hpa(up: dict[str, Any], down: dict[str, Any], values: list[int], size: int) -> None:
    """Windows, selections and rate policies lead to the sizes that the port of HPA's controller has."""
    ported = port.Behavior(up=direction(up), down=direction(down))
    ticks({"scaleUp": up, "scaleDown": down}, ported, values, size)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 210), min_size=1, max_size=40), size=st.integers(1, 30))
def test_the_defaults_are_those_of_hpa(values: list[int], size: int) -> None:
    """A role that is sized by targets alone and says nothing of its behaviour has HPA's."""
    ticks({}, port.Behavior(), values, size)
