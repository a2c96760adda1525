"""What placement answers: a complete `Placement` or a `Verdict` that says what is missing.

Rules: both are frozen data with everything an API needs to show them; neither holds a reference into the cluster's
state. A verdict is a proof (impossible on this state of the cluster) or says plainly that the search stopped.

Not here: how verdicts are found (`explain`), how a placement becomes a reservation (`cluster`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from grove_server.placement.requests import GPU_RESOURCE, GPU_SHARE, PODS_RESOURCE, DomainPath, PodShape
from grove_server.resources.labels import GPU_FRACTION

_NAMES_SHOWN: Final = 5
_AMOUNTS_SHOWN: Final = 3


class PodBinding(NamedTuple):
    """Where one pod runs and which GPUs of that node are its own."""

    node: str
    gpu_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CliquePlacement:
    """The pods of one clique in rank order; consecutive ranks share domains.

    The first `minimum` bindings are the clique's must, the others its optional pods that found room;
    `optional_unplaced` found none.
    """

    name: str
    shape: PodShape
    minimum: int
    bindings: tuple[PodBinding, ...]
    optional_unplaced: int = 0


class ScopeKind(StrEnum):
    """What a constraint or a chosen domain belongs to."""

    GANG = "Gang"
    GROUP = "Group"
    CLIQUE = "Clique"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainChoice:
    """The domain that a scope ended up in.

    With `is_required` it is the domain of the required level (or of a `within`): hand `path` back as `within` for later
    pods of the scope. Otherwise it is what came of the preferred level: hand `path` back as `prefer`; `is_met` is False
    if that level was too narrow and a broader domain was taken.
    """

    kind: ScopeKind
    scope: str
    level: str
    value: str
    path: DomainPath
    is_required: bool
    is_met: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a scope is where it is: how many domains of the level were there, how many fitted, and the tie-break."""

    kind: ScopeKind
    scope: str
    level: str
    domain: str
    domains_considered: int
    domains_fitting: int
    tie_break: str

    def sentence(self, *, is_still_so: bool = True) -> str:
        """Return the reason as one sentence; `is_still_so` is False if later pods of the scope are elsewhere."""
        verb, end = ("is", "") if is_still_so else ("was put", "; pods that came later are elsewhere too")
        where = f"{short_level(self.level) or 'node'} {self.domain}" if self.domain else "the whole cluster"
        return (
            f"{self.kind.lower()} {self.scope} {verb} in {where}: {self.domains_fitting} of {self.domains_considered} "
            f"fitted, {self.tie_break}{end}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A complete answer: every minimum of the gang has its nodes.

    `score` is between 0 and 1: 1 = every preferred level is met and, where nothing is preferred, the pods lie on as few
    hosts as their number and the freest host allow (see `place.score_of`). `generation` is the cluster's at decision.
    """

    gang: str
    cliques: tuple[CliquePlacement, ...]
    domains: tuple[DomainChoice, ...]
    score: float
    reasons: tuple[Reason, ...]
    generation: int

    @property
    def pod_count(self) -> int:
        """Return the number of pods placed."""
        return sum(len(clique.bindings) for clique in self.cliques)


class VerdictCode(StrEnum):
    """Why a gang is not placed, from what never fits to what only has to wait."""

    TOPOLOGY_UNAVAILABLE = "TopologyUnavailable"
    """A level is asked for, but no topology came with the request."""
    LEVEL_MISSING = "LevelMissing"
    """The level is not in the topology, or no node carries its labels."""
    DOMAIN_GONE = "DomainGone"
    """The domain that binds the copy or the pods has no node left."""
    NO_NODE_MATCHES = "NoNodeMatches"
    """No node passes selector, affinity, taints, readiness and cordon."""
    POD_TOO_LARGE = "PodTooLarge"
    """No matching node could hold one pod even if it were empty."""
    DOMAIN_TOO_SMALL = "DomainTooSmall"
    """No domain of the required level could hold the pods even if it were empty."""
    CLUSTER_TOO_SMALL = "ClusterTooSmall"
    """The whole cluster could not hold the pods even if it were empty and every node took them."""
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    """What is free does not add up to what is needed."""
    FRAGMENTED = "Fragmented"
    """Enough is free, but not in one domain of the required level, or not in pieces the size of a pod."""
    BUDGET_EXHAUSTED = "BudgetExhausted"
    """No placement was found within the budget and its strategies; that is no proof that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainReport:
    """The domain that came closest: it fits `pods_fit` of `pods_needed`; `lacks` is (resource, amount) short."""

    level: str
    value: str
    path: DomainPath
    pods_fit: int
    pods_needed: int
    lacks: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReport:
    """One level ("" = the whole cluster, or the binding domain): domains looked at, how many pass, and the best one."""

    level: str
    domains_considered: int
    domains_fitting: int
    best: DomainReport | None


class ExclusionKind(StrEnum):
    """The constraint that kept a node out; a node counts under the first one that does, in this order."""

    NOT_READY = "NotReady"
    CORDONED = "Cordoned"
    TAINT = "Taint"
    NODE_SELECTOR = "NodeSelector"
    AFFINITY = "Affinity"
    POD_ANTI_AFFINITY = "PodAntiAffinity"
    POD_AFFINITY = "PodAffinity"
    MISSING_LABEL = "MissingTopologyLabel"
    OUTSIDE_DOMAIN = "OutsideDomain"
    SET_ASIDE = "SetAside"
    TOO_SMALL = "TooSmall"
    FULL = "Full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """How many nodes one constraint kept out; `detail` is the taint, key=value, label key, gangs or resource."""

    kind: ExclusionKind
    detail: str
    node_count: int


class RemedyKind(StrEnum):
    """What kind of change would let the gang in."""

    FEWER_PODS = "FewerPods"
    FREE_RESOURCES = "FreeResources"
    RELAX_LEVEL = "RelaxLevel"
    TOLERATE_TAINT = "TolerateTaint"
    UNCORDON = "Uncordon"
    READY_AGAIN = "ReadyAgain"
    SMALLER_PODS = "SmallerPods"
    DROP_RULE = "DropRule"
    ADD_NODES = "AddNodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change that would make the failed clique (or group) fit, smallest of its kind.

    `is_certain` is True if the change is enough by proof; otherwise it is the least that has to change.

    `count`: pods fewer, pods' worth of room, or nodes more; `amounts`: resources to free, the most that a pod may ask
    for, or what each new node has; `target`: domain, level, taint, rule, or largest matching node; `nodes`: nodes to
    uncordon, or to be ready again. `spots`: what to free by node, the first of `spot_count` nodes.
    """

    kind: RemedyKind
    count: int = 0
    target: str = ""
    amounts: tuple[tuple[str, int], ...] = ()
    nodes: tuple[str, ...] = ()
    spots: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    spot_count: int = 0
    is_certain: bool = False

    def sentence(self) -> str:
        """Return the change as a phrase that follows "would fit with"."""
        match self.kind:
            case RemedyKind.FEWER_PODS:
                return f"{self.count} pod{'s' if self.count != 1 else ''} fewer"
            case RemedyKind.FREE_RESOURCES:
                room = f"{'' if self.is_certain else 'at least '}{_amounts_text(self.amounts)} more free"
                if len(self.spots) == 1 == self.spot_count:
                    return f"{room} on {self.spots[0][0]}"
                return f"{room} in {self.target}{self._where()}"
            case RemedyKind.ADD_NODES:
                one = _amounts_text(self.amounts)
                return f"at least {self.count} more node{'s' if self.count != 1 else ''} of {one}"
            case RemedyKind.RELAX_LEVEL:
                return f"the level relaxed to {short_level(self.target)}"
            case RemedyKind.TOLERATE_TAINT:
                return f"taint {self.target} tolerated"
            case RemedyKind.UNCORDON:
                return f"{_some(self.nodes)} uncordoned"
            case RemedyKind.READY_AGAIN:
                return f"{'node' if len(self.nodes) == 1 else 'nodes'} {_some(self.nodes)} ready again"
            case RemedyKind.DROP_RULE:
                return f"the rule dropped that keeps its pods {self.target}"
            case RemedyKind.SMALLER_PODS:
                most = ", ".join(amount_text(resource, amount) for resource, amount in self.amounts if amount)
                none = ", ".join(_wanted_as(resource) for resource, amount in self.amounts if not amount)
                size = " and ".join(
                    text for text in (most and f"of at most {most}", none and f"without {none}") if text
                )
                return f"pods {size} (the largest matching node, {self.target}, has no more)"

    def _where(self) -> str:
        """Return on which nodes to free what, alike ones together."""
        alike: dict[tuple[tuple[str, int], ...], list[str]] = {}
        for node, amounts in self.spots:
            alike.setdefault(amounts, []).append(node)
        texts = [
            f"{_amounts_text(amounts)} on {'each of ' if len(nodes) > 1 else ''}{_some(tuple(nodes))}"
            for amounts, nodes in list(alike.items())[:_AMOUNTS_SHOWN]
        ]
        left = self.spot_count - sum(len(nodes) for nodes in list(alike.values())[:_AMOUNTS_SHOWN])
        more = f", and some on {left} nodes more" if left > 0 else ""
        return f" ({', '.join(texts)}{more})" if texts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why the gang is not placed. `proof` is True if no placement exists on this state of the cluster.

    `scope` is the gang, group or clique that failed, `pods_needed` its minimum. `generation` is the cluster's at
    decision: ask `Cluster.may_help(request, generation)` before trying again. `notes` are the parts of `detail` that
    say why nobody leaves for it.
    """

    gang: str
    code: VerdictCode
    proof: bool
    kind: ScopeKind
    scope: str
    pods_needed: int
    level: str
    nodes_total: int
    levels: tuple[LevelReport, ...]
    exclusions: tuple[Exclusion, ...]
    remedies: tuple[Remedy, ...]
    generation: int
    detail: str = ""
    notes: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return one sentence a person understands: what is needed, what is there, what would help."""
        pods = f"{self.pods_needed} pod{'s' if self.pods_needed != 1 else ''}"
        need = f"{self.kind.lower()} {self.scope} needs {pods}"
        if self.level:
            need += f" in one {short_level(self.level)}"
        parts = [need]
        if self.detail:
            parts.append(self.detail)
        best = next((report.best for report in self.levels if report.best is not None), None)
        if best is not None:
            where = f"best {short_level(best.level)} {best.value}" if best.level else "the cluster"
            parts.append(f"{where} fits {best.pods_fit} of {best.pods_needed}")
        if self.exclusions:
            kept_out = ", ".join(_phrase(exclusion) for exclusion in self.exclusions[:4])
            parts.append(f"{self.nodes_total} nodes: {kept_out}")
        if not self.proof:
            parts.append("the search stopped without a proof")
        if self.remedies:
            parts.append("would fit with " + ", or ".join(remedy.sentence() for remedy in self.remedies[:3]))
        return "; ".join(parts)


def _amounts_text(amounts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(amount_text(resource, amount) for resource, amount in amounts)


def _some(names: tuple[str, ...]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def amount_text(resource: str, amount: int) -> str:
    """Return an amount in people's units: cores for cpu, GPUs for shares (both given in milli), Gi and Mi for bytes."""
    if resource == "cpu":
        return f"{amount / 1000:g} cpu"
    if resource == GPU_SHARE:
        return f"{amount / 1000:g} {GPU_RESOURCE}"
    if resource == PODS_RESOURCE:
        return f"room for {amount} pod{'s' if amount != 1 else ''}"
    if resource in {"memory", "ephemeral-storage"} or resource.startswith("hugepages-"):
        for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if amount >= size:
                return f"{amount / size:.4g}{unit} {resource}"
    return f"{amount} {resource}"


def _wanted_as(resource: str) -> str:
    """Return what people write to ask for a resource."""
    return GPU_FRACTION if resource == GPU_SHARE else resource


def short_level(level: str) -> str:
    """Return the part of a level's label key that people say: topology.kubernetes.io/rack is "rack"."""
    return level.rpartition("/")[2]


def _phrase(exclusion: Exclusion) -> str:
    words = {
        ExclusionKind.NOT_READY: "not ready",
        ExclusionKind.CORDONED: "cordoned",
        ExclusionKind.TAINT: f"tainted {exclusion.detail}",
        ExclusionKind.NODE_SELECTOR: f"without {exclusion.detail}",
        ExclusionKind.AFFINITY: "outside the node affinity",
        ExclusionKind.POD_ANTI_AFFINITY: f"closed by {exclusion.detail}",
        ExclusionKind.POD_AFFINITY: f"far from {exclusion.detail}",
        ExclusionKind.MISSING_LABEL: f"without label {exclusion.detail}",
        ExclusionKind.OUTSIDE_DOMAIN: f"outside {exclusion.detail}",
        ExclusionKind.SET_ASIDE: f"set aside for {exclusion.detail}",
        ExclusionKind.TOO_SMALL: f"too small ({exclusion.detail})",
        ExclusionKind.FULL: f"full ({exclusion.detail})",
    }
    return f"{exclusion.node_count} {words[exclusion.kind]}"
