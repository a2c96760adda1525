"""Which autoscalers are alive, and which one leads.

A lease is counted in steady time and in memory, as those of routers: renewing costs no write, and after a restart each
autoscaler has a whole lease to come back. Who leads is stored, because two must never believe it at once:

* the one that leads is confirmed from memory only while its lease has not run out;
* everything else (taking over, coming back late, leaving) is a commit on the version of the roster that was looked at,
  so that of two at the same moment one loses and looks again;
* an autoscaler counts its lease from before its call, the server from after it, so it stops before another begins.

Nothing here waits for a time: a lease that has run out is noticed by whoever asks next. Not here: calling autoscalers
(``api.forwarding``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from grove_server.control.clock import Clock
from grove_server.resources.autoscalers import ROSTER_NAME, AutoscalerRegistration, AutoscalerRoster
from grove_server.resources.meta import Metadata
from grove_server.store.interface import Applied, Put, Store
from grove_server.telemetry.logs import get_logger

CAUSE: Final = "autoscalers"
LEASE_S: Final = 15.0
AUTOSCALERS_MAX: Final = 16
# Each lost race means that another autoscaler won one, and there are few of them.
_ATTEMPTS_MAX: Final = 10

_log = get_logger("control")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an autoscaler is told: whether it leads, who does, the count of changes, and whether it is new."""

    leads: bool
    leader: str
    term: int
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAutoscaler:
    """A living autoscaler, and what is left of its lease in seconds."""

    registration: AutoscalerRegistration
    leads: bool
    left_s: float


class TooManyAutoscalersError(RuntimeError):
    """There are as many autoscalers as there may be."""


class AutoscalerNameTakenError(RuntimeError):
    """The name belongs to another caller."""


class AutoscalerRaceError(RuntimeError):
    """The roster changed under every attempt."""


class Autoscalers:
    """The roster in the store and the leases on it. Owned by the event loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # Steady seconds. What is missing here was stored before the start and has a whole lease from then on.
        self._due_s: dict[str, float] = {}
        self._start_due_s = clock.steady() + LEASE_S

    async def register(self, name: str, address: str, *, version: str = "", identity: str = "") -> Standing:
        """Give an autoscaler a whole lease, and the lead if nobody living has it; durable when it returns.

        Raises AutoscalerNameTakenError, TooManyAutoscalersError, AutoscalerRaceError or StoreUnavailableError.
        """
        for _ in range(_ATTEMPTS_MAX):
            roster = self._roster()
            known = roster.named(name)
            if known is not None and known.identity != identity and self._is_alive(name):
                raise AutoscalerNameTakenError(name)
            is_new = known is None or not self._is_alive(name)
            entry = AutoscalerRegistration(
                name=name,
                address=address,
                version=version,
                identity=identity,
                registered_at=known.registered_at if known is not None and not is_new else self._clock.now(),
            )
            after = self._with(roster, entry, is_new=is_new)
            if after != roster and not await self._commit(after):
                continue
            self._due_s[name] = self._clock.steady() + LEASE_S
            if after.term != roster.term:
                _log.info("autoscaler_leads", autoscaler=name, term=after.term, before=roster.leader)
            return Standing(leads=after.leader == name, leader=after.leader, term=after.term, is_new=is_new)
        raise AutoscalerRaceError(name)

    async def deregister(self, name: str, *, identity: str = "") -> bool:
        """Forget an autoscaler that leaves; return whether it was known.

        Raises AutoscalerNameTakenError, AutoscalerRaceError or StoreUnavailableError.
        """
        for _ in range(_ATTEMPTS_MAX):
            roster = self._roster()
            known = roster.named(name)
            if known is None:
                return False
            if known.identity != identity and self._is_alive(name):
                raise AutoscalerNameTakenError(name)
            # From here on a renewal has to commit, and so cannot be answered from what is being changed.
            self._due_s[name] = float("-inf")
            after = replace(
                roster,
                registrations=tuple(each for each in roster.registrations if each.name != name),
                leader="" if roster.leader == name else roster.leader,
            )
            if await self._commit(after):
                self._due_s.pop(name, None)
                _log.info("autoscaler_left", autoscaler=name, led=roster.leader == name)
                return True
        raise AutoscalerRaceError(name)

    def leader(self) -> KnownAutoscaler | None:
        """Return the autoscaler that leads, None if none that is alive does."""
        return next((each for each in self.known() if each.leads), None)

    def known(self) -> list[KnownAutoscaler]:
        """Return the living autoscalers by name."""
        roster, steady_s = self._roster(), self._clock.steady()
        return [
            KnownAutoscaler(registration=each, leads=each.name == roster.leader, left_s=left_s)
            for each in roster.registrations
            if (left_s := self._due_of(each.name) - steady_s) > 0
        ]

    @property
    def term(self) -> int:
        """How often it changed who leads."""
        return self._roster().term

    def _with(self, roster: AutoscalerRoster, entry: AutoscalerRegistration, *, is_new: bool) -> AutoscalerRoster:
        """Return the roster after a call of *entry*: *roster* itself if nothing changes."""
        others = [each for each in roster.registrations if each.name != entry.name]
        if is_new:
            # Whoever is gone makes room only when somebody comes, so that a late one finds its name.
            others = [each for each in others if self._is_alive(each.name)]
            if len(others) >= AUTOSCALERS_MAX:
                raise TooManyAutoscalersError
        takes_over = is_new and roster.leader in ("", entry.name)
        takes_over = takes_over or not (roster.leader and self._is_alive(roster.leader))
        registrations = tuple(sorted((*others, entry), key=lambda each: each.name))
        if not takes_over and registrations == roster.registrations:
            return roster
        return replace(
            roster,
            registrations=registrations,
            leader=entry.name if takes_over else roster.leader,
            term=roster.term + takes_over,
        )

    def _roster(self) -> AutoscalerRoster:
        stored = self._store.read().get(AutoscalerRoster, "", ROSTER_NAME)
        if stored is not None:
            return stored
        return AutoscalerRoster(metadata=Metadata(name=ROSTER_NAME, uid=ROSTER_NAME, created_at=self._clock.now()))

    async def _commit(self, roster: AutoscalerRoster) -> bool:
        """Store a roster if the one it was made of is still there; return whether it was."""
        (outcome,) = await self._store.commit([Put(roster, expected=roster.resource_version)], cause=CAUSE)
        return isinstance(outcome, Applied)

    def _due_of(self, name: str) -> float:
        return self._due_s.get(name, self._start_due_s)

    def _is_alive(self, name: str) -> bool:
        return self._due_of(name) > self._clock.steady()
