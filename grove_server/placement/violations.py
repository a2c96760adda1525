"""Checks an answer against its request: the oracle of tests, independent of how answers are found.

Rules: reads nodes, labels and free amounts one by one and recounts with plain arithmetic and `matching`'s predicates;
knows nothing of layouts, request classes or the search. An empty list means that the answer keeps every promise.

Not here: whether a refusal was right; tests compare that with brute force.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from grove_server.placement.cluster import Cluster
from grove_server.placement.matching import is_eligible
from grove_server.placement.requests import (
    GPU_RESOURCE,
    PODS_RESOURCE,
    CliqueRequest,
    DomainPath,
    GangRequest,
    GroupRequest,
    PodRule,
    RuleKind,
)
from grove_server.placement.results import CliquePlacement, Placement, Verdict
from grove_server.resources.gpu_annotations import GPU_MILLI


def violations(cluster: Cluster, request: GangRequest, result: Placement | Verdict) -> list[str]:
    """Return what is wrong with an answer on the state it was made for (not reserved yet); [] if nothing is."""
    if isinstance(result, Verdict):
        return [] if result.gang == request.name else ["the verdict is about another gang"]
    placed = {clique.name: clique for clique in result.cliques}
    return [
        *_wrong_counts(request, placed),
        *_wrong_nodes(cluster, result),
        *_over_capacity(cluster, result),
        *_wrong_gpus(cluster, result),
        *_wrong_domains(cluster, request, request.topology, placed, ()),
        *_broken_rules(cluster, request, placed),
        *([] if 0.0 <= result.score <= 1.0 else [f"score {result.score} is not between 0 and 1"]),
    ]


def unkept(cluster: Cluster, request: GangRequest, placement: Placement) -> list[str]:
    """Return what of a request places do not keep, whatever is free there now; UnknownNodeError if a node is gone."""
    placed = {clique.name: clique for clique in placement.cliques}
    return [
        *_wrong_counts(request, placed),
        *_wrong_nodes(cluster, placement),
        *_wrong_domains(cluster, request, request.topology, placed, ()),
        *_broken_rules(cluster, request, placed),
    ]


def _cliques(request: GangRequest | GroupRequest | CliqueRequest) -> Iterator[CliqueRequest]:
    if isinstance(request, CliqueRequest):
        yield request
        return
    for member in request.members:
        yield from _cliques(member)


def _wrong_counts(request: GangRequest, placed: Mapping[str, CliquePlacement]) -> Iterator[str]:
    asked = {clique.name: clique for clique in _cliques(request)}
    if set(asked) != set(placed):
        yield f"cliques {sorted(set(asked) ^ set(placed))} are missing or too many"
        return
    for name, clique in asked.items():
        count = len(placed[name].bindings)
        if not clique.minimum <= count <= clique.minimum + clique.optional:
            yield f"clique {name} has {count} pods, not {clique.minimum} to {clique.minimum + clique.optional}"
        if count + placed[name].optional_unplaced != clique.minimum + clique.optional:
            yield f"clique {name} does not account for all its optional pods"


def _wrong_nodes(cluster: Cluster, result: Placement) -> Iterator[str]:
    for clique in result.cliques:
        wanted = 1 if clique.shape.gpu_milli else clique.shape.amount(GPU_RESOURCE)
        for node, gpu_ids in clique.bindings:
            if not is_eligible(clique.shape, cluster.node(node)):
                yield f"clique {clique.name} may not use node {node}"
            if len(gpu_ids) != wanted or len(set(gpu_ids)) != wanted:
                yield f"a pod of clique {clique.name} has GPUs {gpu_ids}, not {wanted} different ones"


def _over_capacity(cluster: Cluster, result: Placement) -> Iterator[str]:
    used: dict[str, Counter[str]] = {}
    for clique in result.cliques:
        for node, _ in clique.bindings:
            amounts = used.setdefault(node, Counter())
            amounts[PODS_RESOURCE] += 1
            for resource, amount in clique.shape.requests:
                if resource not in {PODS_RESOURCE, GPU_RESOURCE}:  # GPUs are counted one by one.
                    amounts[resource] += amount
    for node, amounts in sorted(used.items()):
        free = cluster.free_of(node)
        for resource, amount in sorted(amounts.items()):
            if amount > free.get(resource, 0):
                yield f"node {node}: {amount} of {resource} used, {free.get(resource, 0)} free"


def _wrong_gpus(cluster: Cluster, result: Placement) -> Iterator[str]:
    """Yield where GPUs are given beyond what is free of them, or against the rules for shares and islands."""
    pods: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for clique in result.cliques:
        for node, gpu_ids in clique.bindings:
            pods.setdefault(node, []).append((clique.shape.gpu_milli, gpu_ids))
    for node, given in sorted(pods.items()):
        partly_used = cluster.gpu_shares_of(node)
        left = {**dict.fromkeys(cluster.gpus_free_of(node), GPU_MILLI), **partly_used}
        for milli, gpu_ids in given:
            for gpu_id in gpu_ids:
                left[gpu_id] = left.get(gpu_id, 0) - (milli or GPU_MILLI)
        wrong = sorted(gpu_id for gpu_id, milli in left.items() if milli < 0)
        if wrong:
            yield f"node {node}: GPUs {wrong} are not free or are given twice"
        opened: dict[int, int] = {}
        for milli, gpu_ids in given:
            for gpu_id in sorted(set(gpu_ids) - set(partly_used)):
                opened[gpu_id] = max(opened.get(gpu_id, 0), milli)
        for gpu_id, milli in sorted(opened.items()):  # Its largest share opened a GPU; smaller ones may fill it up.
            roomy = [each for each in sorted(partly_used) if milli and left[each] >= milli]
            if roomy:
                yield f"node {node}: a share of {milli} milli opens GPU {gpu_id}, though GPU {roomy[0]} holds it"
        free = {gpu_id for gpu_id, milli in left.items() if milli == GPU_MILLI}
        yield from _over_islands(cluster, node, [gpu_ids for milli, gpu_ids in given if not milli], free)


def _over_islands(cluster: Cluster, node: str, given: list[tuple[int, ...]], free: set[int]) -> Iterator[str]:
    """Yield pods over several islands although one still has room for them, after all pods of the gang got theirs."""
    islands = [set(island) for island in cluster.node(node).gpu_islands]
    for gpu_ids in given:
        if gpu_ids and not any(island.issuperset(gpu_ids) for island in islands):
            roomy = [sorted(island) for island in islands if len(island & free) >= len(gpu_ids)]
            if roomy:
                yield f"node {node}: GPUs {gpu_ids} span islands, though {roomy[0]} has room for the pod"


def _wrong_domains(
    cluster: Cluster,
    scope: GangRequest | GroupRequest | CliqueRequest,
    topology: tuple[str, ...],
    placed: Mapping[str, CliquePlacement],
    within: DomainPath,
) -> Iterator[str]:
    """Yield where a required level or a binding domain does not hold, for a scope and all below it."""
    within = (*within, *scope.within)
    nodes = {node for clique in _cliques(scope) if clique.name in placed for node, _ in placed[clique.name].bindings}
    labels = [cluster.node(node).labels for node in sorted(nodes)]
    for key, value in within:
        if any(each.get(key) != value for each in labels):
            yield f"{scope.name} leaves {key}={value}"
    if scope.required is not None and scope.required not in topology:
        # A topology may go while places are kept for a gang that was asked for with it.
        yield f"{scope.name} asks for {scope.required}, which is no level of its topology"
    elif scope.required is not None:
        keys = topology[: topology.index(scope.required) + 1]
        paths = {tuple(each.get(key) for key in keys) for each in labels}
        if len(paths) > 1 or any(None in path for path in paths):
            yield f"{scope.name} is not in one {scope.required}: {sorted(map(str, paths))}"
    if not isinstance(scope, CliqueRequest):
        for member in scope.members:
            yield from _wrong_domains(cluster, member, topology, placed, within)


def _broken_rules(cluster: Cluster, request: GangRequest, placed: Mapping[str, CliquePlacement]) -> Iterator[str]:
    """Yield the required rules between pods that do not hold; preferred ones promise nothing."""
    for rule in request.rules:
        if not rule.weight:
            how = _broken_apart if rule.kind == RuleKind.APART else _broken_together
            yield from how(cluster, rule, placed)


def _domains_of(cluster: Cluster, key: str, placed: Mapping[str, CliquePlacement]) -> list[tuple[str, str | None]]:
    """Return clique and domain of each pod, None where the node has no such label."""
    return [
        (name, cluster.node(each.node).labels.get(key)) for name in sorted(placed) for each in placed[name].bindings
    ]


def _broken_apart(cluster: Cluster, rule: PodRule, placed: Mapping[str, CliquePlacement]) -> Iterator[str]:
    pods = _domains_of(cluster, rule.key, placed)
    outside = {value for value, count in rule.counts if count}
    others = Counter(value for name, value in pods if name in rule.others)
    for name, value in pods:
        if name not in rule.cliques:
            continue
        if value is None:
            if rule.needs_key:
                yield f"a pod of clique {name} is on a node without label {rule.key}"
        elif value in outside or others[value] > (name in rule.others):
            yield f"a pod of clique {name} is not apart from {rule.text} in {rule.key}={value}"


def _broken_together(cluster: Cluster, rule: PodRule, placed: Mapping[str, CliquePlacement]) -> Iterator[str]:
    """Yield domains in which pods are without those they go with; the first of their own kind may start one."""
    pods = _domains_of(cluster, rule.key, placed)
    outside = {value for value, count in rule.counts if count}
    strangers = {value for name, value in pods if name in rule.others and name not in rule.cliques}
    starting = {value for name, value in pods if name in rule.others and name in rule.cliques}
    lonely = {value for name, value in pods if name in rule.cliques} - outside - strangers
    if None in {value for name, value in pods if name in rule.cliques}:
        yield f"pods of {rule.cliques} are on nodes without label {rule.key}"
    elif len(lonely) > (not any(count for _, count in rule.counts)) or not lonely <= starting:
        yield f"pods of {rule.cliques} are in {rule.key} {sorted(map(str, lonely))} without {rule.text}"
