"""Who else sets sizes. Pure.

A size that changed to something we did not ask for was set by somebody: a person, a manifest, another autoscaler.
That wins, for a while. Somebody who does it again and again is another controller: then we stay away until it has
been quiet for long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autoscaler.acting.records import TargetSeen

RESPECT_S: Final = 300.0
STAY_AWAY_S: Final = 1_800.0
OFTEN: Final = 3
_OURS: Final = "autoscaler"
TargetKey = tuple[str, str, str]


@dataclass(slots=True)
class _Seen:
    """What is known of one target's size: what we asked for last, and when others changed it, to what."""

    asked: int | None = None
    changed_at: tuple[float, ...] = ()
    size: int = 0
    owner: str = ""


class Conflicts:
    """Changes of size that were not ours, by target."""

    def __init__(self) -> None:
        self._seen: dict[TargetKey, _Seen] = {}

    def asked(self, key: TargetKey, replicas: int) -> None:
        """Note what is about to be asked for: when it is seen, it is ours, whether or not the call was answered."""
        self._seen.setdefault(key, _Seen()).asked = replicas

    def saw(self, known: TargetSeen, now_is: TargetSeen, at: float) -> None:
        """Note a change of a target that was known."""
        if known.uid != now_is.uid or known.replicas == now_is.replicas:
            return
        key = (now_is.kind, now_is.namespace, now_is.name)
        seen = self._seen.setdefault(key, _Seen())
        if now_is.owner == _OURS and seen.asked == now_is.replicas:
            return
        recent = tuple(each for each in seen.changed_at if each > at - STAY_AWAY_S)
        seen.changed_at = (*recent, at)[-OFTEN:]
        seen.size, seen.owner = now_is.replicas, now_is.owner

    def forget(self, key: TargetKey) -> None:
        """Forget a target that is gone."""
        self._seen.pop(key, None)

    def forget_all(self) -> None:
        """Forget everything: what happened while somebody else led was not done against us."""
        self._seen.clear()

    def of(self, key: TargetKey, now: float) -> str:
        """Return who sets the size instead of us, as a sentence; empty if nobody does."""
        seen = self._seen.get(key)
        if seen is None or not seen.changed_at:
            return ""
        since_s = now - seen.changed_at[-1]
        who = {"user": "a user", "spec": "the set's manifest"}.get(seen.owner, f"another {seen.owner or 'client'}")
        if len(seen.changed_at) >= OFTEN and since_s < STAY_AWAY_S:
            left_s = STAY_AWAY_S - since_s
            return f"{who} set it to {seen.size}, {OFTEN} changes by others in a while; left alone for {left_s:.0f}s"
        if since_s < RESPECT_S:
            return f"{who} set it to {seen.size} {since_s:.0f}s ago; left alone for {RESPECT_S - since_s:.0f}s"
        return ""
