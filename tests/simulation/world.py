"""The world around the server: its time, its disk, its nodes, and the moments at which something happens.

The world is a discrete-event simulator. It runs the server's loop until nothing is left to do at this instant, then
moves time on to whatever comes first: a timer of the server, or an action of its own. All randomness comes from
streams named after what they are for, so that one concern's draws do not shift another's.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.meta import Key, Kind, Resource, key_of
from grove_server.resources.workload import Pod, PodGang
from grove_server.runtime.cluster_file import ClusterFile
from grove_server.store.interface import Change, Delete, Put
from grove_server.store.journal import Commit
from grove_server.store.state import Write
from tests.simulation import manifests
from tests.simulation.books import Books
from tests.simulation.convergence import account
from tests.simulation.disk import Disk, DiskMood
from tests.simulation.follower import Follower, Habits
from tests.simulation.history import History
from tests.simulation.invariants import check_commit
from tests.simulation.operators import Operators
from tests.simulation.ranks import CLASSES, QUEUES
from tests.simulation.routers import Fleet
from tests.simulation.server import SimServer, Stopwatch, Surroundings
from tests.simulation.unreliable import NoticeMood, RuntimeMood
from tests.simulation.users import Users
from tests.simulation.virtual_loop import VirtualTime

# How long whoever supervises the server waits before starting it again.
RESTART_S: Final = 1.0
EPOCH_S: Final = 1_700_000_000.0
FOLLOWED: Final = (
    (Kind.POD, None),
    (Kind.POD, "default"),
    (Kind.POD_GANG, None),
    (Kind.POD_CLIQUE, "team-a"),
    (Kind.POD_CLIQUE_SET, None),
    (Kind.NODE, None),
    (Kind.EVENT, None),
)
# While calls are in flight the loops step aside for up to 0.1 s between deciding and committing.
_STEP_ASIDE_S: Final = 0.25


class InvariantError(AssertionError):
    """Something that must hold at all times does not."""


class World:
    """One run's world. Everything in it follows from the seed."""

    def __init__(
        self, seed: str, *, nodes: int, nodes_per_rack: int, sets_max: int, is_thorough: bool, steps_aside: bool
    ) -> None:
        self.seed = seed
        self.time = VirtualTime()
        self.offset_s = EPOCH_S
        self.sets_max = sets_max
        self._uids = self.stream("uids")
        self.disk = Disk(epoch=self.stream("epoch").getrandbits(60))
        self.disk_mood = DiskMood()
        self.runtime_mood = RuntimeMood()
        self.notice_mood = NoticeMood()
        self.on_serving: list[Callable[[SimServer], None]] = []
        self.history = History(is_thorough=is_thorough)
        self.books = Books(self.disk.rows)
        self.users = Users(self.stream("users"), self.books, self.epoch_now, sets_max=sets_max)
        self.operators = Operators(self.stream("operators"), self.users, self.books)
        self.fleet = Fleet(self.stream)
        self.on_serving.append(self.fleet.come_back)
        self.stopwatch = Stopwatch(self.time, self.stream("stopwatch"))
        self._steps_aside = steps_aside
        self._slack_s = _STEP_ASIDE_S if steps_aside else 0.0
        self._around = Surroundings(
            time=self.time,
            epoch_now=self.epoch_now,
            disk=self.disk,
            disk_mood=self.disk_mood,
            runtime_mood=self.runtime_mood,
            notice_mood=self.notice_mood,
            auditor=self,
            books=self.books,
            stopwatch=self.stopwatch,
            new_uid=self.new_uid,
            steps_aside_for_calls=steps_aside,
            on_serving=self.on_serving,
        )
        self._nodes = {(each := self._node(index, nodes_per_rack)).metadata.name: each for index in range(nodes)}
        self.present = dict.fromkeys(self._nodes)
        self.has_topology = True
        self.followers = [
            Follower(kind=kind, namespace=namespace, habits=Habits(), rng=self.stream(f"follower {number}"))
            for number, (kind, namespace) in enumerate(FOLLOWED)
        ]
        self.server: SimServer | None = None
        self.server_count = 0
        # When the server last started or its clock was set: what it waits for may begin anew then.
        self.troubled_at_s = 0.0
        self._graveyard: list[SimServer] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.callback_count = 0
        self._accounted: set[Key] = set()

    def take_over(self, rows: Sequence[Resource], *, version: int, epoch_s: float) -> None:
        """Begin with *rows* on the disk, those that others refer to first, and with their nodes, at that moment."""
        self.offset_s = epoch_s - self.time.now_s
        self.has_topology = False
        for row in rows:
            write = Write(key_of(row), row, row.resource_version)
            self.disk.sync([write])
            self.books.enter(write, None)
            if isinstance(row, Node):
                self._nodes[row.metadata.name] = row
                self.present[row.metadata.name] = None
            elif isinstance(row, PodGang) and row.status.scheduled_at is not None:
                self.books.placed_gangs.add(row.metadata.uid)
        self.disk.version = max(version, max((row.resource_version for row in rows), default=0))
        self.disk.deleted_version = self.disk.version

    # Randomness and time.

    def stream(self, name: str) -> random.Random:
        """Return the random stream of one concern."""
        return self.stream_of(self.seed, name)

    @staticmethod
    def stream_of(seed: str, name: str) -> random.Random:
        """Return a random stream of a seed. Text seeds are hashed, the same in every process."""
        return random.Random(f"{seed}/{name}")

    def new_uid(self) -> str:
        """Return a fresh uid."""
        return str(uuid.UUID(int=self._uids.getrandbits(128), version=4))

    def epoch_now(self) -> float:
        """Return the wall clock; faults may set it."""
        return self.time.now_s + self.offset_s

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        self._sequence += 1
        heapq.heappush(self._agenda, (self.time.now_s + delay_s, self._sequence, action))

    def run_for(self, duration_s: float) -> None:
        """Let time pass. Raises InvariantError, LivelockError or whatever a check found."""
        end_s = self.time.now_s + duration_s
        while True:
            if self.server is not None:
                self.server.loop.run_ready()
            self._raise_problems()
            self._check_finished()
            if self.server is not None and self.server.gave_up:
                self.crash_server()
                self.at(RESTART_S, self.ensure_server)
            next_s = self._next_at()
            if next_s is None or next_s > end_s:
                self.time.now_s = end_s
                return
            self.time.now_s = max(self.time.now_s, next_s)
            while self._agenda and self._agenda[0][0] <= self.time.now_s:
                heapq.heappop(self._agenda)[2]()

    def _check_finished(self) -> None:
        """Check placement's account when pods have ended: they do not stay for long, and what they held is free."""
        finished, server = self.books.finished, self.server
        if not finished or finished.keys() <= self._accounted or server is None or not server.is_quiet:
            return
        self._accounted = set(finished)
        for problem in account(server, self.books):
            raise InvariantError(problem)

    def _next_at(self) -> float | None:
        times = [self._agenda[0][0]] if self._agenda else []
        due_s = None if self.server is None else self.server.loop.next_at()
        if due_s is not None:
            times.append(due_s)
        return min(times) if times else None

    def _raise_problems(self) -> None:
        problems = [] if self.server is None else self.server.loop.problems
        for follower in self.followers:
            problems += follower.problems
        if problems:
            raise InvariantError("; ".join(problems))

    # The server's life.

    def start_server(self) -> None:
        """Start the server on what the disk holds."""
        assert self.server is None, "one server at a time"
        self.server_count += 1
        self.troubled_at_s = self.time.now_s
        self.server = SimServer(self._around, self.stream(f"server {self.server_count}"))
        nodes = tuple(self._described(self._nodes[name]) for name in sorted(self.present))
        bindings = (manifests.topology(uid="", now=0.0),) if self.has_topology else ()
        cluster = ClusterFile(nodes=nodes, bindings=bindings, priority_classes=CLASSES, queues=QUEUES)
        self.server.start(cluster, self.followers)

    def ensure_server(self) -> None:
        """Start the server unless it is there."""
        if self.server is None:
            self.start_server()

    @property
    def serving(self) -> SimServer:
        """The server, which must be there and serve."""
        if self.server is None or not self.server.is_serving:
            raise InvariantError("the server was asked something while it was away")
        return self.server

    def crash_server(self) -> None:
        """Cut the power; what was not synced is lost."""
        server, self.server = self.server, None
        if server is not None:
            server.crash()
            self.fleet.cut()
            self.callback_count += server.loop.callback_count
            self._graveyard.append(server)
            for problem in self.users.broken_promises():
                raise InvariantError(problem)

    def bury(self) -> None:
        """Take apart what crashed servers left behind."""
        if self.server is not None:
            self.crash_server()
        for server in self._graveyard:
            server.loop.bury()
        self._graveyard.clear()

    def audit(self, commit: Commit, previous: dict[Key, Resource | None]) -> None:
        """Check one durable commit."""
        self.history.commit(self.time.now_s, commit)
        self.books.now_s = self.time.now_s
        last = 0
        for write in commit.writes:
            if write.version <= last:
                raise InvariantError(f"version {write.version} follows {last}")
            last = write.version
        # Entered key by key: of several writes of one key the books need the last.
        for write in {write.key: write for write in commit.writes}.values():
            self.books.enter(write, previous[write.key])
        for problem in check_commit(self.books, commit, previous, commit.decided_at_s - self._slack_s, self.fleet):
            raise InvariantError(problem)

    # Nodes.

    def commit(self, changes: list[Change], cause: str) -> bool:
        """Let something outside the API change the store; return whether the server was there."""
        if self.server is None or not self.server.is_serving:
            return False
        self.server.store.commit_soon(changes, cause=cause).add_done_callback(lambda done: done.exception())
        return True

    def remove_nodes(self, names: list[str]) -> None:
        """Let nodes vanish, as if they left the cluster."""
        for name in names:
            self.present.pop(name, None)
        self.commit([Delete(Key(Kind.NODE, "", name)) for name in names], "nodes")

    def add_nodes(self, names: list[str]) -> None:
        """Let nodes join (again)."""
        self.present.update(dict.fromkeys(names))
        now = self.epoch_now()
        missing = [name for name in names if Key(Kind.NODE, "", name) not in self.disk.rows]
        nodes = [replace(self._nodes[name], ready_changed_at=now) for name in missing]
        self.commit(
            [Put(replace(n, metadata=replace(n.metadata, uid=self.new_uid(), created_at=now)), 0) for n in nodes],
            "nodes",
        )

    def all_nodes(self) -> list[str]:
        """Return the names of all nodes, present or not."""
        return list(self._nodes)

    def absent_nodes(self) -> list[str]:
        """Return the names of the nodes that are away."""
        return [name for name in self._nodes if name not in self.present]

    def set_topology(self, *, is_there: bool) -> None:
        """Remove the topology binding or bring it back."""
        self.has_topology = is_there
        key = Key(Kind.CLUSTER_TOPOLOGY_BINDING, "", manifests.TOPOLOGY)
        if not is_there:
            self.commit([Delete(key)], "nodes")
        elif key not in self.disk.rows:
            self.commit([Put(manifests.topology(uid=self.new_uid(), now=self.epoch_now()), 0)], "nodes")

    def annotate_pod(self, pod: Pod, annotations: dict[str, str]) -> None:
        """Give one pod annotations of its own."""
        metadata = replace(pod.metadata, annotations={**pod.metadata.annotations, **annotations})
        self.commit([Put(replace(pod, metadata=metadata), pod.resource_version)], "annotate")

    def node_rows(self) -> list[Node]:
        """Return the nodes as the disk has them."""
        return [row for key, row in sorted(self.disk.rows.items()) if isinstance(row, Node)]

    def topology_row(self) -> ClusterTopologyBinding | None:
        """Return the topology binding as the disk has it."""
        row = self.disk.rows.get(Key(Kind.CLUSTER_TOPOLOGY_BINDING, "", manifests.TOPOLOGY))
        return row if isinstance(row, ClusterTopologyBinding) else None

    def _node(self, index: int, nodes_per_rack: int) -> Node:
        return manifests.node(index, uid="", now=0.0, nodes_per_rack=nodes_per_rack)

    @staticmethod
    def _described(node: Node) -> Node:
        return replace(node, ready_changed_at=0.0)
