"""Queues: who may use how much of a cluster, as a tree of named shares.

Rules: a queue has per resource a guarantee (what nobody may take from it), a limit (what it never exceeds, with all
queues below it) and a weight for what others leave. Without a limit there is none; without a guarantee it is 0. What a
queue uses counts for every queue above it. Queues are built from specs, all problems told at once; a tree that has
errors is not built. A gang names a leaf. Of GPUs the tree counts in thousandths, so that a share of one counts as the
fraction that it is (`quota_amounts`); specs and whoever asks count whole ones, and shares beside them.

Not here: how much is fair now (`fair_share`), in which order gangs come (`turns`), who gives way (`reclaim`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from grove_server.placement.requests import GPU_RESOURCE, GPU_SHARE
from grove_server.placement.topology import IntArray
from grove_server.resources.gpu_annotations import GPU_MILLI

QUEUES_MAX: Final = 10_000
"""Most queues of one tree."""

DEPTH_MAX: Final = 16
"""Deepest nesting of queues."""

WEIGHT_MIN: Final = 0.001
WEIGHT_MAX: Final = 10_000.0

UNLIMITED: Final = 2**62
"""Stands for a limit where there is none."""


def quota_amounts(amounts: Mapping[str, int]) -> dict[str, int]:
    """Return what amounts count as in a tree: GPUs in thousandths, with the shares of them (`GPU_SHARE`)."""
    counted = {name: amount for name, amount in amounts.items() if name not in (GPU_RESOURCE, GPU_SHARE)}
    gpu_milli = amounts.get(GPU_RESOURCE, 0) * GPU_MILLI + amounts.get(GPU_SHARE, 0)
    return counted | {GPU_RESOURCE: gpu_milli} if gpu_milli else counted


def scale_of(resource: str) -> int:
    """Return how many of a tree's units one unit of a resource is."""
    return GPU_MILLI if resource == GPU_RESOURCE else 1


class Blocking(StrEnum):
    """What a gang that waits means for the gangs of its queue behind it, if they compete for the same nodes."""

    STRICT = "Strict"
    """They wait too."""
    SKIP_AHEAD = "SkipAhead"
    """They are placed where there is room; the waiting gang gets an earmarked domain after a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """One queue as users write it. Amounts are by resource, in the units of pods' requests.

    `weight` divides what is left over among the queues that want more than their guarantee; 0 = it never borrows.
    `priority`: of two queues that are equally served, the higher goes first. `earmark_after_s`: how long a gang waits
    until a domain is set aside for it; None = never.
    """

    name: str
    parent: str = ""
    guarantee: Mapping[str, int] = field(default_factory=dict)
    limit: Mapping[str, int] = field(default_factory=dict)
    weight: float = 1.0
    priority: int = 0
    blocking: Blocking = Blocking.SKIP_AHEAD
    earmark_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueProblem:
    """What is wrong with a queue; a warning leaves it usable."""

    queue: str
    message: str
    is_error: bool


class InvalidQueuesError(ValueError):
    """Specs that make no tree; `problems` has all errors."""

    def __init__(self, problems: tuple[QueueProblem, ...]) -> None:
        super().__init__("; ".join(f"queue {each.queue}: {each.message}" for each in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a queue does not admit a gang: of which queue's limit, and by how much of which resource it is exceeded.

    Amounts are in the units of the tree.
    """

    queue: str
    resource: str
    limit: int
    would_use: int

    def sentence(self) -> str:
        """Return the refusal as a sentence."""
        would_use, limit = (f"{each / scale_of(self.resource):.15g}" for each in (self.would_use, self.limit))
        return f"queue {self.queue} would use {would_use} of {self.resource}, its limit is {limit}"


class QueueTree:
    """Queues by number, parents before their children; names in order among siblings.

    `parents` int64[Q] (-1 = top), `levels`: numbers by depth, `guarantee` and `limit` int64[R, Q], `weights` [Q];
    `resources` numbers the rows: every resource that a guarantee or a limit speaks of.
    """

    def __init__(self, specs: Iterable[QueueSpec]) -> None:
        """Build the tree; InvalidQueuesError with every error if the specs make none."""
        specs = tuple(specs)
        errors = tuple(problem for problem in check_queues(specs) if problem.is_error)
        if errors:
            raise InvalidQueuesError(errors)
        by_parent: dict[str, list[QueueSpec]] = {}
        for spec in sorted(specs, key=lambda spec: spec.name):
            by_parent.setdefault(spec.parent, []).append(spec)
        self.specs: list[QueueSpec] = []
        self.levels: list[list[int]] = []
        here = by_parent.get("", [])
        while here:
            self.levels.append(list(range(len(self.specs), len(self.specs) + len(here))))
            self.specs += here
            here = [child for spec in here for child in by_parent.get(spec.name, [])]
        self.numbers = {spec.name: number for number, spec in enumerate(self.specs)}
        self.parents: IntArray = np.array([self.numbers.get(spec.parent, -1) for spec in self.specs], dtype=np.int64)
        names = sorted({name for spec in self.specs for name in (*spec.guarantee, *spec.limit)})
        self.resources = {name: row for row, name in enumerate(names)}
        self.guarantee: IntArray = self._rows(names, [spec.guarantee for spec in self.specs], 0)
        self.limit: IntArray = self._rows(names, [spec.limit for spec in self.specs], UNLIMITED)
        self.weights: npt.NDArray[np.float64] = np.array([spec.weight for spec in self.specs], dtype=np.float64)

    def spec(self, name: str) -> QueueSpec:
        """Return a queue's spec; KeyError if there is none."""
        return self.specs[self.numbers[name]]

    def lineage(self, name: str) -> list[str]:
        """Return a queue and those above it, from the queue up; KeyError if there is none."""
        names = []
        number = self.numbers[name]
        while number >= 0:
            names.append(self.specs[number].name)
            number = int(self.parents[number])
        return names

    def below(self, name: str) -> frozenset[str]:
        """Return a queue and all that are below it; KeyError if there is none."""
        inside = {self.numbers[name]}
        for level in self.levels[1:]:
            inside.update(number for number in level if int(self.parents[number]) in inside)
        return frozenset(self.specs[number].name for number in inside)

    def totals(self, amounts: Mapping[str, Mapping[str, int]], resources: Mapping[str, int]) -> IntArray:
        """Return int64[R, Q]: what each queue has together with all below it. Unknown queues count nowhere."""
        totals = self.own_amounts(amounts, resources)
        for level in reversed(self.levels[1:]):
            for row in totals:
                np.add.at(row, self.parents[level], row[level])
        return totals

    def own_amounts(self, amounts: Mapping[str, Mapping[str, int]], resources: Mapping[str, int]) -> IntArray:
        """Return int64[R, Q]: what each queue has without those below it. Unknown queues count nowhere."""
        own: IntArray = np.zeros((len(resources), len(self.specs)), dtype=np.int64)
        for name, held in amounts.items():
            number = self.numbers.get(name)
            if number is not None:
                for resource, amount in quota_amounts(held).items():
                    if resource in resources:
                        own[resources[resource], number] += amount
        return own

    def admits(
        self, queue: str, request: Mapping[str, int], used: Mapping[str, Mapping[str, int]]
    ) -> tuple[Refusal, ...]:
        """Return the limits that a gang's amounts would exceed, from its queue up; () if it may run.

        `used` is what the gangs of each queue hold, those of queues below it not counted in.
        """
        totals, request = self.totals(used, self.resources), quota_amounts(request)
        refusals = []
        for name in self.lineage(queue):
            number = self.numbers[name]
            for resource, row in self.resources.items():
                wanted, limit = request.get(resource, 0), int(self.limit[row, number])
                if wanted and totals[row, number] + wanted > limit:
                    would_use = int(totals[row, number]) + wanted
                    refusals.append(Refusal(queue=name, resource=resource, limit=limit, would_use=would_use))
        return tuple(refusals)

    def is_within_guarantee(
        self, queue: str, request: Mapping[str, int], used: Mapping[str, Mapping[str, int]]
    ) -> bool:
        """Return whether a queue, with a gang's amounts, stays within what it or a queue above it is guaranteed.

        A guarantee has to cover every resource that the gang asks for and guarantees speak of.
        """
        totals, request = self.totals(used, self.resources), quota_amounts(request)
        asked = [(row, request[name]) for name, row in self.resources.items() if request.get(name)]
        asked = [(row, amount) for row, amount in asked if self.guarantee[row].any()]
        if not asked:
            return False
        numbers = [self.numbers[name] for name in self.lineage(queue)]
        return any(
            all(totals[row, number] + amount <= self.guarantee[row, number] for row, amount in asked)
            for number in numbers
        )

    @staticmethod
    def _rows(names: list[str], amounts: list[Mapping[str, int]], missing: int) -> IntArray:
        rows = [
            [min(each[name] * scale_of(name), UNLIMITED) if name in each else missing for each in amounts]
            for name in names
        ]
        return np.array(rows, dtype=np.int64).reshape(len(names), len(amounts))


def check_queues(specs: Iterable[QueueSpec]) -> tuple[QueueProblem, ...]:
    """Return everything that is wrong with some queues: errors that make no tree, and warnings."""
    specs = tuple(specs)
    problems: list[QueueProblem] = []

    def note(queue: str, message: str, *, is_error: bool = True) -> None:
        problems.append(QueueProblem(queue=queue, message=message, is_error=is_error))

    if len(specs) > QUEUES_MAX:
        note("", f"{len(specs)} queues are more than {QUEUES_MAX}")
        return tuple(problems)
    known: dict[str, QueueSpec] = {}
    for spec in specs:
        if not spec.name:
            note(spec.name, "it has no name")
        elif spec.name in known:
            note(spec.name, "another queue has the same name")
        known.setdefault(spec.name, spec)
        for message in _own_problems(spec):
            note(spec.name, message)
    for spec in known.values():
        if spec.parent and spec.parent not in known:
            note(spec.name, f"its parent {spec.parent} does not exist")
        elif _depth(spec, known) is None:
            note(spec.name, f"it is its own ancestor, or deeper than {DEPTH_MAX}")
    for parent, children in _children(known).items():
        for message in _sum_problems(known[parent], children):
            note(parent, message, is_error=False)
    return tuple(sorted(problems, key=lambda each: (not each.is_error, each.queue, each.message)))


def _own_problems(spec: QueueSpec) -> Iterable[str]:
    """Yield what is wrong with a queue taken by itself."""
    if spec.weight and not WEIGHT_MIN <= spec.weight <= WEIGHT_MAX:
        yield f"its weight {spec.weight:g} is neither 0 nor between {WEIGHT_MIN:g} and {WEIGHT_MAX:g}"
    if spec.earmark_after_s is not None and not spec.earmark_after_s >= 0:
        yield f"earmarkAfter is {spec.earmark_after_s:g} s, less than nothing"
    for what, amounts in (("guarantee", spec.guarantee), ("limit", spec.limit)):
        for resource, amount in sorted(amounts.items()):
            if not 0 <= amount < UNLIMITED:
                yield f"its {what} of {resource}, {amount}, is not between 0 and {UNLIMITED - 1}"
    for resource, amount in sorted(spec.guarantee.items()):
        if amount > spec.limit.get(resource, UNLIMITED):
            yield f"its guarantee of {resource}, {amount}, is over its limit of {spec.limit[resource]}"


def _depth(spec: QueueSpec, known: Mapping[str, QueueSpec]) -> int | None:
    """Return how many queues are above one; None if they have no end within the bound."""
    depth = 0
    while spec.parent in known:
        spec = known[spec.parent]
        depth += 1
        if depth >= DEPTH_MAX:
            return None
    return depth


def _children(known: Mapping[str, QueueSpec]) -> dict[str, list[QueueSpec]]:
    children: dict[str, list[QueueSpec]] = {}
    for spec in known.values():
        if spec.parent in known:
            children.setdefault(spec.parent, []).append(spec)
    return children


def _sum_problems(parent: QueueSpec, children: list[QueueSpec]) -> Iterable[str]:
    """Yield the resources of which the queues below one are promised more than it is itself."""
    for resource in sorted({name for child in children for name in child.guarantee}):
        total = sum(child.guarantee.get(resource, 0) for child in children)
        if total > parent.guarantee.get(resource, 0):
            yield (
                f"the queues below it are guaranteed {total} of {resource}, it is guaranteed "
                f"{parent.guarantee.get(resource, 0)}: the difference is borrowed from others"
            )
        if total > parent.limit.get(resource, UNLIMITED):
            yield f"the queues below it are guaranteed {total} of {resource}, its limit is {parent.limit[resource]}"
