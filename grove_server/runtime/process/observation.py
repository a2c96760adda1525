"""What a node agent sees of a pod's containers, and what it is told to do about them. Pure.

The agent keeps a ``ContainerSeen`` for each container whose pod is on this machine: the latest run as the launcher
knows it, and what was begun since this server started (hooks, signals, probes). What was begun is forgotten when the
server ends; everything that must outlive it is in the pod's row or in the run itself.

An agent carries out each action at once and says so in what it sees before it asks again: a start is ``is_starting``
until there is a run or a failure, a hook is ``HookSeen``, a signal ``signalled_at``, a kill ``killed_at``, a probe is
among ``asking`` until it is answered. So no action is asked for twice while it is under way. When a new run begins,
everything but ``run`` starts anew (``ContainerSeen.of``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from grove_server.resources.meta import Condition
from grove_server.resources.workload import Pod
from grove_server.runtime.process.pod_plan import HookAction, ProbeKind, ProbePlan
from grove_server.runtime.process.probes import ContainerProbes
from grove_server.runtime.process.runs import Run

NEVER: Final = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailure:
    """An attempt that never ran, at an epoch time in seconds, and why in words."""

    attempt: int
    at: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSeen:
    """A hook that was begun; times are epoch seconds, ``failure`` says in words what went wrong."""

    began_at: float
    done_at: float | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSeen:
    """What an agent sees of one container.

    ``run`` is the one with the highest attempt; ``failure`` is of an attempt after it. ``probes`` is None until a probe
    of this run was answered. Times are epoch seconds.
    """

    run: Run | None = None
    is_starting: bool = False
    failure: StartFailure | None = None
    post_start: HookSeen | None = None
    pre_stop: HookSeen | None = None
    signalled_at: float | None = None
    killed_at: float | None = None
    probes: ContainerProbes | None = None
    asking: frozenset[ProbeKind] = frozenset()

    @classmethod
    def of(cls, run: Run) -> ContainerSeen:
        """Return what is seen of a run that has just begun, or was just adopted."""
        return cls(run=run)

    @property
    def live(self) -> Run | None:
        """The run if it has not ended."""
        return self.run if self.run is not None and self.run.ended is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen:
    """What an agent sees of a pod: its containers by name, and what the machine could not give it.

    ``conditions`` are taken over into the pod's; their transition times do not matter.
    """

    containers: Mapping[str, ContainerSeen] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()

    def of(self, name: str) -> ContainerSeen:
        """Return what is seen of a container; nothing if it was never started."""
        return self.containers.get(name, _UNSEEN)


_UNSEEN: Final = ContainerSeen()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start a container: ``launching`` numbers its runs by ``attempt``."""

    container: str
    attempt: int


class HookKind:
    """Which hook; the words are the manifest's."""

    POST_START: Final = "postStart"
    PRE_STOP: Final = "preStop"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHook:
    """Run a hook of the container's present run, for at most ``timeout_s`` seconds; ``kind`` is one of HookKind."""

    container: str
    attempt: int
    kind: str
    action: HookAction
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to the main process of the container's present run."""

    container: str
    attempt: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End everything of the container's present run with SIGKILL."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Ask a probe of the container's present run now."""

    container: str
    attempt: int
    probe: ProbePlan


Action = Start | RunHook | Signal | Kill | Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something people should know of the pod; becomes an Event."""

    reason: str
    message: str
    is_warning: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do with a pod now.

    ``pod`` is to be written if there is one; ``actions`` are to be carried out at once, whatever becomes of the write
    (nothing is started in a step that writes, but for what the row already says). ``is_gone``: nothing of it is left,
    its row and its runs' records go. ``due_at`` (epoch seconds) is when to look again although nothing was seen and the
    row has not changed; NEVER if only those matter.
    """

    pod: Pod | None = None
    is_gone: bool = False
    actions: tuple[Action, ...] = ()
    due_at: float = NEVER
    remarks: tuple[Remark, ...] = ()
