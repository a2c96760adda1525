"""AutoscalerService: what others ask of the autoscaler. The server hands Explain, Pause and Override on to it.

What is asked for by hand is written into the policy's status before it is answered: it holds over a crash then. Who
does not lead refuses to change anything. Refusals are one line, and never what went wrong inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, NoReturn, TypeVar

import grpc

from autoscaler.acting.lead import Lead
from autoscaler.acting.records import PolicySeen, rfc3339
from autoscaler.service.by_hand import ByHand, OverrideAsked, PauseAsked, TooManyByHandError
from autoscaler.service.journal import Decided, Journal, TooManyWatchersError
from autoscaler.service.loop import Loop
from autoscaler.service.messages import brief, decision_message
from autoscaler.service.scopes import TEMPLATE_PREFIX, Scopes
from autoscaler.service.statuses import Statuses
from autoscaler.service.whatif import BusyError, QuestionError, simulate
from grove.v1 import autoscaler_pb2 as pb
from grove.v1.autoscaler_pb2_grpc import AutoscalerServiceServicer
from grove_client import GroveError
from grove_server.resources.duration import DurationError, parse_duration
from grove_server.resources.scaling_policy import REPLICAS_MAX

DURATION_MAX_S: Final = 168 * 3_600.0
REASON_LENGTH_MAX: Final = 256
DIRECTIONS: Final = ("both", "in", "out")
_STATUS_TIMEOUT_S: Final = 4.0

_Context = grpc.aio.ServicerContext[object, object]
T = TypeVar("T")


class Answers(AutoscalerServiceServicer):
    """Serves AutoscalerService from what the loop decided."""

    def __init__(
        self, loop: Loop, scopes: Scopes, journal: Journal, by_hand: ByHand, statuses: Statuses, lead: Lead
    ) -> None:
        self._loop = loop
        self._scopes = scopes
        self._journal = journal
        self._by_hand = by_hand
        self._statuses = statuses
        self._lead = lead

    async def GetRecommendation(
        self, request: pb.AutoscalerServiceGetRecommendationRequest, context: _Context
    ) -> pb.AutoscalerServiceGetRecommendationResponse:
        """Return the last decisions, briefly."""
        decided = await self._decided(request, context)
        return pb.AutoscalerServiceGetRecommendationResponse(
            decisions=[brief(decision_message(*each)) for each in decided]
        )

    async def Explain(
        self, request: pb.AutoscalerServiceExplainRequest, context: _Context
    ) -> pb.AutoscalerServiceExplainResponse:
        """Return decisions with all that led to them."""
        if request.decision_id:
            found = self._journal.find(request.decision_id)
            if found is None or found[0].key != _key(request):
                await _refuse(context, grpc.StatusCode.NOT_FOUND, "no such decision; only the latest are kept")
            decided = [found]
        else:
            decided = await self._decided(request, context)
        key = _key(request)
        notes = self._by_hand.notes(key, self._loop.now())
        if request.name.startswith(TEMPLATE_PREFIX):
            set_name = request.name.removeprefix(TEMPLATE_PREFIX)
            notes += [f"not followed: {each}" for each in self._scopes.left_out(key.partition("/")[0], set_name)]
        return pb.AutoscalerServiceExplainResponse(decisions=[decision_message(*each) for each in decided], notes=notes)

    async def WatchDecisions(
        self, request: pb.AutoscalerServiceWatchDecisionsRequest, context: _Context
    ) -> AsyncIterator[pb.AutoscalerServiceWatchDecisionsResponse]:
        """Stream decisions, the last ones first."""
        if request.all_namespaces and request.namespace:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "namespace must be empty with all_namespaces")
        try:
            with self._journal.watching() as watcher:
                for each in [*self._journal.last()]:
                    if _matches(request, each):
                        yield pb.AutoscalerServiceWatchDecisionsResponse(decision=decision_message(*each))
                missed_before = 0
                while True:
                    each, missed = await watcher.get()
                    missed_before += missed
                    if _matches(request, each):
                        yield pb.AutoscalerServiceWatchDecisionsResponse(
                            decision=decision_message(*each), missed_count=missed_before
                        )
                        missed_before = 0
        except TooManyWatchersError as error:
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    async def Pause(
        self, request: pb.AutoscalerServicePauseRequest, context: _Context
    ) -> pb.AutoscalerServicePauseResponse:
        """Begin or end a pause."""
        seen = await self._changeable(request, context)
        direction = request.direction or "both"
        if direction not in DIRECTIONS:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"direction: one of {', '.join(DIRECTIONS)}")
        duration_s = await _duration_s(request.duration, context)
        now = self._loop.now()
        asked = PauseAsked(
            direction=direction,
            until=now + duration_s,
            reason=request.reason[:REASON_LENGTH_MAX],
            actor=request.actor[:REASON_LENGTH_MAX],
        )
        changed = self._by_hand.pause(seen.key, asked, now)
        await self._make_durable(seen, context)
        return pb.AutoscalerServicePauseResponse(until=rfc3339(asked.until) if duration_s else "", changed=changed)

    async def Override(
        self, request: pb.AutoscalerServiceOverrideRequest, context: _Context
    ) -> pb.AutoscalerServiceOverrideResponse:
        """Begin or end a size by hand."""
        seen = await self._changeable(request, context)
        if self._scopes.role_of(seen.key, request.role) is None:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "role: the policy has no role of that name")
        duration_s = await _duration_s(request.duration, context)
        if duration_s and not (request.HasField("replicas") and 0 <= request.replicas <= REPLICAS_MAX):
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"replicas: 0 to {REPLICAS_MAX}")
        now = self._loop.now()
        asked = OverrideAsked(
            role=request.role,
            copy=request.copy if request.HasField("copy") else None,
            replicas=request.replicas,
            until=now + duration_s,
            reason=request.reason[:REASON_LENGTH_MAX],
            actor=request.actor[:REASON_LENGTH_MAX],
        )
        try:
            changed = self._by_hand.override(seen.key, asked, now)
        except TooManyByHandError as error:
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        await self._make_durable(seen, context)
        return pb.AutoscalerServiceOverrideResponse(until=rfc3339(asked.until) if duration_s else "", changed=changed)

    async def Simulate(
        self, request: pb.AutoscalerServiceSimulateRequest, context: _Context
    ) -> pb.AutoscalerServiceSimulateResponse:
        """Replay a trace in a process of its own."""
        try:
            return await simulate(request)
        except QuestionError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except BusyError as error:
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    async def _decided(
        self,
        request: pb.AutoscalerServiceGetRecommendationRequest | pb.AutoscalerServiceExplainRequest,
        context: _Context,
    ) -> list[Decided]:
        key = _key(request)
        await self._demand_looked(context)
        if key not in self._scopes.policies:
            await _refuse(context, grpc.StatusCode.NOT_FOUND, f"no policy {key}")
        decided = self._journal.of_policy(key)
        if not decided:
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, "nothing was decided about this policy yet")
        if request.HasField("copy"):
            decided = [each for each in decided if each[0].copy == request.copy]
            if not decided:
                await _refuse(context, grpc.StatusCode.NOT_FOUND, f"no copy {request.copy}")
        return decided

    async def _changeable(
        self, request: pb.AutoscalerServicePauseRequest | pb.AutoscalerServiceOverrideRequest, context: _Context
    ) -> PolicySeen:
        """Return the policy, if something may be asked for by hand."""
        if not self._lead.holds:
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "this autoscaler does not lead")
        await self._demand_looked(context)
        seen = self._scopes.policies.get(_key(request))
        if seen is None or not seen.is_stored:
            await _refuse(context, grpc.StatusCode.NOT_FOUND, f"no policy {_key(request)}")
        return seen

    async def _demand_looked(self, context: _Context) -> None:
        """Refuse what comes before the first look: what exists, and what holds by hand, is not known until then."""
        if not self._loop.has_looked:
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, "this autoscaler has not looked yet, or stands by")

    async def _make_durable(self, seen: PolicySeen, context: _Context) -> None:
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                await self._statuses.write(seen, self._loop.now())
        except (GroveError, TimeoutError):
            message = "it holds, but could not be stored yet; it will be with the next decision"
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, message)
        self._loop.wake()


def _key(
    request: pb.AutoscalerServiceGetRecommendationRequest
    | pb.AutoscalerServiceExplainRequest
    | pb.AutoscalerServicePauseRequest
    | pb.AutoscalerServiceOverrideRequest,
) -> str:
    return f"{request.namespace or 'default'}/{request.name}"


def _matches(request: pb.AutoscalerServiceWatchDecisionsRequest, decided: Decided) -> bool:
    namespace, _, name = decided[0].key.partition("/")
    if not request.all_namespaces and namespace != (request.namespace or "default"):
        return False
    return not request.name or request.name == name


async def _duration_s(text: str, context: _Context) -> float:
    try:
        seconds = parse_duration(text)
    except DurationError:
        seconds = -1.0
    if seconds and not 1.0 <= seconds <= DURATION_MAX_S:
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "duration: 0s, or 1s to 168h")
    return seconds


async def _refuse(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")
