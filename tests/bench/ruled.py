"""Rules between pods over 10,240 nodes: what a decision for 1,000 pods costs beside the same pods without rules.

Each figure's baseline is the decision on the same cluster and the same cliques without any rule, in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from grove_server.placement import (
    CliqueRequest,
    Cluster,
    GangRequest,
    GroupRequest,
    PodRule,
    RuleKind,
    Verdict,
    place,
)
from tests.bench.figures import Figure, Target, figure
from tests.bench.placement import ONE_GPU, TOPOLOGY, millis_of, percentile, tree_cluster

PODS = 1_000
ROUNDS = 30
RATIO_MAX = 20
_ZONE, BLOCK, RACK, HOST = TOPOLOGY


def run() -> Iterator[Figure]:
    """Measure decisions under each kind of rule."""
    cluster = tree_cluster(4, 8, 16, 20, used=0.5)
    for name, (request, plain) in _cases().items():
        baseline = _cost(cluster, plain)
        yield figure(
            f"place.ruled.{name}",
            _cost(cluster, request),
            "ms p50",
            better="lower",
            baseline=baseline,
            target=Target(bound=RATIO_MAX, of="ratio"),
        )


def _cases() -> Mapping[str, tuple[GangRequest, GangRequest]]:
    """Return by name a request with rules and the same without."""
    racks = tuple((f"rack-{at:04}", 5) for at in range(0, 512, 4))
    blocks = tuple((f"block-{at:03}", 1) for at in range(16))
    one, rack_each = _one(PODS), _one(500)
    two = _gang(
        CliqueRequest(name="w", shape=ONE_GPU, minimum=800), CliqueRequest(name="x", shape=ONE_GPU, minimum=200)
    )
    near = _gang(
        CliqueRequest(name="w", shape=ONE_GPU, minimum=800),
        CliqueRequest(name="x", shape=ONE_GPU, minimum=200, near=("w",)),
    )
    return {
        "apart": (_with(one, _rule(RuleKind.APART, HOST, others=("w",))), one),
        "apart_rack": (_with(rack_each, _rule(RuleKind.APART, RACK, others=("w",))), rack_each),
        "apart_others": (_with(one, _rule(RuleKind.APART, RACK, counts=racks)), one),
        "apart_two": (_with(two, _rule(RuleKind.APART, RACK, others=("x",))), two),
        "together": (_with(one, _rule(RuleKind.TOGETHER, _ZONE, others=("w",))), one),
        "spread": (_with(one, _rule(RuleKind.APART, RACK, others=("w",), weight=100)), one),
        "spread_copies": (_with(one, _rule(RuleKind.APART, BLOCK, counts=blocks)), one),
        "near": (near, two),
    }


def _one(pods: int) -> GangRequest:
    return _gang(CliqueRequest(name="w", shape=ONE_GPU, minimum=pods))


def _gang(*members: CliqueRequest | GroupRequest) -> GangRequest:
    return GangRequest(name="gang", members=members, topology=TOPOLOGY, preferred=RACK)


def _with(request: GangRequest, rule: PodRule) -> GangRequest:
    return GangRequest(
        name=request.name,
        members=request.members,
        topology=request.topology,
        preferred=request.preferred,
        rules=(rule,),
    )


def _rule(
    kind: RuleKind,
    key: str,
    *,
    others: tuple[str, ...] = (),
    counts: tuple[tuple[str, int], ...] = (),
    weight: int = 0,
) -> PodRule:
    return PodRule(kind=kind, key=key, cliques=("w",), others=others, counts=counts, weight=weight, text="app=w")


def _cost(cluster: Cluster, request: GangRequest) -> float:
    """Return the median of some decisions, in milliseconds."""

    def decide() -> None:
        result = place(cluster, request)
        if isinstance(result, Verdict):
            message = f"gang {request.name} found no place"
            raise TypeError(message)

    decide()
    return percentile(millis_of(decide, ROUNDS), 50)
