"""Placement's figures: decisions only, on clusters in memory."""

from tests.bench import placement
from tests.bench.figures import Figure, Target, figure


def run() -> list[Figure]:
    """Measure decisions for large, hierarchical and small gangs."""
    large = placement.place_1000x10k()
    refusal = placement.place_1000x10k_impossible()
    tree = placement.tree206()
    small = placement.gangs_5000()
    return [
        figure("place.1000x10k", large["p50_ms"], "ms p50", better="lower", target=Target(bound=1)),
        figure("place.1000x10k.p99", large["p99_ms"], "ms p99", better="lower", target=Target(bound=5)),
        figure("place.proof_no", refusal["p50_ms"], "ms p50", better="lower", target=Target(bound=1)),
        figure("place.tree206", tree["p50_ms"], "ms p50", better="lower", target=Target(bound=25)),
        figure("place.tree206.p99", tree["p99_ms"], "ms p99", better="lower", target=Target(bound=25)),
        figure("place.small_gangs", small["gangs_per_s"], "gangs/s", better="higher", target=Target(bound=3_000)),
    ]
