"""The loops and what they share, as one thing that starts and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from grove_server.control.autoscalers import Autoscalers
from grove_server.control.chronicle import Chronicle
from grove_server.control.clock import Clock
from grove_server.control.consolidator import NO_CONSOLIDATION, Consolidation, Consolidator
from grove_server.control.events import EventRecorder
from grove_server.control.freed_places import FreedPlaces
from grove_server.control.loads import Loads
from grove_server.control.node_troubles import NodeTroubles
from grove_server.control.orders import OrdersDesk, Patience
from grove_server.control.pace import Pace
from grove_server.control.placement_loop import PlacementLoop
from grove_server.control.planning import Planning
from grove_server.control.routers import Routers
from grove_server.control.solver_pool import SolverPool
from grove_server.control.workload_loop import WorkloadLoop
from grove_server.lifecycle.rollout.progress import SETTLE_S
from grove_server.store.interface import Store

DEFAULT_PATIENCE: Final = Patience()


class ControlPlane:
    """Workload loop, placement loop, events and the answers of placement. *busy* says whether calls are in flight.

    *solver* is asked about gangs that the search gives up on; whoever opened it closes it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        busy: Callable[[], bool],
        stopwatch: Callable[[], float] = time.perf_counter,
        *,
        patience: Patience = DEFAULT_PATIENCE,
        update_settle_s: float = SETTLE_S,
        solver: SolverPool | None = None,
        consolidation: Consolidation = NO_CONSOLIDATION,
    ) -> None:
        self._store = store
        self.events = EventRecorder(store, clock)
        self.chronicle = Chronicle(store, clock, self.events)
        self.routers = Routers(store, clock)
        self.autoscalers = Autoscalers(store, clock)
        self.loads = Loads(store, clock)
        self.nodes = NodeTroubles(store, clock)
        self.freed = FreedPlaces(store)
        self.orders = OrdersDesk(store, self.routers, self.loads, self.nodes, self.freed, patience)
        self.placement = PlacementLoop(
            store, clock, Pace(busy, stopwatch), self.events, pool=solver, orders_of=self.orders.for_set
        )
        self.workload = WorkloadLoop(
            store, clock, Pace(busy, stopwatch), self.events, self.orders, update_settle_s=update_settle_s
        )
        self.planning = Planning(store, self.placement, clock)
        self.consolidator = Consolidator(
            consolidation,
            clock,
            waiting=self.placement.desk.waiting,
            generation=lambda: self.placement.cluster.generation,
            plan=self.planning.relieve,
            hand_over=self.placement.relieve,
        )

    def start(self) -> None:
        """Take over what the store holds and begin."""
        self.events.adopt()
        self.chronicle.start()
        self.routers.start()
        self.nodes.start()
        self.freed.start()
        self.placement.start()
        self.workload.start()
        self.consolidator.start()

    async def stop(self) -> None:
        """End the loops; what they committed stays."""
        await self.consolidator.stop()
        await self.workload.stop()
        await self.placement.stop()
        await self.routers.stop()
        self.nodes.stop()
        self.freed.stop()
        self.chronicle.stop()
        self.events.close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be decided."""
        return self.workload.is_idle and self.placement.is_idle

    def problems(self) -> Mapping[str, str]:
        """Return what is wrong, by part; empty when all is well."""
        return {
            loop.name: loop.problem
            for loop in (self.workload, self.placement, self.routers, self.consolidator)
            if loop.problem
        }
