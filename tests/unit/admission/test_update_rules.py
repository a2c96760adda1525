"""What may be said about updates, and what is refused with its path."""

from __future__ import annotations

import pytest

from grove_server.admission.findings import InvalidResourceError
from grove_server.resources.manifest import UnitBudget
from tests.lifecycle_cases import Json, admitted, clique, group, manifest

STRATEGY = "spec.updateStrategy"
CLIQUE = "spec.template.cliques[0].rollingUpdate"
GROUP = "spec.template.podCliqueScalingGroups[0].rollingUpdate"


def of(
    strategy: Json | None = None, *, own: Json | None = None, member: Json | None = None, of_group: Json | None = None
) -> Json:
    """Return a set with a standalone clique and a group, and budgets at every place."""
    document = manifest([clique("a", 4, 2), clique("b", 1)], [group("g", ["b"], 3, 2)])
    template = document["spec"]["template"]
    if strategy is not None:
        document["spec"]["updateStrategy"] = strategy
    for target, budget in ((template["cliques"][0], own), (template["cliques"][1], member)):
        if budget is not None:
            target["rollingUpdate"] = budget
    if of_group is not None:
        template["podCliqueScalingGroups"][0]["rollingUpdate"] = of_group
    return document


def rolling(**fields: object) -> Json:
    """Return a strategy that rolls."""
    return {"type": "RollingRecreate", "rollingUpdate": fields}


@pytest.mark.parametrize(
    "document",
    [
        of(rolling(maxUnavailable=2, maxSurge="50%", progressDeadline="10m", autoRollback=True)),
        of({"type": "Coherent"}, own={"maxUnavailable": 2}, of_group={"maxUnavailable": 2}),
        of({"rollingUpdate": {"maxUnavailable": "100%"}}),
        of(own={"maxUnavailable": 0, "maxSurge": 1}),
    ],
)
def test_accepted(document: Json) -> None:
    """Numbers and shares stay as they were written; a strategy without a type rolls."""
    spec = admitted(document).spec
    assert spec.update_strategy is not None
    assert spec.update_strategy.type in ("RollingRecreate", "Coherent")


def test_numbers_stay_numbers() -> None:
    """A whole number is kept as one, a share as text."""
    spec = admitted(of(own={"maxUnavailable": 3, "maxSurge": "25%"})).spec
    assert spec.template.cliques[0].rolling_update == UnitBudget(max_unavailable=3, max_surge="25%")


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (of({"type": "Sideways"}), f"{STRATEGY}.type"),
        (of(rolling(maxUnavailable=-1)), f"{STRATEGY}.rollingUpdate.maxUnavailable"),
        (of(rolling(maxUnavailable="half")), f"{STRATEGY}.rollingUpdate.maxUnavailable"),
        (of(rolling(maxUnavailable="101%")), f"{STRATEGY}.rollingUpdate.maxUnavailable"),
        (of(rolling(maxUnavailable=0)), f"{STRATEGY}.rollingUpdate.maxUnavailable"),
        (of(rolling(maxUnavailable="0%", maxSurge=0)), f"{STRATEGY}.rollingUpdate.maxUnavailable"),
        (of(rolling(maxSurge=2**31)), f"{STRATEGY}.rollingUpdate.maxSurge"),
        (of(rolling(progressDeadline="0s")), f"{STRATEGY}.rollingUpdate.progressDeadline"),
        (of(rolling(progressDeadline="soon")), f"{STRATEGY}.rollingUpdate.progressDeadline"),
        (of(rolling(autoRollback=True)), f"{STRATEGY}.rollingUpdate.progressDeadline"),
        (of(member={"maxUnavailable": 1}), "spec.template.cliques[1].rollingUpdate"),
        (of({"type": "Coherent"}, own={"maxUnavailable": 1}), f"{CLIQUE}.maxUnavailable"),
        (of({"type": "Coherent"}, own={"maxSurge": 1}), f"{CLIQUE}.maxSurge"),
        (of({"type": "Coherent"}, of_group={"maxUnavailable": 1}), f"{GROUP}.maxUnavailable"),
    ],
)
def test_refused(document: Json, path: str) -> None:
    """Each is refused at its own field, and nothing else is."""
    with pytest.raises(InvalidResourceError) as refused:
        admitted(document)
    assert [violation.path for violation in refused.value.violations] == [path]
