"""What users do and what goes wrong, by name, and how one run chooses among it.

Swarm testing (Groce et al., 2012): a run draws which actions it knows at all, and how often each happens. Runs that
leave most of them out reach states that a uniform mixture never does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from grove_server.resources.workload import Pod
from tests.simulation.books import IndexKey
from tests.simulation.follower import Habits
from tests.simulation.manifests import label_key
from tests.simulation.operators import Operators
from tests.simulation.server import SimServer
from tests.simulation.world import EPOCH_S, InvariantError, World

# How many syncs a crash may lie ahead of the moment it is armed.
_SYNCS_AHEAD_MAX: Final = 12
_WEIGHTS: Final = (1.0, 1.0, 3.0, 10.0)
# The chance that a run knows an action; users' plain work is in every run.
_KNOWN_CHANCE: Final = 0.6
# Where users do little but edit, less goes wrong, so that updates get far enough to be disturbed.
_KNOWN_CHANCE_RESTLESS: Final = 0.3
_WEIGHT_RESTLESS: Final = 30.0
_TAKEN_AWAY: Final = (
    ("cordon", "uncordon"),
    ("drain node", "uncordon"),
    ("pause", "resume"),
    ("node gone", "node back"),
    ("topology gone", "topology back"),
)
# A victim's successors crash too, so many seconds later.
_AGAIN_CHANCE: Final = 0.4
_AGAIN_S: Final = (0.7, 1.9, 3.1, 14.0)


class Faults:
    """The actions of one run. Each method is one action; it returns what to say of it, empty if nothing was done."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.stream("faults")
        self._crashed: list[IndexKey] = []
        self._is_healing = False
        self._actions = self._draw_actions()
        self._names = list(self._actions)
        self._weights = [self._rng.choice(_WEIGHTS) for _ in self._names]
        if world.users.are_restless:
            self._weights[self._names.index("edit")] = _WEIGHT_RESTLESS

    def _draw_actions(self) -> dict[str, Callable[[], str]]:
        """Return the actions that this run knows, by name."""
        users: dict[str, Callable[[], str]] = {
            "apply": self._apply,
            "edit": self._edit,
            "scale set": self._scale_set,
            "scale clique": self._scale_clique,
            "scale group": self._scale_group,
            "delete set": self._delete_set,
        }
        others = {**self._of_operators(), **self._of_the_world()}
        chance = _KNOWN_CHANCE_RESTLESS if self._world.users.are_restless else _KNOWN_CHANCE
        known = {name: act for name, act in others.items() if self._rng.random() < chance}
        # What is taken away must come back within the run, too.
        for gone, back in _TAKEN_AWAY:
            if gone in known:
                known[back] = others[back]
        return {**users, **known}

    def _of_operators(self) -> dict[str, Callable[[], str]]:
        return {
            "delete pods": self._on_serving(lambda o, server: o.delete_pods(server, skip_drain=False)),
            "delete pods now": self._on_serving(lambda o, server: o.delete_pods(server, skip_drain=True)),
            "pause": self._on_serving(lambda o, server: o.steer(server, "pause")),
            "resume": self._on_serving(lambda o, server: o.steer(server, "resume")),
            "undo": self._on_serving(lambda o, server: o.steer(server, "undo")),
            "restart": self._on_serving(lambda o, server: o.steer(server, "restart")),
            "cordon": self._on_serving(lambda o, server: o.cordon(server)),
            "drain node": self._on_serving(lambda o, server: o.drain_nodes(server)),
            "uncordon": self._on_serving(lambda o, server: o.uncordon(server)),
            "router joins": self._router_joins,
            "router leaves": self._router_leaves,
            "router dies": self._router_dies,
            "router changes": self._router_changes,
        }

    def _of_the_world(self) -> dict[str, Callable[[], str]]:
        return {
            "node down": self._node_down,
            "rack down": self._rack_down,
            "node up": self._node_up,
            "node gone": self._node_gone,
            "node back": self._node_back,
            "pod crash": self._pod_crash,
            "topology gone": self._topology_gone,
            "topology back": self._topology_back,
            "server crash": self._server_crash,
            "server crash at a sync": self._server_crash_at_sync,
            "disk full": self._disk_full,
            "disk slow": self._disk_slow,
            "runtime slow": self._runtime_slow,
            "runtime late": self._runtime_late,
            "notices twice": self._notices_twice,
            "readers slow": self._readers_slow,
            "clock step": self._clock_step,
            "machine slow": self._machine_slow,
        }

    def begin(self) -> None:
        """Apply some sets, so that there is something to disturb."""
        for _ in range(self._rng.randint(1, self._world.sets_max)):
            self._world.history.act(self._world.time.now_s, "apply", self._apply())

    def act(self) -> None:
        """Do one thing."""
        for _ in range(8):
            (name,) = self._rng.choices(self._names, self._weights)
            detail = self._actions[name]()
            if detail:
                self._world.history.act(self._world.time.now_s, name, detail)
                return

    def heal(self) -> None:
        """End all that is wrong; what is needed to converge is there afterwards."""
        world = self._world
        self._is_healing = True
        world.disk_mood.is_full = False
        world.disk_mood.at_sync = None
        world.disk_mood.sync_s, world.disk_mood.report_s = 0.004, 0.001
        mood = world.runtime_mood
        mood.pause_chance = mood.late_chance = mood.repeat_chance = 0.0
        world.notice_mood.twice_chance = 0.0
        world.fleet.calm()
        world.stopwatch.step_s = 0.0002
        for follower in world.followers:
            follower.calm()
        world.ensure_server()
        # Long enough for the longest pause of the runtime, which may be in the way of a start.
        world.run_for(30.0)
        world.set_topology(is_there=True)
        world.add_nodes(world.all_nodes())
        world.run_for(5.0)
        server = world.server
        if server is None or not server.is_serving:
            raise InvariantError("a server that is left alone does not serve after seconds")
        down = [node.metadata.name for node in world.node_rows() if not node.ready]
        world.users.mark(server, down, is_ready=True)
        world.operators.uncordon_all(server)
        world.operators.resume_all(server)
        world.history.act(world.time.now_s, "heal", "everything")

    # Users and people that steer.

    def _apply(self) -> str:
        return self._on_server(lambda world: world.users.apply_new(world.serving))

    def _edit(self) -> str:
        return self._on_server(lambda world: world.users.edit(world.serving))

    def _scale_set(self) -> str:
        return self._on_server(lambda world: world.users.scale_set(world.serving))

    def _scale_clique(self) -> str:
        return self._on_server(lambda world: world.users.scale_clique(world.serving))

    def _scale_group(self) -> str:
        return self._on_server(lambda world: world.users.scale_group(world.serving))

    def _delete_set(self) -> str:
        return self._on_server(lambda world: world.users.delete_set(world.serving))

    def _on_serving(self, act: Callable[[Operators, SimServer], str]) -> Callable[[], str]:
        return lambda: self._on_server(lambda world: act(world.operators, world.serving))

    # Routers.

    def _router_joins(self) -> str:
        def join(world: World) -> str:
            owner = world.users.some_set()
            if owner is None:
                return ""
            return world.fleet.join(world.serving, owner.metadata.namespace, owner.metadata.name)

        return self._on_server(join)

    def _router_leaves(self) -> str:
        return self._on_server(lambda world: world.fleet.leave(world.serving))

    def _router_dies(self) -> str:
        return self._world.fleet.die()

    def _router_changes(self) -> str:
        return self._world.fleet.change_manners()

    # Nodes.

    def _node_down(self) -> str:
        return self._on_server(lambda world: world.users.mark(world.serving, world.users.some_nodes(2), is_ready=False))

    def _rack_down(self) -> str:
        def fail(world: World) -> str:
            nodes = world.node_rows()
            if not nodes:
                return ""
            rack = self._rng.choice(nodes).metadata.labels[label_key("rack")]
            names = [node.metadata.name for node in nodes if node.metadata.labels[label_key("rack")] == rack]
            return world.users.mark(world.serving, names, is_ready=False)

        return self._on_server(fail)

    def _node_up(self) -> str:
        def mend(world: World) -> str:
            down = [node.metadata.name for node in world.node_rows() if not node.ready]
            return world.users.mark(world.serving, down, is_ready=True)

        return self._on_server(mend)

    def _node_gone(self) -> str:
        def remove(world: World) -> str:
            if len(world.present) <= 1:
                return ""
            names = world.users.some_nodes(2)
            world.remove_nodes(names)
            return ", ".join(names)

        return self._on_server(remove)

    def _node_back(self) -> str:
        def add(world: World) -> str:
            names = world.absent_nodes()
            world.add_nodes(names)
            return ", ".join(names)

        return self._on_server(add)

    def _pod_crash(self) -> str:
        def crash(world: World) -> str:
            pod = self._pod_to_crash(world)
            if pod is None or not pod.node:
                return ""
            place = (pod.metadata.namespace, pod.identity.name, pod.index)
            self._crashed.append(place)
            if self._rng.random() < _AGAIN_CHANCE:
                for delay_s in _AGAIN_S:
                    world.at(delay_s, partial(self._crash_again, place))
            return self._crash(world, pod)

        return self._on_server(crash)

    def _crash(self, world: World, pod: Pod) -> str:
        after = self._rng.choice(("0s", "300ms", "10s"))
        times = str(pod.restart_count + self._rng.choice((1, 2, 4)))
        code = self._rng.choice(("0", "1", "137"))
        world.annotate_pod(
            pod,
            {
                "fake.grove.io/crash-after": after,
                "fake.grove.io/crash-times": times,
                "fake.grove.io/exit-code": code,
            },
        )
        return f"{pod.metadata.name} after {after}, up to {times} times, code {code}"

    def _crash_again(self, place: IndexKey) -> None:
        """Crash whoever has the place now: what replaces it waits longer and longer."""
        world = self._world
        if self._is_healing or world.server is None or not world.server.is_serving:
            return
        for pod in list(world.books.pod_at.get(place, {}).values()):
            if pod.node:
                world.history.act(world.time.now_s, "pod crash again", self._crash(world, pod))

    def _pod_to_crash(self, world: World) -> Pod | None:
        """Return some pod; every other time in the place of the last victim, for back-offs need a second crash.

        Of a few, one that is not started again is taken, since it fails for good.
        """
        if self._crashed and self._rng.random() < 0.5:
            for known in world.books.pod_at.get(self._crashed[-1], {}).values():
                return known
        found = [pod for _ in range(3) if (pod := world.users.some_pod()) is not None]
        return min(found, key=lambda pod: pod.template.pod_spec.get("restartPolicy") != "Never", default=None)

    def _topology_gone(self) -> str:
        def remove(world: World) -> str:
            if not world.has_topology:
                return ""
            world.set_topology(is_there=False)
            return "binding removed"

        return self._on_server(remove)

    def _topology_back(self) -> str:
        def add(world: World) -> str:
            if world.has_topology:
                return ""
            world.set_topology(is_there=True)
            return "binding made"

        return self._on_server(add)

    # Server, disk, time.

    def _server_crash(self) -> str:
        world = self._world
        if world.server is None:
            return ""
        return self._crash_now()

    def _server_crash_at_sync(self) -> str:
        world = self._world
        if world.server is None or world.disk_mood.at_sync is not None:
            return ""
        left = self._rng.randint(1, _SYNCS_AHEAD_MAX)
        wants_synced = self._rng.random() < 0.5

        def at_sync(is_synced: bool) -> None:
            nonlocal left
            if is_synced is wants_synced:
                left -= 1
                if not left:
                    world.disk_mood.at_sync = None
                    self._crash_now()

        world.disk_mood.at_sync = at_sync
        return f"number {left}, {'after' if wants_synced else 'before'} it"

    def _crash_now(self) -> str:
        world = self._world
        world.crash_server()
        down_s = self._rng.choice((0.0, 1.0, 30.0)) * self._rng.random()
        world.at(down_s, world.ensure_server)
        return f"for {down_s:.3f} s"

    def _disk_full(self) -> str:
        mood = self._world.disk_mood
        if mood.is_full:
            return ""
        mood.is_full = True
        full_s = self._rng.choice((0.01, 1.0, 20.0)) * self._rng.random()

        def end() -> None:
            mood.is_full = False

        self._world.at(full_s, end)
        return f"for {full_s:.3f} s"

    def _disk_slow(self) -> str:
        mood = self._world.disk_mood
        mood.sync_s = self._rng.choice((0.0, 0.004, 0.1, 2.0))
        mood.report_s = self._rng.choice((0.0, 0.001, 0.05, 1.0))
        return f"syncs up to {mood.sync_s} s, reports up to {mood.report_s} s"

    def _runtime_slow(self) -> str:
        mood = self._world.runtime_mood
        mood.pause_chance = self._rng.choice((0.0, 0.2, 1.0))
        mood.pause_s = self._rng.choice((0.01, 1.0, 20.0))
        return f"one slice in {mood.pause_chance} waits up to {mood.pause_s} s"

    def _runtime_late(self) -> str:
        mood = self._world.runtime_mood
        mood.late_chance = self._rng.choice((0.0, 0.2, 0.7))
        mood.late_s = self._rng.choice((0.05, 2.0, 15.0))
        mood.repeat_chance = self._rng.choice((0.0, 0.1, 0.5))
        return (
            f"one report in {mood.late_chance} up to {mood.late_s} s late, one in {mood.repeat_chance} repeats another"
        )

    def _notices_twice(self) -> str:
        mood = self._world.notice_mood
        mood.twice_chance = self._rng.choice((0.0, 0.1, 0.5))
        return f"one batch in {mood.twice_chance}"

    def _readers_slow(self) -> str:
        habits = Habits(
            pause_chance=self._rng.choice((0.0, 0.3, 1.0)),
            pause_s=self._rng.choice((0.01, 1.0, 30.0)),
            leave_chance=self._rng.choice((0.0, 0.05, 0.5)),
            repeat_chance=self._rng.choice((0.0, 0.3)),
        )
        for follower in self._world.followers:
            follower.habits = habits
        return str(habits)

    def _clock_step(self) -> str:
        step_s = self._rng.choice((-600.0, -30.0, -1.0, -0.001, 1.0, 30.0, 600.0)) * self._rng.random()
        # Steps do not add up: what was to happen at a stored time is late by at most twice the largest.
        self._world.offset_s = EPOCH_S + step_s
        self._world.troubled_at_s = self._world.time.now_s
        return f"to {step_s:.6f} s off"

    def _machine_slow(self) -> str:
        self._world.stopwatch.step_s = self._rng.choice((0.00002, 0.0002, 0.002, 0.01))
        return f"a step takes up to {self._world.stopwatch.step_s} s"

    def _on_server(self, action: Callable[[World], str]) -> str:
        server = self._world.server
        return action(self._world) if server is not None and server.is_serving else ""
