"""Carrying decisions out: first what shrinks, then what grows and has room; each call expects the size decided on.

A decision is one move. If a role that gives fails, nobody receives in that decision; if one that grows has no room or
fails, its partner does not run ahead. Nothing has to be remembered over a crash for that: what is half done shows in
the sizes, what drains counts in the budget, and the next decision goes on from there. A call repeated, or whose
answer was lost, finds its size there and succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.acting.conflicts import Conflicts, TargetKey
from autoscaler.acting.inventory import Inventory
from autoscaler.acting.lead import Lead
from autoscaler.acting.records import CLIQUE, target_of
from autoscaler.acting.room import WANTS_MAX, Room, Want, ask_room
from autoscaler.decision import Decision, RoleDecision
from grove_client import ConflictError, GroveClient, GroveError
from grove_server.resources.scaling_policy import RoleSpec
from grove_server.telemetry.logs import get_logger

CALLS_AT_ONCE: Final = 16
CALL_TIMEOUT_S: Final = 10.0
BACK_OFF_FIRST_S: Final = 15.0
BACK_OFF_MAX_S: Final = 300.0
# What failed longer ago, and was not tried again, counts as over.
TROUBLE_S: Final = 60.0

RECOMMENDED: Final = "Recommended"
APPLIED: Final = "Applied"
UNCHANGED: Final = "Unchanged"
WAITING: Final = "Waiting"
FAILED: Final = "Failed"
CONFLICT: Final = "Conflict"

_log = get_logger("autoscaler.scaling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a decision: one of the words above, and a sentence."""

    word: str
    message: str = ""


@dataclass(slots=True)
class _Trouble:
    """Why scaling one target does not work, how often in a row, and until when it is left alone."""

    message: str
    count: int
    at: float
    until: float


@dataclass(slots=True, kw_only=True)
class _Move:
    """One decision while it is carried out."""

    decision: Decision
    grows: list[RoleDecision]
    shrinks: list[RoleDecision]
    done: list[str]
    outcome: Outcome | None = None


class Scaler:
    """Carries decisions out while this autoscaler leads."""

    def __init__(
        self,
        client: GroveClient,
        inventory: Inventory,
        conflicts: Conflicts,
        lead: Lead,
        *,
        role_of: Callable[[str, str], RoleSpec | None],
    ) -> None:
        """*role_of* returns the role of a policy, by the policy's key and the role's name."""
        self._client = client
        self._inventory = inventory
        self._conflicts = conflicts
        self._lead = lead
        self._role_of = role_of
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._troubles: dict[TargetKey, _Trouble] = {}
        self.scaled_at: dict[TargetKey, float] = {}

    def failing(self, key: TargetKey, now: float) -> str:
        """Return why a target could not be scaled when it was last tried, lately; empty if it could."""
        trouble = self._troubles.get(key)
        return "" if trouble is None or now > max(trouble.until, trouble.at + TROUBLE_S) else trouble.message

    def forget(self, is_there: Callable[[TargetKey], bool]) -> None:
        """Forget targets that are gone."""
        for known in (self._troubles, self.scaled_at):
            for key in [key for key in known if not is_there(key)]:
                del known[key]

    async def carry_out(self, decisions: Sequence[Decision], now: float) -> list[Outcome]:
        """Return what became of each decision."""
        moves = [self._move(decision) for decision in decisions]
        acting = [move for move in moves if move.outcome is None]
        await _each(self._shrink(move, now) for move in acting)
        growing = [move for move in acting if move.outcome is None and move.grows]
        room = await self._ask_room(growing, now)
        await _each(self._grow(move, room, now) for move in growing)
        return [move.outcome or Outcome(word=APPLIED, message="; ".join(move.done)) for move in moves]

    def _move(self, decision: Decision) -> _Move:
        changed = [role for role in decision.roles if role.change]
        move = _Move(
            decision=decision,
            grows=[role for role in changed if role.change > 0],
            shrinks=[role for role in changed if role.change < 0],
            done=[],
        )
        if not changed:
            move.outcome = Outcome(word=UNCHANGED)
        elif not decision.do_apply:
            move.outcome = Outcome(word=RECOMMENDED, message=_sentence(changed))
        elif not self._lead.holds:
            move.outcome = Outcome(word=WAITING, message="this autoscaler does not lead")
        return move

    async def _shrink(self, move: _Move, now: float) -> None:
        for role in move.shrinks:
            outcome = await self._scale(move, role, role.replicas, now)
            if outcome is not None:
                move.outcome = outcome
                return

    async def _grow(self, move: _Move, room: dict[tuple[str, str], Room], now: float) -> None:
        sizes = {role.name: role.replicas for role in move.grows}
        for role in move.grows:
            found = room.get((move.decision.scope, role.name))
            if found is None or found.replicas >= role.change:
                continue
            missing = f"room for {found.replicas} of {role.change} more {role.name}: {found.missing or 'no places'}"
            sizes[role.name] = role.current + found.replicas
            if found.replicas == 0:
                self._note(role, move.decision, missing, now, is_refusal=False)
                # The others wait for a decision that knows of it: none runs ahead of a role that cannot follow.
                move.outcome = Outcome(word=WAITING, message="; ".join([*move.done, missing]))
                return
            move.done.append(missing)
        for role in move.grows:
            outcome = await self._scale(move, role, sizes[role.name], now)
            if outcome is not None:
                move.outcome = outcome
                return

    async def _ask_room(self, moves: Sequence[_Move], now: float) -> dict[tuple[str, str], Room]:
        """Return the room for each growing role, as far as placement says; whoever is not asked goes without."""
        asked: list[tuple[tuple[str, str], Want]] = []
        for move in moves:
            namespace = move.decision.key.partition("/")[0]
            seen = self._inventory.sets.get((namespace, move.decision.set_name))
            for role in move.grows:
                spec = self._role_of(move.decision.key, role.name)
                if seen is not None and spec is not None and self._may_try(_key(move.decision, role), now):
                    want = Want(seen=seen, role=spec, replicas=role.change)
                    asked.append(((move.decision.scope, role.name), want))
        asked = asked[:WANTS_MAX]
        if not asked:
            return {}
        try:
            rooms = await ask_room(self._client, [want for _, want in asked])
        except GroveError as error:
            # Placement itself decides then: a replica without a place is pending, and counted so.
            _log.warning("room_not_asked", code=error.code.name, reason=error.reason)
            return {}
        return {key: room for (key, _), room in zip(asked, rooms, strict=True)}

    async def _scale(self, move: _Move, role: RoleDecision, replicas: int, now: float) -> Outcome | None:
        """Scale one target; return why the move ends here, None if it goes on."""
        decision, key = move.decision, _key(move.decision, role)
        if not self._may_try(key, now):
            trouble = self._troubles[key]
            return Outcome(word=FAILED, message=f"{trouble.message}; tried again in {trouble.until - now:.0f}s")
        if not self._lead.holds:
            return Outcome(word=WAITING, message="the lead was lost")
        kind, namespace, name = key
        resource = self._client.pod_cliques if kind == CLIQUE else self._client.pod_clique_scaling_groups
        self._conflicts.asked(key, replicas)
        try:
            async with self._slots:
                answer = await resource.scale(
                    name,
                    replicas,
                    namespace=namespace,
                    requested_by="autoscaler",
                    expected_replicas=role.current,
                    timeout_s=CALL_TIMEOUT_S,
                )
        except ConflictError as error:
            return Outcome(word=CONFLICT, message=error.message)
        except GroveError as error:
            self._note(role, decision, error.message, now, is_refusal=True)
            _log.warning("scale_failed", name=f"{namespace}/{name}", code=error.code.name, reason=error.reason)
            return Outcome(word=FAILED, message="; ".join([*move.done, f"{role.name}: {error.message}"]))
        self._troubles.pop(key, None)
        self._inventory.put_target(target_of(answer.resource))
        self.scaled_at[key] = now
        move.done.append(f"{role.name} {role.current} -> {replicas}")
        _log.info(
            "scaled", name=f"{namespace}/{name}", kind=kind, replicas=replicas, reason=role.reason, decision=decision.id
        )
        return None

    def _may_try(self, key: TargetKey, now: float) -> bool:
        trouble = self._troubles.get(key)
        return trouble is None or now >= trouble.until

    def _note(self, role: RoleDecision, decision: Decision, message: str, now: float, *, is_refusal: bool) -> None:
        """Remember a failure. What has no room is asked again at every tick, what was refused after a while."""
        key = _key(decision, role)
        before = self._troubles.get(key)
        count = (before.count if before else 0) + 1
        wait_s = min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2 ** min(count - 1, 16)) if is_refusal and count > 1 else 0.0
        self._troubles[key] = _Trouble(message=message, count=count if is_refusal else 0, at=now, until=now + wait_s)


def _key(decision: Decision, role: RoleDecision) -> TargetKey:
    return role.target_kind, decision.key.partition("/")[0], role.target_name


def _sentence(roles: Iterable[RoleDecision]) -> str:
    return "; ".join(f"{role.name} {role.current} -> {role.replicas}" for role in roles)


async def _each(steps: Iterable[Coroutine[None, None, None]]) -> None:
    await asyncio.gather(*steps)
