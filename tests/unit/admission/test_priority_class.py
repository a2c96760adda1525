"""Admission of PriorityClasses: Kubernetes' rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grove_server.admission.findings import InvalidResourceError
from grove_server.admission.priority_class import DESCRIPTION_LENGTH_MAX, read_priority_class
from grove_server.resources.schema import SchemaError
from tests.manifest_cases import CONTEXT, setting, told
from tests.queue_cases import admit_class, priority_class


def refusals(manifest: dict[str, Any], **world: Any) -> dict[str, str]:  # noqa: ANN401 -- whatever admit_class takes
    """Return path and reason of everything that is wrong with a class."""
    try:
        admit_class(manifest, **world)
    except (SchemaError, InvalidResourceError) as error:
        return dict(told(error.violations))
    return {}


@pytest.mark.parametrize("value", [-(2**31), -1, 0, 1_000_000_000])
def test_values_of_users_reach_from_int32_to_a_thousand_million(value: int) -> None:
    """Both ends are legal."""
    assert admit_class(priority_class(value=value)).resource.value == value


@pytest.mark.parametrize("value", [2**31, 1_000_000_001, -(2**31) - 1, 2**40])
def test_a_value_out_of_range_is_refused_with_its_path(value: int) -> None:
    """A priority of 2^31 is refused, and so is everything that belongs to the system."""
    expected = f"INVALID: must be between -2147483648 and 1000000000, got {value}"
    found = refusals(priority_class(value=value))
    assert list(found) == ["value"]
    assert found["value"].endswith(expected.partition(": ")[2])


@pytest.mark.parametrize("value", ["1000", 1.5, True, None])
def test_a_value_that_is_no_whole_number_is_refused(value: object) -> None:
    """Texts, fractions and nothing at all are no priority."""
    assert list(refusals(priority_class(value=value))) == ["value"]


def test_everything_is_told_at_once() -> None:
    """What cannot be read does not hide what breaks a rule."""
    manifest = priority_class("system-mine", 2**31, preemptionPolicy="Always", description="x" * 5000, globalDefault=1)
    setting("metadata.namespace", "default")(manifest)
    with pytest.raises(SchemaError) as caught:
        read_priority_class(json.dumps(manifest).encode(), CONTEXT)
    assert {violation.path for violation in caught.value.violations} == {
        "metadata.name",
        "metadata.namespace",
        "value",
        "globalDefault",
        "description",
        "preemptionPolicy",
    }


def test_value_and_preemption_policy_never_change() -> None:
    """The rest may."""
    old = admit_class(priority_class(preemptionPolicy="Never")).resource
    assert set(refusals(priority_class(value=5), old=old)) == {"value", "preemptionPolicy"}
    assert not admit_class(priority_class(preemptionPolicy="Never"), old=old).changed
    changed = admit_class(priority_class(preemptionPolicy="Never", globalDefault=True, description="x"), old=old)
    assert changed.changed
    assert (changed.resource.global_default, changed.resource.metadata.generation) == (True, 2)


def test_the_policy_is_filled_in() -> None:
    """A class whose policy is left out preempts."""
    assert admit_class(priority_class()).resource.preemption_policy == "PreemptLowerPriority"


@pytest.mark.parametrize("name", ["system-cluster-critical", "system-node-critical"])
def test_what_is_built_in_cannot_be_changed(name: str) -> None:
    """Not even to what it is."""
    assert "built in" in refusals(priority_class(name, 2_000_000_000))["metadata.name"]


def test_one_class_at_most_is_the_default() -> None:
    """A second one is refused and told which is; the default itself may be applied again, or give way in one text."""
    second = priority_class(globalDefault=True)
    assert "is of low" in refusals(second, low=True, high=True)["globalDefault"]
    assert admit_class(second, high=True, low=False).resource.global_default


def test_descriptions_have_a_bound() -> None:
    """As long as allowed is allowed."""
    text = "x" * DESCRIPTION_LENGTH_MAX
    assert admit_class(priority_class(description=text)).resource.description == text
