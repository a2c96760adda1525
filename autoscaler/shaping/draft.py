"""A size in the making: what a role should have so far, and every step that changed it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoscaler.decision import Clamp, Proposal, Reason
from autoscaler.memory import RoleMemory
from autoscaler.observation import RoleState
from autoscaler.policy import RolePolicy


@dataclass(slots=True, kw_only=True)
class Draft:
    """One role's size while it is decided; lives for one tick and is never shared.

    ``wanted`` is what the proposals came to. ``is_known`` is whether any of them knew anything; ``is_trusted`` whether
    nothing speaks against shrinking; ``is_by_hand`` whether somebody gave the size.
    """

    role: RolePolicy
    state: RoleState
    memory: RoleMemory
    wanted: int
    size: int
    reason: Reason
    message: str
    is_known: bool
    is_trusted: bool
    gpus: float
    lead_s: float
    is_by_hand: bool = False
    proposals: tuple[Proposal, ...] = ()
    clamps: list[Clamp] = field(default_factory=list)

    @property
    def current(self) -> int:
        """The size asked for now."""
        return self.state.current

    def clamp(self, size: int, reason: Reason, message: str) -> None:
        """Set the size, and keep the step if it changed something."""
        if size != self.size:
            self.clamps.append(Clamp(reason=reason, before=self.size, after=size, message=message))
            self.size, self.reason, self.message = size, reason, message
