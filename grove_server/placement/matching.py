"""Which nodes a pod may use: selectors, node affinity, tolerations, exactly as Kubernetes reads them.

Rules: pure predicates over labels and taints, the meaning taken from Kubernetes' component-helpers
(`ToleratesTaint`, `GetRequiredNodeAffinity`) and apimachinery's `labels.Requirement.Matches`. NoSchedule and NoExecute
exclude, PreferNoSchedule only counts against a node. A cordoned node is one with the taint
node.kubernetes.io/unschedulable:NoSchedule, so a pod that tolerates it may still go there; a node that is not ready is
out for every pod. Preferences make tiers of nodes: tier 0 is taken first.

Not here: room on the node (`counts`), the vectorised form for a whole cluster (`eligibility`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from grove_server.placement.nodes import Effect, NodeState, Taint
from grove_server.placement.requests import Operator, PodShape, Requirement, SelectorTerm, Toleration

UNSCHEDULABLE_TAINT: Final = Taint(key="node.kubernetes.io/unschedulable", effect=Effect.NO_SCHEDULE)
NAME_FIELD: Final = "metadata.name"

SCORES_MAX: Final = 4
"""Most tiers that preferred node affinity makes of nodes; scores between are put together."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_INT64_MAX = 2**63 - 1


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether one toleration covers one taint; empty effect or key covers all of them."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return toleration.operator in {"", "Equal"} and toleration.value == taint.value


def untolerated(tolerations: Sequence[Toleration], taints: Sequence[Taint]) -> Taint | None:
    """Return the first taint that keeps the pod out, in the node's order; None if it may enter."""
    for taint in taints:
        if taint.effect != Effect.PREFER_NO_SCHEDULE and not any(tolerates(each, taint) for each in tolerations):
            return taint
    return None


def is_avoided(tolerations: Sequence[Toleration], taints: Sequence[Taint]) -> bool:
    """Return whether a PreferNoSchedule taint asks the pod to go elsewhere if it can."""
    return any(
        taint.effect == Effect.PREFER_NO_SCHEDULE and not any(tolerates(each, taint) for each in tolerations)
        for taint in taints
    )


def requirement_holds(requirement: Requirement, value: str | None) -> bool:
    """Return whether a label (None = absent) satisfies a requirement; NotIn holds for an absent label, Gt never."""
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value is None or value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None
        case Operator.GT | Operator.LT:
            return _compares(requirement, value)


def _compares(requirement: Requirement, value: str | None) -> bool:
    """Return whether Gt or Lt holds; both sides must be whole 64-bit numbers and there is exactly one to compare to."""
    have = _integer(value)
    want = _integer(requirement.values[0]) if len(requirement.values) == 1 else None
    if have is None or want is None:
        return False
    return have > want if requirement.operator == Operator.GT else have < want


def _integer(text: str | None) -> int | None:
    if text is None or _INTEGER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if -_INT64_MAX - 1 <= number <= _INT64_MAX else None


def affinity_holds(terms: tuple[SelectorTerm, ...] | None, node: NodeState) -> bool:
    """Return whether required node affinity lets the pod onto the node: one term, all its requirements."""
    return terms is None or any(_term_holds(term, node) for term in terms)


def _term_holds(term: SelectorTerm, node: NodeState) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    return all(requirement_holds(each, node.labels.get(each.key)) for each in term.match_expressions) and all(
        requirement_holds(each, node.name if each.key == NAME_FIELD else None) for each in term.match_fields
    )


def selector_holds(selector: tuple[tuple[str, str], ...], node: NodeState) -> bool:
    """Return whether the node carries every label of a nodeSelector."""
    return all(node.labels.get(key) == value for key, value in selector)


def effective_taints(node: NodeState) -> tuple[Taint, ...]:
    """Return the node's taints with its cordon as the taint that Kubernetes makes of it."""
    return (UNSCHEDULABLE_TAINT, *node.taints) if node.unschedulable else node.taints


def is_eligible(shape: PodShape, node: NodeState) -> bool:
    """Return whether a pod of this shape may run on the node, room aside."""
    return (
        node.ready
        and untolerated(shape.tolerations, effective_taints(node)) is None
        and selector_holds(shape.node_selector, node)
        and affinity_holds(shape.affinity, node)
    )


def is_first_choice(shape: PodShape, node: NodeState, *, needs_gpu: bool) -> bool:
    """Return whether the node is one the pod should take before others.

    A pod without GPUs leaves GPU nodes to those that need them, and PreferNoSchedule is honoured while others fit.
    """
    return (needs_gpu or node.gpu_count == 0) and not is_avoided(shape.tolerations, node.taints)


def tier_count(shape: PodShape) -> int:
    """Return how many tiers a shape makes of nodes."""
    if not shape.preferences:
        return 2
    return len(set(score_tiers(_weights(shape)).values())) * (1 if shape.needs_gpu else 2) + 1


def tier_of(shape: PodShape, node: NodeState, *, needs_gpu: bool) -> int:
    """Return the tier of a node for a shape: 0 = first choice.

    Without preferences there are two. With preferences the sum of the weights of matching terms comes first, then
    whether a pod without GPUs leaves GPU nodes alone; a node with a PreferNoSchedule taint comes last.
    """
    if not shape.preferences:
        return 0 if is_first_choice(shape, node, needs_gpu=needs_gpu) else 1
    if is_avoided(shape.tolerations, node.taints):
        return tier_count(shape) - 1
    score = sum(each.weight for each in shape.preferences if _term_holds(each.term, node))
    tier = score_tiers(_weights(shape))[score]
    return tier if needs_gpu else 2 * tier + (node.gpu_count > 0)


def _weights(shape: PodShape) -> tuple[int, ...]:
    return tuple(each.weight for each in shape.preferences)


@lru_cache(maxsize=1024)
def score_tiers(weights: tuple[int, ...]) -> Mapping[int, int]:
    """Return by possible sum of weights its tier, 0 for the largest; at most SCORES_MAX tiers.

    The largest and the smallest sum have tiers of their own; those between share what is left, evenly by rank.
    """
    sums = {0}
    for weight in weights:
        sums |= {each + weight for each in sums}
    ordered = sorted(sums, reverse=True)
    if len(ordered) <= SCORES_MAX:
        return {score: tier for tier, score in enumerate(ordered)}
    between = SCORES_MAX - 2
    tiers = {score: 1 + rank * between // (len(ordered) - 2) for rank, score in enumerate(ordered[1:-1])}
    return {ordered[0]: 0, **tiers, ordered[-1]: SCORES_MAX - 1}
