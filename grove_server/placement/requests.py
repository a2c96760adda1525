"""What the caller asks of placement: pods of a shape, in cliques, groups and one gang.

Rules: every type is frozen and self-contained (placement knows no manifest and no store); quantities are whole numbers
in the caller's unit per resource (cpu in milli, memory and other bytes in bytes, the rest in pieces) and are never
rounded; levels are node label keys; a domain is named by its path of (label key, label value), broadest first, so two
racks of one name in two zones stay two racks.

Not here: what a node is (`nodes`), what comes back (`results`), how it is decided (`place`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

GPU_RESOURCE: Final = "nvidia.com/gpu"
"""The one resource whose units have identities: each pod gets concrete GPU ids of its node."""

GPU_SHARE: Final = "grove.io/gpu-share"
"""The name under which milli of GPUs stand in verdicts beside other resources; nodes have no such resource."""

PODS_RESOURCE: Final = "pods"
"""Every pod costs one of these, whether or not its shape says so."""

PODS_MAX: Final = 30_000
"""Most pods in one request; a bound so that one decision stays one short step."""

DomainPath: TypeAlias = tuple[tuple[str, str], ...]
"""(label key, label value) pairs that all have to hold for a node, broadest first; () holds everywhere."""


class InvalidRequestError(ValueError):
    """A request that breaks its own rules (a negative count, two cliques of one name); never a lack of room."""


class Operator(StrEnum):
    """Operators of a node selector requirement, as in Kubernetes core/v1 NodeSelectorOperator."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One line of matchExpressions (`key` is a label key) or matchFields (`key` is `metadata.name`)."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorTerm:
    """One nodeSelectorTerm: all its requirements must hold; a term without any matches no node."""

    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """A term that nodes should match rather than not, and how much that counts (1 to 100, as in Kubernetes)."""

    weight: int
    term: SelectorTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A pod's toleration with Kubernetes' meaning of empty: no key = every key, no effect = every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShape:
    """All that placement may know of a pod; equal shapes share one request class and its cached counts.

    `requests` is the effective request of the whole pod (containers, init containers, overhead already combined), in
    name order. `affinity` is the required node affinity: None = none, otherwise terms of which one must match.
    `gpu_milli` is a share of ONE GPU in thousandths (1 to 999; 0 = none); such a pod asks for no whole GPUs beside it.
    `preferences` are the preferred node affinity: nodes with the largest sum of weights are taken first, in tiers.
    """

    requests: tuple[tuple[str, int], ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    affinity: tuple[SelectorTerm, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()
    gpu_milli: int = 0
    preferences: tuple[Preference, ...] = ()

    @property
    def needs_gpu(self) -> bool:
        """Return whether a pod needs GPUs, whole ones or a share of one."""
        return self.gpu_milli > 0 or self.amount(GPU_RESOURCE) > 0

    def amount(self, resource: str) -> int:
        """Return how much of `resource` one pod needs; 0 if it asks for none."""
        return next((amount for name, amount in self.requests if name == resource), 0)


class RuleKind(StrEnum):
    """What a rule between pods asks."""

    APART = "Apart"
    TOGETHER = "Together"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRule:
    """Pods of `cliques` keep apart from, or together with, others in the domains of a node label.

    `others` are cliques of the same request (no pod is its own neighbour), `counts` pods outside it: (value of the
    label, how many). A node without the label is in no domain: pods that keep together may not go there, and those that
    keep apart only unless `needs_key`. `weight` 0 is a must, 1 to 100 a wish. `text` says for people what it is about,
    `origin` to whoever made the rule whom it counts; rules that say the same are equal whatever they come from.
    """

    kind: RuleKind
    key: str
    cliques: tuple[str, ...]
    others: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    weight: int = 0
    needs_key: bool = False
    text: str = ""
    origin: Hashable = field(default=None, compare=False)

    def about(self) -> str:
        """Return what the rule is about, for people: "pods of app=x (anti-affinity on rack)"."""
        word = "anti-affinity" if self.kind == RuleKind.APART else "affinity"
        return f"{self.text or 'other pods'} ({word} on {self.key.rpartition('/')[2]})"


class Counted(NamedTuple):
    """A pod that a rule counts: the domain it is in, and the token with which it counts there once."""

    value: str
    token: Hashable


Counting: TypeAlias = Callable[[PodRule], Mapping[str, Counted]]
"""Returns the pods outside a request that a rule counts, by full name."""


def nobody_counted(_rule: PodRule) -> Mapping[str, Counted]:
    """Return nobody: then what a rule counts stays as it is, whoever leaves."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueRequest:
    """Pods of one shape: `minimum` must be placed with the whole gang, up to `optional` more if there is room.

    `required` and `preferred` are levels (label keys) for this clique alone; `within` is a domain it has to stay in
    (surplus or replacement pods), `prefer` one that is tried first. `near` are cliques of the same request that are
    placed first, and in whose narrowest domain this one is tried first.
    """

    name: str
    shape: PodShape
    minimum: int
    optional: int = 0
    required: str | None = None
    preferred: str | None = None
    within: DomainPath = ()
    prefer: DomainPath = ()
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequest:
    """Cliques and groups that share a constraint, for example one group replica in one rack."""

    name: str
    members: tuple[CliqueRequest | GroupRequest, ...]
    required: str | None = None
    preferred: str | None = None
    within: DomainPath = ()
    prefer: DomainPath = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GangRequest:
    """One gang: all minimums of all its cliques are placed together or nothing is.

    `topology` lists the level keys broadest first; several topologies may lie over one cluster. `within` is the domain
    which this copy is already bound to (hard), `prefer` one to try first (soft, dropped from its narrow end). `rules`
    hold between its pods, and with pods outside.
    """

    name: str
    members: tuple[CliqueRequest | GroupRequest, ...]
    topology: tuple[str, ...] = ()
    required: str | None = None
    preferred: str | None = None
    within: DomainPath = ()
    prefer: DomainPath = ()
    rules: tuple[PodRule, ...] = ()


def minimum_of(request: CliqueRequest | GroupRequest | GangRequest) -> int:
    """Return the pods that have to be placed together."""
    if isinstance(request, CliqueRequest):
        return request.minimum
    return sum(minimum_of(member) for member in request.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a search may go on, in steps of 100 calibrated microseconds (`work`): no clock decides.

    The default keeps any verdict under 50 ms on the project's reference machine. One straight pass over the gang is
    always made; the steps bound what is tried after it failed. One-class gangs need no search and never touch the
    budget.
    """

    steps_max: int = 300
