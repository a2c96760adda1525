"""Those who leave in a what-if: asked by a plan, told at the end of a round, gone at last.

Rules: as on the server. From the moment a plan asks them they no longer count for their gangs, but hold their places
and count for their queues until they are gone; meanwhile they stand under the name of pods that leave, so that the next
plan counts on their places first. Pods that left when the question was asked go with the first that go.

Not here: who has to leave (`making_room`), what their gangs do then (`trial`).
"""

from __future__ import annotations

from dataclasses import replace

from grove_server.placement.admittance import Admittance
from grove_server.placement.gang_facts import facts_of_leaving, is_leaving
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.preemption import Preemption, VictimKind
from grove_server.placement.stage import Stage


class Leaving:
    """Who leaves one copy of a cluster; without an occupancy nobody does."""

    def __init__(self, stage: Stage, occupancy: Occupancy | None, queues: Admittance) -> None:
        self._stage = stage
        self._occupancy = occupancy
        self._queues = queues
        self._asked: dict[str, str] = {}
        self._whole: set[str] = set()
        self.told: set[str] = set()

    def has(self, pod: str) -> bool:
        """Return whether a pod leaves."""
        return pod in self._asked or pod in self.told

    def is_being_told(self, plan: Preemption) -> bool:
        """Return whether a plan asks pods, or ends gangs, of which some were asked in this round and are not told."""
        gangs = {victim.gang for victim in plan.victims if victim.kind is VictimKind.GANG}
        return any(pod in self._asked for pod in plan.pods) or not gangs.isdisjoint(self._asked.values())

    def is_displaced(self, gang: str) -> bool:
        """Return whether a gang was asked to leave as a whole in this round; nothing is placed for it until then."""
        return gang in self._whole

    def take(self, plan: Preemption) -> None:
        """Note who is asked to leave."""
        occupancy = self._occupancy
        assert occupancy is not None, "nobody plans without knowing who sits where"
        seats = [occupancy.seat(occupancy.pods[pod]) for pod in plan.pods]
        seats = [seat for seat in seats if not is_leaving(seat.gang)]
        facts = {seat.gang: occupancy.gang(occupancy.gangs[seat.gang]) for seat in seats}
        occupancy.remove_pods([seat.pod for seat in seats])
        for own in facts.values():
            away = facts_of_leaving(own)
            if away.name not in occupancy.gangs:
                occupancy.set_gang(away)
            # What its cliques can spare is looked up anew.
            occupancy.set_gang(replace(own, evictable_surplus=()))
        occupancy.add_pods([replace(seat, gang=facts_of_leaving(facts[seat.gang]).name) for seat in seats])
        self._whole.update(victim.gang for victim in plan.victims if victim.kind is VictimKind.GANG)
        self._asked.update((seat.pod, seat.gang) for seat in seats)

    def tell(self) -> list[tuple[str, str]]:
        """Tell those who were asked; return gang and name of each."""
        asked, self._asked = self._asked, {}
        self._whole.clear()
        self.told.update(asked)
        return [(gang, pod) for pod, gang in asked.items()]

    def go(self) -> bool:
        """Let all go who leave; return whether anybody was left to go."""
        occupancy = self._occupancy
        if occupancy is None:
            return False
        gone = [seat for seat in occupancy.seats if seat is not None and is_leaving(seat.gang)]
        for seat in gone:
            self._stage.cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
            namespace, _, name = seat.pod.partition("/")
            self._stage.peers.release(namespace, name)
            self._queues.take(occupancy.gang(occupancy.gangs[seat.gang]).queue, seat.shape, -1)
        occupancy.remove_pods([seat.pod for seat in gone])
        return bool(gone)
