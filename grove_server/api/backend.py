"""What the services stand on, put together once by the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grove_server.api.changes import Changes
from grove_server.api.forwarding import Forwarder
from grove_server.api.ports import (
    AutoscalersPort,
    ChroniclePort,
    ContainersPort,
    LoadsPort,
    OrdersPort,
    PlacementPort,
    RoutersPort,
)
from grove_server.api.reading import Shared
from grove_server.api.set_sizes import ScalesUnderway


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What `ServerService` tells. Times are epoch seconds."""

    version: str
    commit: str
    store: str
    runtime: str
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Reading, changing, asking."""

    shared: Shared
    changes: Changes
    placement: PlacementPort
    routers: RoutersPort
    loads: LoadsPort
    orders: OrdersPort
    chronicle: ChroniclePort
    autoscalers: AutoscalersPort
    forwarder: Forwarder
    containers: ContainersPort
    now: Callable[[], float]
    facts: ServerFacts
    gangs_per_question_max: int = 2_000
    is_exec_on: bool = True

    @property
    def scales(self) -> ScalesUnderway:
        """What calls asked for that may not be visible yet."""
        return self.changes.scales
