"""A request made ready for the search: one tree of scopes with levels as numbers and request classes attached.

Rules: a scope is the gang, a group or a clique; it knows what its minimums need per request class (`demand`), how hard
it is to place, and which others are its twins: same constraints, same pods, one number. Requests are checked here, so
the search meets only sound ones.

Not here: the search itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from grove_server.placement.counts import RequestClass
from grove_server.placement.ledger import Ledger
from grove_server.placement.pod_rules import RuleBook, followed
from grove_server.placement.requests import (
    GPU_RESOURCE,
    PODS_MAX,
    CliqueRequest,
    DomainPath,
    GangRequest,
    GroupRequest,
    InvalidRequestError,
    PodShape,
)
from grove_server.placement.results import ScopeKind
from grove_server.placement.ruled_counts import RuledClass
from grove_server.resources.gpu_annotations import GPU_MILLI

DEPTH_MAX: Final = 8
"""Deepest nesting of groups."""

SCOPES_MAX: Final = 5_000
"""Most groups and cliques of one gang."""

ClassOf: TypeAlias = Callable[[PodShape], RequestClass]
LevelOf: TypeAlias = Callable[[str], int | None]


class LevelUnknownError(LookupError):
    """A level that a scope asks for is not in the request's topology."""

    def __init__(self, scope: Scope, level: str) -> None:
        super().__init__(level)
        self.scope = scope
        self.level = level


@dataclass(slots=True, kw_only=True, eq=False)
class Scope:
    """One node of the tree. Levels are layout levels; `request_class` is set for cliques alone.

    `demand` maps each request class below to the pods its minimums need; `wish` counts the optional pods in. Minimum
    and optional of groups are sums. `is_plain`: nothing below is constrained. `uniform` is the only request class of a
    scope for which room is all that a domain has to have: a plain one, or one around a single child that asks for no
    narrower level. `follows` are cliques elsewhere that should be placed before it; `book`, which the root alone has,
    are the rules between pods.
    """

    kind: ScopeKind
    name: str
    index: int
    required: int | None = None
    preferred: int | None = None
    within: DomainPath = ()
    prefer: DomainPath = ()
    parent: Scope | None = None
    children: list[Scope] = field(default_factory=list)
    request_class: RequestClass | None = None
    minimum: int = 0
    optional: int = 0
    demand: dict[RequestClass, int] = field(default_factory=dict)
    wish: dict[RequestClass, int] = field(default_factory=dict)
    twin: int = 0
    uniform: RequestClass | None = None
    is_plain: bool = True
    near: tuple[str, ...] = ()
    follows: frozenset[str] = frozenset()
    book: RuleBook | None = None
    hardness: tuple[int, int, int, float, int] | None = None

    @property
    def pods_needed(self) -> int:
        """Return the pods of all minimums below."""
        return sum(self.demand.values())

    @property
    def is_constrained(self) -> bool:
        """Return whether the scope itself says anything about domains."""
        return self.required is not None or self.preferred is not None or bool(self.within or self.prefer or self.near)

    def lineage(self) -> list[Scope]:
        """Return the scopes from the gang down to this one."""
        return [self] if self.parent is None else [*self.parent.lineage(), self]

    def cliques(self) -> Iterator[Scope]:
        """Yield the cliques below, in request order."""
        if self.request_class is not None:
            yield self
        for child in self.children:
            yield from child.cliques()

    def demanding(self) -> list[Scope]:
        """Return the cliques below that have a minimum."""
        return [clique for clique in self.cliques() if clique.minimum]

    def walk(self) -> Iterator[Scope]:
        """Yield this scope and all below, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def compile_request(
    request: GangRequest, level_of: LevelOf, class_of: ClassOf, ruling: tuple[RuleBook, Ledger] | None = None
) -> Scope:
    """Return the root scope; InvalidRequestError for unsound requests, LevelUnknownError for an unknown level.

    `ruling` has to be there if the request has rules between pods.
    """
    compiler = _Compiler(level_of, class_of, ruling, request)
    root = compiler.compile(request, ScopeKind.GANG, 0)
    if not compiler.clique_names:
        raise InvalidRequestError(f"gang {request.name} has no cliques")
    if sum(root.wish.values()) > PODS_MAX:
        raise InvalidRequestError(f"gang {request.name} has more than {PODS_MAX} pods")
    root.book = None if ruling is None else ruling[0]
    return root


class _Compiler:
    """Walks a request once, counting what it meets."""

    def __init__(
        self, level_of: LevelOf, class_of: ClassOf, ruling: tuple[RuleBook, Ledger] | None, request: GangRequest
    ) -> None:
        self.level_of = level_of
        self.class_of = class_of
        self.ruling = ruling
        self.rules = request.rules
        self.clique_names: set[str] = set()
        self.count = 0
        self.twins: dict[tuple[object, ...], int] = {}

    def compile(self, request: GangRequest | GroupRequest | CliqueRequest, kind: ScopeKind, depth: int) -> Scope:
        if depth > DEPTH_MAX or self.count >= SCOPES_MAX:
            raise InvalidRequestError(f"more than {DEPTH_MAX} levels of groups or {SCOPES_MAX} groups and cliques")
        scope = Scope(kind=kind, name=request.name, index=self.count, within=request.within, prefer=request.prefer)
        self.count += 1
        scope.required = self._level(scope, request.required)
        scope.preferred = self._level(scope, request.preferred)
        for key, _ in request.within:
            self._level(scope, key)
        if isinstance(request, CliqueRequest):
            self._clique(scope, request)
        else:
            self._members(scope, request, depth)
        return scope

    def _clique(self, scope: Scope, request: CliqueRequest) -> None:
        if request.name in self.clique_names:
            raise InvalidRequestError(f"two cliques are named {request.name}")
        if request.minimum < 0 or request.optional < 0:
            raise InvalidRequestError(f"clique {request.name} asks for a negative number of pods")
        if any(amount < 0 for _, amount in request.shape.requests):
            raise InvalidRequestError(f"clique {request.name} asks for a negative amount")
        if not 0 <= request.shape.gpu_milli < GPU_MILLI:
            raise InvalidRequestError(f"clique {request.name} asks for {request.shape.gpu_milli} milli of one GPU")
        if request.shape.gpu_milli and request.shape.amount(GPU_RESOURCE):
            raise InvalidRequestError(f"clique {request.name} asks for a share of a GPU beside whole ones")
        self.clique_names.add(request.name)
        scope.request_class = self.class_of(request.shape)
        ruled = ""
        if self.ruling is not None and self.ruling[0].concerns(request.name):
            book, ledger = self.ruling
            scope.request_class = RuledClass(scope.request_class, request.name, book, ledger)
            ruled = request.name  # Where its pods may go depends on where others are: it has no twin.
        scope.near = request.near
        if self.rules or request.near:
            scope.follows = frozenset({*request.near, *followed(self.rules, request.name)} - {request.name})
        scope.uniform = scope.request_class
        scope.minimum, scope.optional = request.minimum, request.optional
        if request.minimum:
            scope.demand = {scope.request_class: request.minimum}
        scope.wish = {scope.request_class: request.minimum + request.optional}
        scope.twin = self._twin((*_constraint(scope), request.shape, request.minimum, request.optional, ruled))

    def _members(self, scope: Scope, request: GangRequest | GroupRequest, depth: int) -> None:
        for member in request.members:
            kind = ScopeKind.CLIQUE if isinstance(member, CliqueRequest) else ScopeKind.GROUP
            child = self.compile(member, kind, depth + 1)
            child.parent = scope
            scope.children.append(child)
            _add(scope.demand, child.demand)
            _add(scope.wish, child.wish)
            scope.minimum += child.minimum
            scope.optional += child.optional
            scope.is_plain &= child.is_plain and not child.is_constrained
            scope.follows |= child.follows
        if scope.follows:
            scope.follows -= {clique.name for clique in scope.cliques()}
        scope.twin = self._twin((*_constraint(scope), *[child.twin for child in scope.children]))
        if scope.is_plain and len(scope.wish) == 1:
            scope.uniform = next(iter(scope.wish))
        elif len(scope.children) == 1:
            child = scope.children[0]
            if not child.within and (child.required or 0) <= (scope.required or 0):
                scope.uniform = child.uniform

    def _twin(self, content: tuple[object, ...]) -> int:
        """Return one number for all scopes of equal content."""
        return self.twins.setdefault(content, len(self.twins))

    def _level(self, scope: Scope, key: str | None) -> int | None:
        if key is None:
            return None
        level = self.level_of(key)
        if level is None:
            raise LevelUnknownError(scope, key)
        return level


def _add(total: dict[RequestClass, int], part: dict[RequestClass, int]) -> None:
    for request_class, count in part.items():
        total[request_class] = total.get(request_class, 0) + count


def _constraint(scope: Scope) -> tuple[object, ...]:
    return scope.required, scope.preferred, scope.within, scope.prefer, scope.near


def hardest_first(scopes: list[Scope]) -> list[Scope]:
    """Return siblings in the order in which to place them: what has the fewest ways to go first.

    Narrower level, then bigger pods (GPUs), then more GPUs, then the larger share of what fits, then request order.
    """
    order = sorted(scopes, key=_hardness_of)
    return order if not any(scope.follows for scope in order) else _leaders_first(order)


def _leaders_first(order: list[Scope]) -> list[Scope]:
    """Return siblings in the same order, but each after those that it follows; a circle is cut at its hardest."""
    names = {scope.index: {clique.name for clique in scope.cliques()} for scope in order}
    left, result = list(order), []
    while left:
        waiting = set().union(*(names[scope.index] for scope in left))
        free = (scope for scope in left if not scope.follows & (waiting - names[scope.index]))
        chosen = next(free, left[0])
        left.remove(chosen)
        result.append(chosen)
    return result


def _hardness_of(scope: Scope) -> tuple[int, int, int, float, int]:
    """Return the sort key, computed once: it need not follow what siblings take meanwhile."""
    if scope.hardness is None:
        scope.hardness = _hardness(scope)
    return scope.hardness


def _hardness(scope: Scope) -> tuple[int, int, int, float, int]:
    levels = [each.required or 0 for each in scope.walk()]
    gpus = [(each.shape.amount(GPU_RESOURCE) * GPU_MILLI + each.shape.gpu_milli, n) for each, n in scope.demand.items()]
    share = max((count / max(1, int(each.everywhere[0][0])) for each, count in scope.demand.items()), default=0.0)
    return (
        -max(levels),
        -max((each for each, _ in gpus), default=0),
        -sum(each * count for each, count in gpus),
        -share,
        scope.index,
    )
