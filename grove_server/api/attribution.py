"""Who is calling, for whatever is committed on the way: a commit carries it to its notices, and stories tell it.

Bound to the task of the call, as log lines are, so that it need not be handed through every function.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from grove_server.store.interface import NO_ORIGIN, Origin

_ACTOR_LENGTH_MAX: Final = 256

_caller: ContextVar[Origin] = ContextVar("caller", default=NO_ORIGIN)


def attribute(actor: str, request_id: str) -> None:
    """Say who calls in this task."""
    _caller.set(Origin(actor=actor[:_ACTOR_LENGTH_MAX], request_id=request_id))


def origin() -> Origin:
    """Return who calls in this task, for the commits that are made for them."""
    return _caller.get()
