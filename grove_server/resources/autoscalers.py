"""Which autoscalers there are and which of them leads, as far as the server has to remember it.

One row holds all of it, so that a change of who leads is one change and two can never win it. How long each is believed
to live is not stored: leases are renewed every few seconds, and after a restart of the server each is counted anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from grove_server.resources.meta import SCHEMA, Kind, Metadata

ROSTER_NAME: Final = "autoscalers"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerRegistration:
    """One autoscaler: its name, where it is called, and which caller the name belongs to."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    address: str
    version: str = ""
    identity: str = ""
    registered_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerRoster:
    """All autoscalers by name, who leads ("" while nobody does), and how often that changed."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.AUTOSCALER_ROSTER

    metadata: Metadata
    resource_version: int = 0
    registrations: tuple[AutoscalerRegistration, ...] = ()
    leader: str = ""
    term: int = 0

    def named(self, name: str) -> AutoscalerRegistration | None:
        """Return the registration of that name."""
        return next((each for each in self.registrations if each.name == name), None)
