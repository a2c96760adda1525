"""What the API needs of the rooms that turn: answers of placement, health, and nothing else.

Structural protocols: the control room implements them without knowing this module, `app.py` passes its objects in.
Each says what the API may rely on. Changes to the workload never go this way; they go through the store, and the loops
wake by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from grove_server.control.dump import DumpWriter
from grove_server.control.planning import ClusterView, PlannedMoves
from grove_server.control.story import Story
from grove_server.lifecycle.orders import CopyOrders
from grove_server.placement.alternatives import Alternative
from grove_server.placement.fragmentation import Fragmentation, LargestGang
from grove_server.placement.preemption import Preemption
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.whatif import NO_CHANGE, ClusterChange
from grove_server.resources.autoscalers import AutoscalerRegistration
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.meta import Key
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.resources.routing import RouterRegistration
from grove_server.resources.workload import Pod, PodCliqueSet
from grove_server.runtime.containers import Command, CommandSession, LogQuery, Opened, Use


class Decision(Protocol):
    """Placement's last word on one gang. Times are epoch seconds."""

    @property
    def request(self) -> GangRequest | None:
        """What was asked; None for a gang that cannot be asked for yet (see ``waiting_reason``)."""

    @property
    def outcome(self) -> Placement | Verdict | None:
        """What placement answered; None for a gang it was not asked about."""

    @property
    def waiting_reason(self) -> str:
        """One CamelCase word when ``outcome`` is None (its base waits, its topology is unavailable), else empty."""

    @property
    def waiting_message(self) -> str:
        """The same as one sentence."""

    @property
    def since(self) -> float | None:
        """When the gang came into this state for this reason."""

    @property
    def evaluated_at(self) -> float | None:
        """When placement last looked."""

    @property
    def level_names(self) -> Mapping[str, str]:
        """Domain name (rack) per node label key (topology.grove.io/rack) of the gang's topology."""

    @property
    def nominated(self) -> Placement | None:
        """The places that are kept until the pods there are gone."""

    @property
    def queue(self) -> str:
        """The queue of the gang; empty if nobody asked about it."""

    @property
    def priority(self) -> int:
        """The priority of the gang."""

    @property
    def queue_position(self) -> int | None:
        """Which of its queue's waiting gangs it is, from 1; None if it does not wait."""

    @property
    def others(self) -> Sequence[Decision]:
        """Decisions on further parts that wait beside this one."""

    @property
    def later(self) -> Sequence[Decision]:
        """Decisions on parts of the minimum that were placed after the whole of it."""

    @property
    def surplus(self) -> Decision | None:
        """Why pods beyond the minimum of a placed gang wait; None if none does."""


class SimulatedGang(Protocol):
    """One gang of a what-if question."""

    @property
    def namespace(self) -> str:
        """Namespace of its set."""

    @property
    def name(self) -> str:
        """Name it has or would have."""

    @property
    def set_name(self) -> str:
        """Name of its set."""

    @property
    def is_base(self) -> bool:
        """Whether it is the base gang of its copy."""

    @property
    def decision(self) -> Decision:
        """What would happen to it."""

    @property
    def fits(self) -> bool:
        """Whether all its minimums would get places, without evictions."""

    @property
    def is_displaced(self) -> bool:
        """Whether it runs now and lost pods by the question itself."""

    @property
    def eviction(self) -> Preemption | None:
        """Who would have to leave so that it gets places; None if it fits, or nobody could."""

    @property
    def surplus_count(self) -> int:
        """Pods beyond its minimum; 0 if the minimum has no places."""

    @property
    def surplus_placed(self) -> int:
        """How many of those get places after all minimums."""


class Simulation(Protocol):
    """The answer to a what-if question."""

    @property
    def gangs(self) -> Sequence[SimulatedGang]:
        """In the order in which placement would take them; empty when there are more than were allowed."""

    @property
    def gang_count(self) -> int:
        """How many gangs the question has."""

    @property
    def largest(self) -> Sequence[LargestGang]:
        """Largest gangs of the sets' own shapes that fit before any is placed."""

    @property
    def figures(self) -> Fragmentation | None:
        """How GPUs are used afterwards; None when there are more gangs than were allowed."""

    @property
    def pods_displaced(self) -> int:
        """Pods that drained nodes lose."""


class PlacementPort(Protocol):
    """Questions to placement that change nothing."""

    def misfit(self, pod_spec: Mapping[str, Any], annotations: Mapping[str, str], together: int) -> str:
        """Return why so many pods of an admitted spec can never run at once, as a phrase; empty if they can."""

    def explain(self, namespace: str, name: str) -> Decision | None:
        """Return the last decision on a gang, asking placement once if it never looked; None if there is no such gang.

        One step of the event loop, at most 10 ms.
        """

    async def explain_now(self, namespace: str, name: str) -> Decision | None:
        """Return what `explain` says, asked again if the cluster changed since."""

    async def simulate(
        self,
        sets: Sequence[PodCliqueSet],
        bindings: Sequence[ClusterTopologyBinding],
        *,
        gang_count_max: int,
        classes: Sequence[PriorityClass] = (),
        queues: Sequence[Queue] = (),
        change: ClusterChange = NO_CHANGE,
    ) -> Simulation:
        """Return what would happen to these admitted sets on a copy of the cluster after *change*.

        Sets that exist are taken as replaced, bindings, classes and queues likewise. Yields to the loop; may be
        cancelled. UnknownNodeError and NodeInvalidError for nodes that cannot be drained or added.
        """

    async def alternatives(self, namespace: str, name: str) -> Sequence[Alternative]:
        """Return the next best domains of a placed gang, as things are now; empty if it is in no domain."""

    async def draw(self, topology_name: str = "") -> ClusterView | None:
        """Return the cluster as it is, by a topology (or the first by name); None if there is none of that name."""

    async def make_room(self, request: GangRequest, *, pods_max: int = 0) -> PlannedMoves:
        """Return which gangs to move so that a waiting gang gets what it asks for; 0 means the limit."""

    async def clear(
        self, topology_name: str = "", level: str = "", *, domains_max: int = 0, pods_max: int = 0
    ) -> PlannedMoves | None:
        """Return which gangs to move so that domains of a level (or nodes) come free; None if there is no such one."""


class RegisteredRouter(Protocol):
    """A router that is waited for."""

    @property
    def registration(self) -> RouterRegistration:
        """What is stored of it."""

    @property
    def watches(self) -> int:
        """How many watches it has open."""

    @property
    def left_s(self) -> float:
        """What is left of its lease, in seconds."""


class RoutersPort(Protocol):
    """Who routes to which set. An empty set name means all sets of the namespace."""

    def known(self, namespace: str, set_name: str) -> Sequence[RegisteredRouter]:
        """Return the routers of a set and those of its whole namespace, by name."""

    def is_known(self, namespace: str, set_name: str, router: str) -> bool:
        """Return whether the router is registered for the set, or for all sets of the namespace."""

    def touch(self, namespace: str, set_name: str, router: str) -> None:
        """Renew what leases the router has on the set."""

    def watching(self, namespace: str, set_name: str, router: str) -> AbstractContextManager[None]:
        """Keep a registered router's lease alive; a whole one is left at the end."""

    async def renew(self, namespace: str, set_name: str, router: str) -> bool:
        """Give a router a whole lease, durably; return whether it was new. Raises TooManyRoutersError."""

    async def end(self, namespace: str, set_name: str, router: str) -> bool:
        """Forget a router; return whether it was known."""


class LoadsPort(Protocol):
    """How busy pods are, as routers report it."""

    def report(self, namespace: str, set_name: str, router: str, loads: Mapping[str, int]) -> int:
        """Take in what *router* has under way and queued at pods of a set; return how many of them are of the set."""


class RegisteredAutoscaler(Protocol):
    """An autoscaler that is alive."""

    @property
    def registration(self) -> AutoscalerRegistration:
        """What is stored of it."""

    @property
    def leads(self) -> bool:
        """Whether it is the one that scales."""

    @property
    def left_s(self) -> float:
        """What is left of its lease, in seconds."""


class AutoscalerStanding(Protocol):
    """What an autoscaler is told of itself."""

    @property
    def leads(self) -> bool:
        """Whether it is the one that scales."""

    @property
    def leader(self) -> str:
        """Name of the one that is."""

    @property
    def term(self) -> int:
        """How often it changed who leads."""

    @property
    def is_new(self) -> bool:
        """Whether it was not known."""


class AutoscalersPort(Protocol):
    """Who scales."""

    @property
    def term(self) -> int:
        """How often it changed who leads."""

    def leader(self) -> RegisteredAutoscaler | None:
        """Return the autoscaler that leads, None if none that is alive does."""

    def known(self) -> Sequence[RegisteredAutoscaler]:
        """Return the living autoscalers by name."""

    async def register(self, name: str, address: str, *, version: str = "", identity: str = "") -> AutoscalerStanding:
        """Give an autoscaler a whole lease, durably. Raises errors of ``control.autoscalers``."""

    async def deregister(self, name: str, *, identity: str = "") -> bool:
        """Forget an autoscaler; return whether it was known. Raises errors of ``control.autoscalers``."""


class OrdersPort(Protocol):
    """How pods of a set are stopped now."""

    def for_set(self, namespace: str, set_name: str) -> CopyOrders:
        """Return what holds for every copy of a set, whether or not the set still exists."""


class ChroniclePort(Protocol):
    """What the server remembers of itself."""

    @property
    def is_current(self) -> bool:
        """Whether a dump would show one moment; a very large commit takes some steps to be noticed."""

    def story(self, key: Key, *, uid: str = "") -> Story:
        """Return what is remembered of *key*, or only of the resource with *uid*; empty if that is nothing."""

    def dump(self, facts: Mapping[str, str]) -> DumpWriter:
        """Take a dump of everything as it is now; *facts* tell where it comes from."""


class ControlPort(Protocol):
    """The loops and what they share, as far as the API asks them."""

    @property
    def planning(self) -> PlacementPort:
        """Questions to placement."""

    @property
    def routers(self) -> RoutersPort:
        """Who routes to which set."""

    @property
    def autoscalers(self) -> AutoscalersPort:
        """Who scales."""

    @property
    def loads(self) -> LoadsPort:
        """How busy pods are."""

    @property
    def orders(self) -> OrdersPort:
        """How pods are stopped."""

    @property
    def chronicle(self) -> ChroniclePort:
        """What the server remembers of itself."""


class ContainersPort(Protocol):
    """What runs in pods. All three raise ContainerRefusedError; an empty name means the first container."""

    def logs(self, pod: Pod, container: str, query: LogQuery) -> Opened:
        """Open the output of a container; whoever asked closes it."""

    async def run(self, pod: Pod, container: str, command: Command) -> tuple[str, CommandSession]:
        """Run a command beside a container; return the container's name and the session, which the caller closes."""

    async def usage(self, pods: Iterable[Pod]) -> Use:
        """Return what those of *pods* that run use, and the nodes that they could run on. Waits for a second sample."""


class HealthPort(Protocol):
    """Whether the parts of the server work."""

    def problems(self) -> Mapping[str, str]:
        """Return what is wrong, by part ("store", "workload-loop", ...); empty when all is well."""


class AlwaysHealthy:
    """The health of a server that has no loops (tests, tools)."""

    def problems(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}
