"""What runs pods: the contract that every node agent stands behind.

A runtime plays the kubelet's part for the nodes that are its own. The fake runtime simulates all of them in this
process; real child processes and Kubernetes stand behind the same three methods. The rest of the server talks to a
runtime only through the store: the placement loop writes ``Pod.node``, the runtime writes what became of the pod.

Rules of the contract:

* **Level-triggered.** What to do with a pod follows from its row, its node's row and the time, never from what the
  runtime remembers. It may be stopped at any point and started again.
* **Idempotent.** Seeing the same pod twice starts it once. Writes carry the version they were decided on; a lost race
  is decided again on the new state.
* **Adopts, never restarts.** Pods that were running before a restart of the server keep running, with the same
  ``started_at`` and ``restart_count``.
* **Reports in batches.** What happens at the same moment goes to the store together, without atomicity: pods do not
  wait for each other's status.
* **Owns the end of a pod.** A pod with ``deleted_at`` and a node is stopped and then its row is removed, by the runtime
  alone. Rows of stopping pods that never got a node are the lifecycle's to remove.

Not here: what a pod should look like (lifecycle), where it goes (placement), serving logs and exec (later runtimes).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


class PodsOnExit(enum.StrEnum):
    """What becomes of running pods when the server stops."""

    KEEP = "keep"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeHealth:
    """Whether a runtime does its work; ``message`` says what is wrong when it does not.

    ``pod_count`` is the number of pods it looks after, ``backlog_count`` how many of them wait for a look.
    """

    is_healthy: bool
    message: str = ""
    pod_count: int = 0
    backlog_count: int = 0


class Runtime(Protocol):
    """A node agent for one or many nodes."""

    async def start(self) -> None:
        """Adopt the pods of the store and begin to work; returns once every pod has been taken over."""

    async def stop(self, *, pods: PodsOnExit = PodsOnExit.KEEP) -> None:
        """End all work; with STOP also end what runs outside the store. Harmless when not started or called twice."""

    def health(self) -> RuntimeHealth:
        """Return whether the runtime does its work now; never blocks."""


class Clock(Protocol):
    """The time a runtime lives in."""

    def now(self) -> float:
        """Return the epoch time in seconds."""

    async def sleep_until(self, when_s: float) -> None:
        """Return when ``now()`` has reached *when_s* (epoch seconds); at once if it has already."""

    async def sleep(self, duration_s: float) -> None:
        """Return after so many seconds, whatever the clock is set to meanwhile."""
