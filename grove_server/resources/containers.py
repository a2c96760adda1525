"""What is true of the containers of one pod, as whoever runs it found them.

Rules: ``restart_count`` is the number of the latest start, counted from 0; it never goes down. Exactly one of these
holds of a container: it runs (``started_at``), it waits (``waiting_reason``), or it is over (``last_end`` alone).

Not here: what the containers should be (the pod's template), and the Kubernetes shape of all this (``api``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from grove_server.resources.meta import SCHEMA

# Why a container does not run, in Kubernetes' words.
POD_INITIALIZING: Final = "PodInitializing"
CONTAINER_CREATING: Final = "ContainerCreating"

# How a run ended, in Kubernetes' words, and "Lost": its end was not seen.
COMPLETED: Final = "Completed"
ERROR: Final = "Error"
START_ERROR: Final = "StartError"
LOST: Final = "Lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnd:
    """How one run of a container ended; times are epoch seconds, ``started_at`` None if it never ran.

    ``exit_code`` is 128 + the signal's number where one ended it.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    exit_code: int
    signal: int | None = None
    reason: str
    message: str = ""
    started_at: float | None = None
    finished_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    """What is true of one container.

    ``started_at`` (epoch seconds) is when the present run began, None while none runs. ``is_started`` says that its
    startup probe has passed, or that it has none. ``quick_end_count`` counts the runs before this one that ended soon
    one after the other: what the wait for the next start follows from. ``last_end`` is how the run before this one
    ended, or the last one if none runs.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    is_init: bool = False
    restart_count: int = 0
    quick_end_count: int = 0
    started_at: float | None = None
    is_started: bool = False
    is_ready: bool = False
    waiting_reason: str = ""
    waiting_message: str = ""
    last_end: ContainerEnd | None = None

    @property
    def has_run(self) -> bool:
        """Whether it was started once, or at least tried."""
        return self.started_at is not None or self.last_end is not None
