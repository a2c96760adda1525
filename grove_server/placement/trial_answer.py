"""What a trial is asked amid, and what it answers.

Not here: how it comes to its answers (`trial`, `rounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from grove_server.placement.admittance import Queueing
from grove_server.placement.earmarks import Earmark
from grove_server.placement.planned import PlannedGang
from grove_server.placement.preemption import Preemption
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Placement, Verdict
from grove_server.resources.workload import PodCliqueSet, PodGang


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPart:
    """One question of a gang and the answer."""

    request: GangRequest
    outcome: Placement | Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAnswer:
    """What would happen to one gang.

    `parts`: the minimum, or what of it was lost; for a gang whose minimum stands, its surplus. A reason says why the
    gang, or the part of it in `refused`, was not asked for at all. `eviction` is who would have to go so that the first
    part that does not fit gets places, None if nobody could. `surplus_count`: pods beyond the minimum that wait,
    `surplus_placed`: those of them that get places after all minimums.
    """

    planned: PlannedGang
    parts: tuple[TrialPart, ...] = ()
    waiting_reason: str = ""
    waiting_message: str = ""
    refused: GangRequest | None = None
    eviction: Preemption | None = None
    surplus_count: int = 0
    surplus_placed: int = 0

    @property
    def telling(self) -> TrialPart | None:
        """Return the part to explain: the first that does not fit, else the first."""
        return next((part for part in self.parts if isinstance(part.outcome, Verdict)), next(iter(self.parts), None))

    @property
    def fits(self) -> bool:
        """Return whether all that was asked for has its places, without evictions; surplus of new gangs apart."""
        return not self.waiting_reason and all(isinstance(part.outcome, Placement) for part in self.parts)


Refused: TypeAlias = Sequence[tuple[GangRequest, Verdict]]
"""What a gang asked for, part by part, and why there was no room."""

BudgetsAfter: TypeAlias = Callable[[str, Collection[str]], tuple[tuple[str, int], ...]]
"""Returns by clique of a gang how many surplus pods may be taken, once some pods, by full name, have been told."""


def no_budgets(_gang: str, _told: Collection[str] = ()) -> tuple[tuple[str, int], ...]:
    """Return that a gang's surplus may go without bounds, where nothing is known of its set."""
    return ()


def no_gang(_name: str) -> PlannedGang | None:
    """Return that nothing is known of a gang beside what it holds."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What bounds a trial beside nodes and pods.

    `owner_of`: a gang's set, `budgets_of`: what its surplus spares; `gang_of`: a gang that is there by full name, with
    all its pods; `waiting`: gangs that are there and lack places, `refused`: what they were refused; `now`: epoch
    seconds.
    """

    owner_of: Callable[[PodGang], PodCliqueSet | None]
    queueing: Queueing = field(default_factory=Queueing)
    earmarks: Sequence[Earmark] = ()
    budgets_of: BudgetsAfter = no_budgets
    gang_of: Callable[[str], PlannedGang | None] = no_gang
    waiting: Callable[[], Sequence[PlannedGang]] = list
    refused: Mapping[str, Refused] = field(default_factory=dict)
    now: float = 0.0
