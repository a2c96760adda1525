"""What-ifs on a moment: the cluster changed as asked, gangs placed on it, and what that comes to.

Rules: first nodes come, sets and gangs go, nodes are drained; then the gangs that lost pods by that ask for new places,
then those of the sets: each in the order of the placement loop, minimums before surplus. Sets that run already are
taken as replaced. Everything happens on the moment, which is the caller's own copy.

Not here: one gang's trial (`trial`), moves (`consolidation`, `clearing`), reading questions and telling answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from grove_server.placement.fragmentation import SHAPES_MAX, Fragmentation, LargestGang, fragmentation, largest_gangs
from grove_server.placement.moment import Moment
from grove_server.placement.nodes import NodeState
from grove_server.placement.planned import PlannedGang, planned_gangs
from grove_server.placement.requests import Budget, PodShape
from grove_server.placement.rounds import Rounds
from grove_server.placement.shapes import shape_of
from grove_server.placement.trial_answer import TrialAnswer
from grove_server.placement.work import STEP_US, Work
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.resources.workload import PodCliqueSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChange:
    """What is different from the cluster as it is: nodes that come, names of nodes that are drained, and what is gone.

    `sets_gone` and `gangs_gone` are (namespace, name).
    """

    nodes_added: tuple[NodeState, ...] = ()
    nodes_drained: tuple[str, ...] = ()
    sets_gone: tuple[tuple[str, str], ...] = ()
    gangs_gone: tuple[tuple[str, str], ...] = ()

    @property
    def is_any(self) -> bool:
        """Return whether anything is different at all."""
        return bool(self.nodes_added or self.nodes_drained or self.sets_gone or self.gangs_gone)


NO_CHANGE = ClusterChange()

QUESTION_BUDGET: Final = Budget(steps_max=20_000)
"""What one question may cost: two seconds of calibrated work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """One question. `classes` are all there are by name, `queues` those that come with it.

    `keys` is the topology to tell figures by; times are epoch seconds; `budget` bounds the work.
    """

    sets: Sequence[PodCliqueSet]
    change: ClusterChange = NO_CHANGE
    classes: Mapping[str, PriorityClass] = field(default_factory=dict)
    queues: Sequence[Queue] = ()
    keys: tuple[str, ...] = ()
    now: float = 0.0
    budget: Budget = QUESTION_BUDGET


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfAnswer:
    """What would happen: gangs in the order of placement, the first `displaced_count` of them run now.

    `largest` are the largest gangs of the sets' own shapes before any was placed, `figures` hold after all were.
    `is_cut`: the budget was used up before everything was answered.
    """

    answers: tuple[TrialAnswer, ...]
    displaced_count: int
    pods_displaced: int
    largest: tuple[LargestGang, ...]
    figures: Fragmentation
    is_cut: bool = False


def ask_what_if(moment: Moment, question: WhatIf, is_abandoned: Callable[[], bool] = lambda: False) -> WhatIfAnswer:
    """Return what would happen; UnknownNodeError or NodeInvalidError for nodes that cannot be drained or added.

    `is_abandoned` is asked between gangs; AbandonedError if it says so.
    """
    change = question.change
    moment.cluster.upsert_nodes(change.nodes_added)
    for namespace, name in change.sets_gone:
        moment.remove_set(namespace, name)
    for namespace, name in change.gangs_gone:
        moment.remove_gang(namespace, name)
    for owner in question.sets:
        moment.bring(owner)
    moment.bring_queues(question.queues)
    pods_displaced = moment.pods_on(change.nodes_drained)
    displaced = moment.drain(change.nodes_drained) if change.nodes_drained else []
    planned = _planned(question, moment)
    found = largest_gangs(moment.cluster, question.keys, _shapes(planned))
    rounds = Rounds(
        moment.trial(now=question.now, work=Work(question.budget.steps_max * STEP_US)), is_abandoned=is_abandoned
    )
    first = rounds.run(displaced, with_waiting=change.is_any or bool(question.queues), is_all_new=bool(question.queues))
    asked = rounds.run(planned)
    answers = [*rounds.told_again(first), *asked]
    return WhatIfAnswer(
        answers=tuple(answers),
        displaced_count=len(displaced),
        pods_displaced=pods_displaced,
        largest=found,
        figures=fragmentation(moment.cluster, question.keys, moment.mix()),
        is_cut=rounds.is_cut,
    )


def _planned(question: WhatIf, moment: Moment) -> list[PlannedGang]:
    return [
        gang
        for owner in question.sets
        for copy in range(owner.spec.replicas or 0)
        for gang in planned_gangs(owner, copy, moment.levels, question.classes, question.now)
    ]


def _shapes(planned: Sequence[PlannedGang]) -> list[PodShape]:
    """Return the first different shapes of the gangs' pods."""
    return list(dict.fromkeys(_all_shapes(planned)))[:SHAPES_MAX]


def _all_shapes(planned: Sequence[PlannedGang]) -> Iterator[PodShape]:
    seen: set[str] = set()
    for gang in planned:
        for pod in gang.pods:
            template = pod.template
            if template.metadata.uid not in seen:
                seen.add(template.metadata.uid)
                yield shape_of(template.pod_spec, template.annotations)
