"""What a round decided for one copy, until it becomes one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from grove_server.control.decisions import Decision
from grove_server.control.evictions import Eviction
from grove_server.control.nominations import Nominated, as_stored
from grove_server.control.seats import key_of_name
from grove_server.lifecycle.gang_status import PodGroupCounts, displaced, with_earmark, with_gang_status
from grove_server.placement.gangs import Ask, GangScene, is_placed
from grove_server.placement.preemption import VictimKind
from grove_server.placement.requests import PodShape, minimum_of
from grove_server.placement.results import Placement
from grove_server.placement.standing import Standing
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.replacing import replace
from grove_server.resources.workload import Nomination, Pod, PodGang
from grove_server.store.interface import Change, Put, Reader

UNSCHEDULABLE: Final = "Unschedulable"
GATED: Final = "SchedulingGated"

# A waiting gang's sentence changes with every pod that comes and goes; rewriting it each time would only make noise.
MESSAGE_REFRESH_S: Final = 5.0

StandingOf: TypeAlias = Callable[[PodGang, Mapping[str, Sequence[str]]], Standing | None]
"""Returns where a gang stands, given the nodes of its bound pods by pod group; None if nobody can tell."""


class CopyKey(NamedTuple):
    """One copy of a set."""

    set_uid: str
    copy: int


@dataclass(slots=True)
class CopyDraft:
    """Decisions for the gangs of one copy.

    ``pods`` are pods with their new nodes, by name; ``last_taken`` those of the last ``take`` with their shapes.
    ``newly_placed`` are gangs that this draft places, as they were before. ``surplus`` says which gangs may still get
    pods beyond their minimum in this round. ``again`` are gangs that changed while the commit was on its way.
    ``evictions`` are, by gang, the pods of others that this draft tells to leave for it.
    """

    key: CopyKey
    pods: dict[str, Pod] = field(default_factory=dict)
    surplus: dict[Key, bool] = field(default_factory=dict)
    decisions: dict[Key, Decision] = field(default_factory=dict)
    again: set[Key] = field(default_factory=set)
    newly_placed: list[PodGang] = field(default_factory=list)
    last_taken: list[tuple[Pod, PodShape]] = field(default_factory=list)
    evictions: dict[Key, Eviction] = field(default_factory=dict)
    _gangs: dict[Key, GangNews] = field(default_factory=dict)
    _waiting: set[Key] = field(default_factory=set)

    @property
    def touched(self) -> set[Key]:
        """The gangs this draft says something about, or about whose pods."""
        return set(self._gangs) | self._waiting

    @property
    def has_surplus(self) -> bool:
        """Whether the round may add surplus pods to this draft."""
        return any(self.surplus.values())

    def take(self, gang: PodGang, ask: Ask, placement: Placement, now: float) -> None:
        """Give the bindings of *placement*, which are as many as are wanted, to the pods of *ask*."""
        self.last_taken = []
        for clique in placement.cliques:
            for pod, binding in zip(ask.pods[clique.name], clique.bindings, strict=False):
                bound = replace(
                    pod,
                    node=binding.node,
                    gpu_ids=binding.gpu_ids,
                    scheduled_at=now,
                    waiting_reason="",
                    waiting_message="",
                )
                self.pods[pod.metadata.name] = bound
                self.last_taken.append((bound, clique.shape))
        news = self._news(gang)
        news.score = placement.score if news.score is None else min(news.score, placement.score)

    def nominate(self, gang: PodGang, nominated: Nominated | None, now: float) -> None:
        """Let a gang's status say which places are kept for it, or that none are."""
        news = self._news(gang)
        news.is_renominated = True
        news.nomination = None if nominated is None else as_stored(nominated, now)

    def earmark(self, gang: PodGang, domain: str) -> None:
        """Let a gang's condition say which domain is set aside for it; "" = none any more."""
        self._news(gang).earmark = domain

    def remember(self, key: Key, ask: Ask, decision: Decision, placed: Mapping[Key, Decision]) -> None:
        """Keep why a gang is where it is, beside what *placed* says of it so far.

        That was decided with its minimum. Parts of it that come later are added; surplus only follows.
        """
        if ask.is_whole:
            self.decisions[key] = decision
        elif minimum_of(ask.request):
            before = self.decisions.get(key) or placed.get(key) or Decision(level_names=decision.level_names)
            self.decisions[key] = before.with_later(decision)

    def wait(self, gang: PodGang, scene: GangScene, decision: Decision, now: float) -> None:
        """Note that a gang, or what is left of it, has to wait; nothing is written if that was said before."""
        self._waiting.add(key_of(gang))
        reason = GATED if decision.request is None else UNSCHEDULABLE
        message = decision.message
        for pods in scene.pods.unbound.values():
            for pod in pods:
                if pod.waiting_reason != reason:
                    self.pods[pod.metadata.name] = replace(pod, waiting_reason=reason, waiting_message=message)
        if is_placed(gang, scene.pods):
            return
        old = gang.status
        # Fresh is what was said a moment ago; said later than now, before the clock was set back, is as good as old.
        is_stale = old.message != message and not 0 <= now - self._said_at(gang) < MESSAGE_REFRESH_S
        if old.reason != decision.reason or is_stale:
            news = self._news(gang)
            news.reason, news.message = decision.reason, message

    def changes(self, reader: Reader, now: float, standing_of: StandingOf) -> list[Change]:
        """Return the commit: each pod on the version it was decided on, each gang on the newest.

        A gang whose pods got nodes is told where all of its pods stand after the commit. Who has to leave is told in
        the same commit as the gang that gets the places.
        """
        if not (self.pods or self._gangs):
            return []
        changes: list[Change] = [Put(pod, pod.resource_version) for pod in self.pods.values()]
        for key, news in self._gangs.items():
            gang = reader.get(PodGang, key.namespace, key.name)
            if gang is None:
                continue
            counts, nodes = _census(gang, reader, self.pods)
            standing = standing_of(gang, nodes) if news.score is not None or news.is_moved else None
            told = with_gang_status(news.told(gang, standing, now), counts, now=now)
            told = gang if told == gang else told
            if told is not gang:
                changes.append(Put(told, gang.resource_version))
            if told.status.scheduled_at is not None and gang.status.scheduled_at is None:
                self.newly_placed.append(gang)
        for key, eviction in self.evictions.items():
            changes += _departures(key, eviction, reader, now)
        return changes

    def tell_place(self, gang: PodGang) -> None:
        """Note that a gang does not stand any more where it says, though nothing of it was placed."""
        self._news(gang).is_moved = True

    def _news(self, gang: PodGang) -> GangNews:
        return self._gangs.setdefault(key_of(gang), GangNews())

    @staticmethod
    def _said_at(gang: PodGang) -> float:
        return max((c.last_transition_at for c in gang.status.conditions), default=0.0)


@dataclass(slots=True)
class GangNews:
    """What a draft says of one gang.

    ``score`` is the worst of what it took, None if it took nothing; ``is_moved``: it stands elsewhere all the same.
    ``is_renominated``: other places are kept for it than before, or none any more. ``earmark``: the domain that is set
    aside for it now, "" = none any more, None = as before.
    """

    score: float | None = None
    is_moved: bool = False
    is_renominated: bool = False
    nomination: Nomination | None = None
    earmark: str | None = None
    reason: str = ""
    message: str = ""

    def told(self, gang: PodGang, standing: Standing | None, now: float) -> PodGang:
        """Return the gang with this news in its status.

        Levels that are preferred make the score, from where all pods stand. Where none is, the score is that of the
        worst part: nobody can say afterwards how few nodes could have done.
        """
        if self.earmark is not None:
            gang = with_earmark(gang, self.earmark, now=now)
        status = gang.status
        scores = [score for score in (status.placement_score, self.score) if score is not None]
        score = min(scores, default=None)
        topology = status.topology
        if standing is not None:
            topology = standing.domains
            score = score if standing.score is None else standing.score
        return replace(
            gang,
            status=replace(
                status,
                reason=self.reason or status.reason,
                message=self.message or status.message,
                placement_score=score,
                topology=topology,
                nomination=self.nomination if self.is_renominated else status.nomination,
            ),
        )


def _departures(key: Key, eviction: Eviction, reader: Reader, now: float) -> list[Change]:
    """Return the changes that tell pods, and the gangs that go as a whole, to leave for a gang."""
    changes: list[Change] = [Put(pod, pod.resource_version) for pod in eviction.stops]
    for victim in eviction.plan.victims:
        name = key_of_name(victim.gang, Kind.POD_GANG)
        gang = None if victim.gang.startswith("~") else reader.get(PodGang, name.namespace, name.name)
        if gang is not None and victim.kind is VictimKind.GANG:
            told = displaced(gang, eviction.why, f"its places go to {eviction.told(key)}", now=now)
            changes.append(Put(told, gang.resource_version))
    return changes


def _census(
    gang: PodGang, reader: Reader, overlay: dict[str, Pod]
) -> tuple[list[PodGroupCounts], dict[str, list[str]]]:
    """Return a gang's pods as they are after the commit: how many, and the nodes of each pod group."""
    counts = []
    nodes: dict[str, list[str]] = {}
    for group in gang.pod_groups:
        where = nodes[group.name] = []
        active = ready = 0
        for name in group.pods:
            pod = overlay.get(name) or reader.get(Pod, gang.metadata.namespace, name)
            if pod is None or not pod.is_active:
                continue
            active += 1
            if pod.node:
                where.append(pod.node)
            ready += pod.ready_at is not None
        counts.append(PodGroupCounts(group.min_replicas, active, len(where), ready))
    return counts, nodes
