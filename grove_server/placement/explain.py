"""Says why a gang has no place: which scope failed, what each level offers, what kept nodes out, what would help.

Rules: the search itself says whether the answer is a proof; here it is put into data. Everything is counted on the
untouched state, after the search took its tentative work back. The scope named is the narrowest one that cannot be
placed even alone; if each can be placed alone, the one that the search got stuck on.

Not here: sentences (`results`), single kinds of nodes and remedies (`exclusions`, `remedies`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from grove_server.placement.bounds import (
    Span,
    free_gpu_milli,
    free_sums,
    gpu_milli_needed,
    needs,
    passing,
    twins_below,
    twins_held,
)
from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.exclusions import SetAside, count_exclusions
from grove_server.placement.freeing import room_when_empty
from grove_server.placement.remedies import Need, find_remedies, in_order_eligible
from grove_server.placement.requests import GPU_RESOURCE, GPU_SHARE, DomainPath, GangRequest, minimum_of
from grove_server.placement.results import (
    DomainReport,
    Exclusion,
    LevelReport,
    Remedy,
    Verdict,
    VerdictCode,
    amount_text,
)
from grove_server.placement.scopes import LevelUnknownError
from grove_server.placement.search import Search
from grove_server.placement.topology import BoolArray, IntArray

_STRUCTURAL = frozenset(
    {
        VerdictCode.LEVEL_MISSING,
        VerdictCode.NO_NODE_MATCHES,
        VerdictCode.POD_TOO_LARGE,
        VerdictCode.DOMAIN_TOO_SMALL,
        VerdictCode.CLUSTER_TOO_SMALL,
    }
)
"""Codes of failures that an empty cluster would have too, so that freeing resources is no advice."""


def explain_level(cluster: Cluster, request: GangRequest, error: LevelUnknownError) -> Verdict:
    """Return the verdict for a level that the request's topology does not have."""
    scope = error.scope
    if request.topology:
        code, detail = VerdictCode.LEVEL_MISSING, f"the topology has no level with label {error.level}"
    else:
        code, detail = VerdictCode.TOPOLOGY_UNAVAILABLE, f"there is no topology to find {error.level} in"
    return Verdict(
        gang=request.name,
        code=code,
        proof=True,
        kind=scope.kind,
        scope=scope.name,
        pods_needed=minimum_of(request) or 1,  # Only optional pods were asked for: one of them is the least.
        level=error.level,
        nodes_total=len(cluster.node_names()),
        levels=(),
        exclusions=(),
        remedies=(),
        generation=cluster.generation,
        detail=detail,
    )


def explain_failure(search: Search, request: GangRequest, aside: SetAside | None = None) -> Verdict:
    """Return the verdict of a search that failed and whose work has been taken back; `aside` is kept for others."""
    return _Explanation(search, request, aside).verdict()


class _Explanation:
    """Everything about one failure, computed step by step."""

    def __init__(self, search: Search, request: GangRequest, aside: SetAside | None) -> None:
        self.search = search
        self.aside = aside
        self.request = request
        self.cluster = search.cluster
        self.layout = search.layout
        self.scope = search.hopeless or search.failed
        if not self.scope.demand:  # Only optional pods were asked for: one of them is the least that could be placed.
            self.scope = next(self.scope.cliques())
            self.scope.demand = dict.fromkeys(self.scope.wish, 1)
        self.level = max(scope.required or 0 for scope in self.scope.lineage())
        for request_class in self.scope.demand:
            self.cluster.refresh(request_class)
        self.bases = search.candidates.bases_of(self.scope) if len(self.layout.slots) else []
        self.hardest = max(self.scope.demand, key=self._hardness)

    def verdict(self) -> Verdict:
        pods = self.scope.demand[self.hardest]
        levels = tuple(self._level_reports())
        inside = self._inside()
        code, detail = self._code(inside, levels)
        is_proof = self.search.hopeless is not None or self.search.is_exact or not self.search.root.demand
        if not is_proof:
            code, detail = VerdictCode.BUDGET_EXHAUSTED, self._stuck()
        remedies: tuple[Remedy, ...] = ()
        if self.bases and is_proof:
            remedies = find_remedies(self.cluster, self.layout, self._need(inside, pods, code), levels)
        return Verdict(
            gang=self.request.name,
            code=code,
            proof=is_proof,
            kind=self.scope.kind,
            scope=self.scope.name,
            pods_needed=self.scope.pods_needed,
            level=self.layout.levels[self.level].key,
            nodes_total=len(self.layout.slots),
            levels=levels,
            exclusions=self._exclusions(inside),
            remedies=remedies,
            generation=self.cluster.generation,
            detail=detail,
        )

    def _need(self, inside: BoolArray, pods: int, code: VerdictCode) -> Need:
        open_to = inside
        if self.aside is not None:
            open_to = inside & ~self.aside.by_slot[self.layout.slots]
        is_whole = self.scope.demand == self.search.root.demand
        return Need(
            request_class=self.hardest,
            pods=pods,
            level=self.level,
            inside=inside,
            demand=self.scope.demand,
            open_to=open_to,
            base_level=max(self.level, min(base.level for base in self.bases)),
            is_whole=is_whole and all((each.required or 0) <= self.level for each in self.scope.walk()),
            is_curable=code not in _STRUCTURAL,
            is_cluster_small=code == VerdictCode.CLUSTER_TOO_SMALL,
        )

    def _hardness(self, request_class: RequestClass) -> tuple[float, int]:
        room = int(request_class.everywhere[0].sum())
        return self.scope.demand[request_class] / max(room, 1), -list(self.scope.demand).index(request_class)

    def _stuck(self) -> str:
        if self.search.stopped:
            return f"no place was found in {self.search.steps} steps"
        return "no place was found by the search's strategies"

    # -- levels ------------------------------------------------------------------------------------------------------

    def _level_reports(self) -> Iterator[LevelReport]:
        """Yield the asked level and the broader ones, as far as the binding domain."""
        floor = min((base.level for base in self.bases), default=0)
        for level in range(max(self.level, floor), floor - 1, -1) if self.bases else ():
            spans = [self.search.candidates.span(base, level) for base in self.bases]
            named = [np.arange(first, last)[self.layout.levels[level].is_named[first:last]] for first, last in spans]
            fitting = [
                domain
                for first, last in spans
                for domain in passing(self.cluster.ledger, self.layout, self.scope, Span(level, first, last)).tolist()
            ]
            domains = np.concatenate(named)
            yield LevelReport(
                level=self.layout.levels[level].key,
                domains_considered=len(domains),
                domains_fitting=len(fitting),
                best=self._best(level, domains) if len(domains) else None,
            )

    def _best(self, level: int, domains: IntArray) -> DomainReport:
        """Return the domain that comes closest."""
        room = np.zeros(len(domains), dtype=np.int64)
        for request_class, pods in self.scope.demand.items():
            room += np.minimum(request_class.everywhere[level][domains], pods)
        domain = int(domains[room.argmax()])
        fit, lacks = self._shortage(level, domain, int(room.max()))
        return DomainReport(
            level=self.layout.levels[level].key,
            value=self.layout.value_of(level, domain),
            path=self.layout.path_of(level, domain),
            pods_fit=fit,
            pods_needed=self.scope.pods_needed,
            lacks=lacks,
        )

    def _shortage(self, level: int, domain: int, fit: int) -> tuple[int, tuple[tuple[str, int], ...]]:
        """Return how many pods fit a domain, sums and twins considered, and which resources do not add up."""
        span = Span(level, domain, domain + 1)
        names = {row: resource for resource, row in self.cluster.ledger.rows.items()}
        needed = self.scope.pods_needed
        lacks: list[tuple[str, int]] = []
        # Where all pods of a single shape fit, nothing can be short; at the broad levels adding it up takes longest.
        is_roomy = len(self.scope.demand) == 1 and fit >= needed
        for row, amount in sorted(needs(self.scope).items()) if not is_roomy else ():
            short = amount - int(free_sums(self.cluster.ledger, self.layout, self.scope, row, span)[0])
            if short > 0:
                lacks.append((names[row], short))
                largest = max(dict(each.costs or ()).get(row, 0) for each in self.scope.demand)
                fit = min(fit, needed - -(-short // largest))
        milli = gpu_milli_needed(self.scope)
        if milli and not is_roomy and GPU_RESOURCE not in dict(lacks):
            short = milli - int(free_gpu_milli(self.cluster.ledger, self.layout, self.scope, span)[0])
            if short > 0:
                lacks.append((GPU_SHARE, short))
                fit = min(fit, needed - 1)
        for twins in twins_below(self.scope, level):
            held = int(twins_held(self.layout, twins, span)[0])
            fit = min(fit, needed - (len(twins) - held) * twins[0].pods_needed)
        return fit, tuple(lacks)

    # -- code --------------------------------------------------------------------------------------------------------

    def _code(self, inside: BoolArray, levels: tuple[LevelReport, ...]) -> tuple[VerdictCode, str]:
        """Return why, from what can never fit to what has to wait."""
        if not len(self.layout.slots):
            return VerdictCode.NO_NODE_MATCHES, "the cluster has no nodes"
        if not self.bases:
            return (
                VerdictCode.DOMAIN_GONE,
                f"no node is left in {_path_text(self.search.candidates.binding_of(self.scope))}",
            )
        if not levels[0].domains_considered:
            key = self.layout.levels[self.level].key
            return VerdictCode.LEVEL_MISSING, f"no node has the labels down to {key}"
        for request_class, pods in self.scope.demand.items():
            code = self._code_of_class(request_class, pods, inside)
            if code is not None:
                return code, ""
        text = self._too_much_for_all()
        if text:
            return VerdictCode.CLUSTER_TOO_SMALL, text
        broadest = levels[-1].best
        if broadest is not None and broadest.lacks:
            return VerdictCode.INSUFFICIENT_CAPACITY, ""
        return VerdictCode.FRAGMENTED, ""

    def _code_of_class(self, request_class: RequestClass, pods: int, inside: BoolArray) -> VerdictCode | None:
        """Return what one class alone can never have here; None if an empty cluster would do."""
        if not bool((request_class.eligible & inside).any()):
            return VerdictCode.NO_NODE_MATCHES
        if request_class.costs is None:
            return VerdictCode.POD_TOO_LARGE
        empty = room_when_empty(self.cluster.ledger, request_class, self.layout.slots)
        empty = empty * (request_class.eligible & inside)
        if not empty.any():
            return VerdictCode.POD_TOO_LARGE
        starts = self.layout.levels[self.level].starts[:-1]
        if self.level and int((np.add.reduceat(empty, starts) * self.layout.levels[self.level].is_named).max()) < pods:
            return VerdictCode.DOMAIN_TOO_SMALL
        return None

    def _too_much_for_all(self) -> str:
        """Return what even the whole cluster, empty and with every node in order, cannot hold; "" if it might.

        Nodes that are cordoned or not ready count, for that passes; one shape is exact, several are judged by sums.
        """
        ledger, slots = self.cluster.ledger, self.layout.slots
        for request_class, pods in self.scope.demand.items():
            empty = room_when_empty(ledger, request_class, slots)
            room = int((empty * request_class.eligible).sum())
            if room < pods:
                room = int((empty * in_order_eligible(self.cluster, request_class.shape)[slots]).sum())
            if room < pods:
                return f"the whole cluster, were it empty, would hold {room} of {pods} pods"
        names = {row: resource for resource, row in ledger.rows.items()}
        for row, amount in sorted(needs(self.scope).items()):
            has = int(ledger.allocatable[row][slots].sum())
            if has < amount:
                resource = names[row]
                return f"the whole cluster has {amount_text(resource, has)} of {amount_text(resource, amount)}"
        return ""

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _inside(self) -> BoolArray:
        """Return by position which nodes the binding domain has."""
        inside = np.zeros(len(self.layout.slots), dtype=np.bool_)
        for base in self.bases:
            start, end = self.layout.span(*base)
            inside[start:end] = True
        return inside

    def _exclusions(self, inside: BoolArray) -> tuple[Exclusion, ...]:
        by_slot = np.zeros(len(self.cluster.rules.states), dtype=np.bool_)
        by_slot[self.layout.slots[inside]] = True
        binding = _path_text(self.search.candidates.binding_of(self.scope))
        keys = self.layout.keys[: self.level]
        return count_exclusions(self.cluster, self.hardest, keys, by_slot, binding, self.aside)


def _path_text(path: DomainPath) -> str:
    return ", ".join(f"{key}={value}" for key, value in path)
