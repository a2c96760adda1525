"""Who of several autoscalers acts: a lease at the server, renewed three times in its length.

An answer holds from before the call that asked for it, on a clock that never jumps. Whoever cannot reach the server
stops acting when the lease runs out, so two never act at once, whatever their clocks say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from grove_client import GroveClient, GroveError
from grove_server.resources.duration import DurationError, parse_duration
from grove_server.telemetry.logs import get_logger

_RENEWALS: Final = 3.0
_FIRST_AGAIN_S: Final = 0.2
_AGAIN_MAX_S: Final = 5.0
_LEASE_S: Final = 15.0
# A margin for what happens between the look at the lease and the call that it allows.
_MARGIN_S: Final = 1.0

_log = get_logger("autoscaler.lead")


class Lead:
    """The registration of this autoscaler; ``term`` is that of the last answer."""

    def __init__(
        self, client: GroveClient, name: str, address: str, *, version: str, steady_s: Callable[[], float]
    ) -> None:
        """*steady_s* is a clock that never jumps, in seconds."""
        self._client = client
        self.name = name
        self._address = address
        self._version = version
        self._steady_s = steady_s
        self._until_s = float("-inf")
        self.term = 0
        self.leader = ""
        self.problem = "not registered yet"
        self.answered = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether this autoscaler may act now."""
        return self._steady_s() < self._until_s - _MARGIN_S

    def lost(self) -> None:
        """Take it that another one leads: the server said so."""
        self._until_s = float("-inf")

    async def run(self) -> None:
        """Register, and renew until cancelled."""
        lease_s, again_s = _LEASE_S, _FIRST_AGAIN_S
        while True:
            began_s = self._steady_s()
            try:
                lease_s = await self._renew(began_s, lease_s)
                again_s = _FIRST_AGAIN_S
                wait_s = lease_s / _RENEWALS
            except GroveError as error:
                if self.problem != error.message:
                    _log.warning("lead_not_renewed", code=error.code.name, reason=error.reason)
                self.problem = error.message
                again_s = min(_AGAIN_MAX_S, again_s * 2)
                wait_s = min(again_s, lease_s / _RENEWALS)
            await asyncio.sleep(max(0.0, wait_s - (self._steady_s() - began_s)))

    async def _renew(self, began_s: float, lease_s: float) -> float:
        answer = await self._client.autoscalers.register(
            self.name, self._address, version=self._version, timeout_s=lease_s / _RENEWALS
        )
        try:
            lease_s = parse_duration(answer.lease) or _LEASE_S
        except DurationError:
            lease_s = _LEASE_S
        was = self.leader
        self.term, self.leader, self.problem = answer.term, answer.leader, ""
        self._until_s = began_s + lease_s if answer.leads else float("-inf")
        if was != answer.leader:
            _log.info("leader_changed", name=answer.leader, leads=answer.leads, term=answer.term)
        self.answered.set()
        return lease_s

    async def leave(self) -> None:
        """Give the lead away, so that another one need not wait for the lease."""
        self.lost()
        try:
            await self._client.autoscalers.deregister(self.name)
        except GroveError as error:
            _log.warning("lead_not_given_away", code=error.code.name, reason=error.reason)
