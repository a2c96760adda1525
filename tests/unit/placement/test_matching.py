"""Selectors, affinity and tolerations against Kubernetes' own tables of meaning."""

from __future__ import annotations

import pytest

from grove_server.placement import NodeState, Operator, PodShape, Requirement, SelectorTerm, Taint, Toleration
from grove_server.placement.matching import (
    affinity_holds,
    is_avoided,
    is_eligible,
    requirement_holds,
    selector_holds,
    tolerates,
    untolerated,
)
from grove_server.placement.rules import NodeRules

GPU_TAINT = Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration(key="nvidia.com/gpu", value="present"), True),
        (Toleration(key="nvidia.com/gpu", operator="", value="present"), True),
        (Toleration(key="nvidia.com/gpu", value="present", effect="NoSchedule"), True),
        (Toleration(key="nvidia.com/gpu", value="present", effect="NoExecute"), False),
        (Toleration(key="nvidia.com/gpu", value="absent"), False),
        (Toleration(key="nvidia.com/gpu"), False),
        (Toleration(key="nvidia.com/gpu", operator="Exists"), True),
        (Toleration(key="other", operator="Exists"), False),
        (Toleration(operator="Exists"), True),
        (Toleration(operator="Exists", effect="NoSchedule"), True),
        (Toleration(operator="Exists", effect="NoExecute"), False),
        (Toleration(key="nvidia.com/gpu", operator="Sometimes", value="present"), False),
    ],
)
def test_a_toleration_covers_a_taint_as_in_kubernetes(toleration: Toleration, *, expected: bool) -> None:
    """Empty key means every key, empty effect every effect, empty operator Equal."""
    assert tolerates(toleration, GPU_TAINT) is expected


def test_only_no_schedule_and_no_execute_keep_a_pod_out() -> None:
    """PreferNoSchedule is avoided, never refused."""
    soft, hard = Taint(key="a", effect="PreferNoSchedule"), Taint(key="b", effect="NoExecute")
    assert untolerated((), (soft, hard)) == hard
    assert untolerated((), (soft,)) is None
    assert is_avoided((), (soft,))
    assert not is_avoided((Toleration(key="a", operator="Exists"),), (soft,))
    assert not is_avoided((), (hard,))


@pytest.mark.parametrize(
    ("operator", "values", "value", "expected"),
    [
        (Operator.IN, ("a", "b"), "a", True),
        (Operator.IN, ("a", "b"), "c", False),
        (Operator.IN, ("a",), None, False),
        (Operator.NOT_IN, ("a",), "b", True),
        (Operator.NOT_IN, ("a",), "a", False),
        (Operator.NOT_IN, ("a",), None, True),
        (Operator.EXISTS, (), "", True),
        (Operator.EXISTS, (), None, False),
        (Operator.DOES_NOT_EXIST, (), None, True),
        (Operator.DOES_NOT_EXIST, (), "a", False),
        (Operator.GT, ("4",), "5", True),
        (Operator.GT, ("4",), "4", False),
        (Operator.GT, ("4",), None, False),
        (Operator.GT, ("4",), "five", False),
        (Operator.GT, ("four",), "5", False),
        (Operator.GT, ("4", "5"), "6", False),
        (Operator.GT, ("-5",), "-4", True),
        (Operator.GT, ("4",), "1_000", False),
        (Operator.GT, ("4",), "9223372036854775808", False),
        (Operator.LT, ("4",), "3", True),
        (Operator.LT, ("4",), "4", False),
        (Operator.LT, ("4",), "٣", False),
    ],
)
def test_a_requirement_reads_a_label_as_in_kubernetes(
    operator: Operator, values: tuple[str, ...], value: str | None, *, expected: bool
) -> None:
    """NotIn holds for a missing label; Gt and Lt need whole 64-bit numbers on both sides; columns agree."""
    requirement = Requirement(key="size", operator=operator, values=values)
    assert requirement_holds(requirement, value) is expected
    shape = PodShape(affinity=(SelectorTerm(match_expressions=(requirement,)),))
    node = NodeState(name="n", labels={} if value is None else {"size": value})
    rules = NodeRules()
    rules.add_slot()
    rules.set_state(0, node)
    assert rules.eligibility(shape)[0].tolist() == [expected]


def test_terms_are_alternatives_and_requirements_add_up() -> None:
    """One term is enough, all its requirements are needed, and a term without any matches no node."""
    node = NodeState(name="n1", labels={"a": "1", "b": "2"})
    a1 = Requirement(key="a", operator=Operator.IN, values=("1",))
    b3 = Requirement(key="b", operator=Operator.IN, values=("3",))
    named = Requirement(key="metadata.name", operator=Operator.IN, values=("n1",))
    other = Requirement(key="metadata.uid", operator=Operator.IN, values=("n1",))
    for terms, expected in [
        (None, True),
        ((), False),
        ((SelectorTerm(),), False),
        ((SelectorTerm(match_expressions=(a1,)),), True),
        ((SelectorTerm(match_expressions=(a1, b3)),), False),
        ((SelectorTerm(match_expressions=(b3,)), SelectorTerm(match_expressions=(a1,))), True),
        ((SelectorTerm(match_fields=(named,)),), True),
        ((SelectorTerm(match_expressions=(b3,), match_fields=(named,)),), False),
        ((SelectorTerm(match_fields=(other,)),), False),
    ]:
        assert affinity_holds(terms, node) is expected
        rules = NodeRules()
        rules.add_slot()
        rules.set_state(0, node)
        assert rules.eligibility(PodShape(affinity=terms))[0].tolist() == [expected]


def test_a_node_selector_needs_every_label() -> None:
    """Each key has to be there with its value; an empty selector asks for nothing."""
    node = NodeState(name="n", labels={"a": "1", "b": "2"})
    assert selector_holds((), node)
    assert selector_holds((("a", "1"), ("b", "2")), node)
    assert not selector_holds((("a", "1"), ("b", "3")), node)
    assert not selector_holds((("c", ""),), node)


def test_cordon_is_a_taint_and_readiness_is_not() -> None:
    """A pod that tolerates everything may enter a cordoned node, as in Kubernetes, but never one that is down."""
    anything = PodShape(tolerations=(Toleration(operator="Exists"),))
    cordoned = NodeState(name="n", unschedulable=True)
    assert not is_eligible(PodShape(), cordoned)
    assert is_eligible(anything, cordoned)
    assert not is_eligible(anything, NodeState(name="n", ready=False))
