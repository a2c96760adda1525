"""Where a gang stands: only what is true of all its bound pods is listed, and the score follows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from grove_server.placement.standing import standing_of
from grove_server.resources.workload import PodGang
from tests.lifecycle_cases import DOMAINS, clique, group, pack, world
from tests.planes import worker

LEVEL_NAMES = {f"example.com/{domain}": domain for domain in DOMAINS}


def labels_of(node: str) -> Mapping[str, str] | None:
    """Return the labels of node ``n<i>``; there are sixteen: two to a rack, four to a block."""
    index = int(node.removeprefix("n"))
    return worker(index).metadata.labels if index < 16 else None


def gang_with(required: str | None = None, preferred: str | None = None) -> PodGang:
    """Return the base gang of a set of one clique with a constraint on all of it."""
    made = world([clique("a", 3)], topologyConstraint=pack(required, preferred))
    made.settle()
    return made.one(PodGang, "s-0")


def stands(gang: PodGang, **nodes: list[str]) -> tuple[list[str], float | None]:
    """Return scope:level=domain of a gang whose cliques are on nodes, and the score."""
    standing = standing_of(gang, {f"s-0-{name}": where for name, where in nodes.items()}, LEVEL_NAMES, labels_of)
    return [f"{each.scope}:{each.level}={each.domain}" for each in standing.domains], standing.score


@pytest.mark.parametrize(
    ("nodes", "domains", "score"),
    [
        (["n0", "n1", "n0"], ["s-0:rack=r0"], 1.0),
        (["n0", "n0"], ["s-0:rack=r0"], 1.0),
        (["n0", "n2"], ["s-0:block=b0"], 0.75),
        (["n0", "n4"], ["s-0:zone=z0"], 0.5),
        (["n0", "n99"], [], 0.25),
    ],
)
def test_a_preferred_level_gives_way_to_the_broader_one_that_holds(
    nodes: list[str], domains: list[str], score: float
) -> None:
    """The narrowest domain with all pods is listed, never one with only some; an unknown node is in none."""
    assert stands(gang_with(preferred="rack"), a=nodes) == (domains, score)


def test_required_and_preferred_are_both_listed_while_both_hold() -> None:
    """A required block stays when the preferred rack is given up; without a preference there is no score here."""
    both = gang_with("block", "rack")
    assert stands(both, a=["n0", "n1"]) == (["s-0:block=b0", "s-0:rack=r0"], 1.0)
    assert stands(both, a=["n0", "n2"]) == (["s-0:block=b0"], 0.75)
    assert stands(both, a=["n0", "n4"]) == (["s-0:zone=z0"], 0.5)
    assert stands(gang_with("block"), a=["n0", "n2"]) == (["s-0:block=b0"], None)


def test_each_scope_stands_for_itself() -> None:
    """Group replicas and cliques have their own domains, and the score is the mean over those that prefer one."""
    made = world(
        [clique("a", 2, topologyConstraint=pack(preferred="host")), clique("b", 2)],
        [group("g", ["b"], 2, 2, topologyConstraint=pack(preferred="rack"))],
        topologyConstraint=pack("zone"),
    )
    made.settle()
    gang = made.one(PodGang, "s-0")
    groups = {"g-0-b": ["n4", "n5"], "g-1-b": ["n6", "n8"]}
    domains, score = stands(gang, a=["n0", "n0"], **groups)
    assert domains == ["s-0:zone=z0", "s-0-a:host=n0", "s-0-g-0:rack=r2", "s-0-g-1:zone=z0"]
    assert score == pytest.approx((1 + 1 + 0.5) / 3)
    assert stands(gang, a=["n0"])[0] == ["s-0:zone=z0", "s-0-a:host=n0"]
