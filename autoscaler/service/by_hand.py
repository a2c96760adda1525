"""Pauses and sizes that people asked for, each until a time. The policy's status keeps them over restarts.

Whoever leads reads them from the status when it begins to lead, and writes them back with every change. Owned by the
event loop; times come as arguments.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Final

from autoscaler.acting.records import epoch_seconds, rfc3339
from autoscaler.observation import Override, Pause
from grove.v1.scaling_policy_pb2 import ScalingOverride, ScalingPause, ScalingPolicyStatus

OVERRIDES_MAX: Final = 128
_SAME_S: Final = 0.001


class TooManyByHandError(Exception):
    """A policy has as many sizes by hand as it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAsked:
    """A pause of a direction: "in", "out" or "both"."""

    direction: str
    until: float
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideAsked:
    """A size of a role, in one copy or (None) all."""

    role: str
    copy: int | None
    replicas: int
    until: float
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class _Asked:
    pauses: tuple[PauseAsked, ...] = ()
    overrides: tuple[OverrideAsked, ...] = ()


class ByHand:
    """What holds by hand, by the policies' keys."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    def recall(self, key: str, status: ScalingPolicyStatus) -> None:
        """Take in what a status holds, instead of what was known."""
        pauses = tuple(
            PauseAsked(
                direction=each.direction, until=epoch_seconds(each.until) or 0.0, reason=each.reason, actor=each.actor
            )
            for each in status.pauses
        )
        overrides = tuple(
            OverrideAsked(
                role=each.role,
                copy=each.copy if each.HasField("copy") else None,
                replicas=each.replicas,
                until=epoch_seconds(each.until) or 0.0,
                reason=each.reason,
                actor=each.actor,
            )
            for each in status.overrides
        )
        self._asked[key] = _Asked(pauses, overrides)

    def keep_only(self, keys: Container[str]) -> None:
        """Forget policies that are gone."""
        for key in [key for key in self._asked if key not in keys]:
            del self._asked[key]

    def pause(self, key: str, asked: PauseAsked, now: float) -> bool:
        """Begin a pause, or end it if its time is over already; return whether that changed something."""
        before = self._valid(key, now)
        others = tuple(each for each in before.pauses if each.direction != asked.direction)
        kept = (*others, asked) if asked.until > now else others
        self._asked[key] = replace(before, pauses=kept)
        return kept != before.pauses

    def override(self, key: str, asked: OverrideAsked, now: float) -> bool:
        """Begin a size by hand, or end it; return whether that changed something. TooManyByHandError."""
        before = self._valid(key, now)
        others = tuple(each for each in before.overrides if (each.role, each.copy) != (asked.role, asked.copy))
        kept = (*others, asked) if asked.until > now else others
        if len(kept) > OVERRIDES_MAX:
            raise TooManyByHandError(f"a policy has at most {OVERRIDES_MAX} sizes by hand")
        self._asked[key] = replace(before, overrides=kept)
        return kept != before.overrides

    def pauses(self, key: str, now: float) -> tuple[Pause, ...]:
        """Return the pauses as the core reads them."""
        return tuple(
            Pause(direction=each.direction, until=each.until, by=each.actor) for each in self._valid(key, now).pauses
        )

    def overrides(self, key: str, copy: int, now: float) -> tuple[Override, ...]:
        """Return the sizes for one copy as the core reads them; one for the copy wins over one for all."""
        found: dict[str, OverrideAsked] = {}
        for each in self._valid(key, now).overrides:
            if each.copy == copy or (each.copy is None and each.role not in found):
                found[each.role] = each
        return tuple(
            Override(role=each.role, replicas=each.replicas, until=each.until, by=each.actor, reason=each.reason)
            for _, each in sorted(found.items())
        )

    def write(self, key: str, status: ScalingPolicyStatus, now: float) -> None:
        """Write what holds into a status."""
        asked = self._valid(key, now)
        status.pauses.extend(
            ScalingPause(direction=each.direction, until=rfc3339(each.until), reason=each.reason, actor=each.actor)
            for each in asked.pauses
        )
        status.overrides.extend(
            ScalingOverride(
                role=each.role,
                copy=each.copy,
                replicas=each.replicas,
                until=rfc3339(each.until),
                reason=each.reason,
                actor=each.actor,
            )
            for each in asked.overrides
        )

    def notes(self, key: str, now: float) -> list[str]:
        """Return what holds, as sentences."""
        asked = self._valid(key, now)
        notes = []
        for pause in asked.pauses:
            until = f"until {rfc3339(pause.until)}{_because(pause.reason)}"
            notes.append(f"paused ({pause.direction}) by {pause.actor or 'somebody'} {until}")
        for each in asked.overrides:
            where = "" if each.copy is None else f" of copy {each.copy}"
            notes.append(
                f"{each.role}{where} is {each.replicas} by {each.actor or 'somebody'} until {rfc3339(each.until)}"
                f"{_because(each.reason)}"
            )
        return notes

    def _valid(self, key: str, now: float) -> _Asked:
        asked = self._asked.get(key, _Asked())
        return _Asked(
            tuple(each for each in asked.pauses if each.until > now + _SAME_S),
            tuple(each for each in asked.overrides if each.until > now + _SAME_S),
        )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
