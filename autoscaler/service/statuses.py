"""Statuses of policies: written when they say something new, and once a minute to say that they are alive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from autoscaler.acting.lead import Lead
from autoscaler.acting.records import PolicySeen
from autoscaler.acting.scaling import Scaler
from autoscaler.service import metrics
from autoscaler.service.by_hand import ByHand
from autoscaler.service.journal import Journal
from autoscaler.service.messages import status_message
from grove.v1.scaling_policy_pb2 import ScalingPolicyStatus
from grove_client import FailedPreconditionError, GroveClient, GroveError, NotFoundError
from grove_server.telemetry.logs import get_logger

AT_ONCE: Final = 8
STEP_POLICIES: Final = 16
ALIVE_S: Final = 60.0
TIMEOUT_S: Final = 5.0

_log = get_logger("autoscaler.statuses")


class Statuses:
    """Writes statuses while this autoscaler leads."""

    def __init__(self, client: GroveClient, lead: Lead, journal: Journal, by_hand: ByHand, scaler: Scaler) -> None:
        self._client = client
        self._lead = lead
        self._journal = journal
        self._by_hand = by_hand
        self._scaler = scaler
        self._written: dict[str, tuple[float, bytes]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def write_all(self, policies: Iterable[PolicySeen], now: float) -> None:
        """Write what is new of all policies; a failure is logged, and tried again at the next tick."""
        stored = [seen for seen in policies if seen.is_stored]
        keys = {seen.key for seen in stored}
        for key in [key for key in self._written if key not in keys]:
            del self._written[key]
        async with asyncio.TaskGroup() as group:
            for number, seen in enumerate(stored, start=1):
                group.create_task(self._write_logged(seen, now))
                # A task makes its message in its first step, and all that are there step before anything else does.
                if number % STEP_POLICIES == 0:
                    await asyncio.sleep(0)

    async def write(self, seen: PolicySeen, now: float) -> None:
        """Write the status of one policy. GroveError."""
        status = status_message(seen, self._journal.of_policy(seen.key), self._scaler.scaled_at)
        status.autoscaler = self._lead.name
        self._by_hand.write(seen.key, status, now)
        mark = _without_times(status)
        before = self._written.get(seen.key)
        if before is not None and before[1] == mark and now - before[0] < ALIVE_S:
            return
        async with self._slots:
            await self._client.scaling_policies.update_status(
                seen.name, status, autoscaler=self._lead.name, term=self._lead.term, namespace=seen.namespace
            )
        self._written[seen.key] = (now, mark)

    async def _write_logged(self, seen: PolicySeen, now: float) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self.write(seen, now)
        except NotFoundError:
            # The policy went away since it was looked at.
            return
        except (GroveError, TimeoutError) as error:
            if isinstance(error, FailedPreconditionError):
                self._lead.lost()
            metrics.STATUS_WRITES.labels("failed").inc()
            _log.warning("status_not_written", name=seen.key, reason=str(error) or "too slow")
            return
        metrics.STATUS_WRITES.labels("done").inc()


def _without_times(status: ScalingPolicyStatus) -> bytes:
    """Return what of a status is news: not when, and not which decision."""
    copy = ScalingPolicyStatus()
    copy.CopyFrom(status)
    copy.decision_id = copy.decided_at = ""
    for role in copy.roles:
        role.message = ""
    for signal in copy.signals:
        signal.message = ""
    for condition in copy.conditions:
        condition.message = ""
    return copy.SerializeToString(deterministic=True)
