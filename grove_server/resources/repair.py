"""Repair of a document that is wrong in part, so that rules can be checked on the rest of it.

Missing fields and values of a wrong type get a neutral value or are left out, unknown fields are left out. Each such
place but those of unknown fields is a gap: nothing that is found at it or below is the user's mistake. Neutral means
that no comparison with it fails: a size is 0, a minimum 1, a name is one that stands nowhere in the document.

A repaired document is for finding mistakes. It must never be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from grove_server.resources.mistakes import MAPS, Mistake, Place, path_of
from grove_server.resources.violations import Reason

# How deep required fields stand in each other: each round of reading and repairing fills one level.
ROUNDS_MAX: Final = 8

_NAMES: Final = frozenset(
    {
        *("apiVersion", "kind", "name", "scope", "domain", "key", "schedulerName", "topologyReference"),
        *("podCliqueSet", "role", "query", "unit", "start", "end", "base", "type"),
    }
)
_NEUTRAL: Final[Mapping[str, Callable[[], object]]] = {
    **dict.fromkeys(("metadata", "spec", "template", "podSpec", "templateSpec"), dict),
    **dict.fromkeys(("cliques", "cliqueNames", "levels"), list),
    "replicas": lambda: 0,
    "minReplicas": lambda: 0,
    "minAvailable": lambda: 1,
    # A unit more: an update that may take none and add none would stand still.
    "maxSurge": lambda: 1,
    "value": lambda: 0,
    # Of a scaling policy: the most that there may be, so that every minimum is below it.
    "gpus": lambda: 1_000_000,
    **dict.fromkeys(("atLeast", "change"), lambda: 0),
    "periodSeconds": lambda: 1,
    "roles": list,
}
# What is optional elsewhere, and would then be looked at as if somebody had written it.
_NEUTRAL_IN_ROLES: Final[Mapping[str, Callable[[], object]]] = {"maxReplicas": lambda: 10_000}


@dataclass(frozen=True, slots=True)
class Gaps:
    """Places of a document that cannot be read, as paths."""

    paths: tuple[str, ...] = ()

    def cover(self, path: str) -> bool:
        """Return whether *path* is at a gap or below one."""
        return any(is_within(path, gap) for gap in self.paths)

    def break_up(self, path: str) -> bool:
        """Return whether a gap is a part of what stands at *path*."""
        return any(is_within(gap, path) for gap in self.paths)


def is_within(path: str, whole: str) -> bool:
    """Return whether *path* is *whole* or stands below it; all stands below the empty path."""
    return path.startswith(whole) and (not whole or path[len(whole) : len(whole) + 1] in {"", ".", "["})


@dataclass(slots=True)
class Repair:
    """One document under repair. *text* is all of it, to find names that are not in it."""

    tree: Any
    text: str
    _gaps: dict[Place, None] = field(default_factory=dict)
    _prefix: str = ""
    _number: int = 0

    @property
    def gaps(self) -> Gaps:
        """The gaps there are."""
        return Gaps(tuple(path_of(place) for place in self._gaps))

    def is_known(self, place: Place) -> bool:
        """Return whether *place* is at a gap or below one."""
        return any(place[:length] in self._gaps for length in range(1, len(place) + 1))

    def mend(self, mistakes: Iterable[Mistake]) -> bool:
        """Fill or leave out what is wrong; return whether all of it could be."""
        for mistake in mistakes:
            if not mistake.place:
                return False
            if mistake.reason is Reason.FIELD_UNKNOWN:
                self._holder(mistake.place).pop(mistake.place[-1], None)
            else:
                self.fill(mistake.place, mistake.expected)
        return True

    def fill(self, place: Place, expected: str = "") -> None:
        """Put a neutral value at *place*, or nothing where that is as neutral."""
        if not self.is_known(place):
            self._gaps[place] = None
        holder, name = self._holder(place), place[-1]
        if isinstance(holder, list):
            holder[int(name)] = {} if expected == "a map" else [] if expected == "a list" else self._fresh()
        elif len(place) > 1 and place[-2] in MAPS:
            holder[name] = {} if expected == "a map" else self._fresh()
        elif name in _NEUTRAL_IN_ROLES and "roles" in place:
            holder[name] = _NEUTRAL_IN_ROLES[str(name)]()
        elif name in _NEUTRAL:
            holder[name] = _NEUTRAL[str(name)]()
        elif name in _NAMES:
            holder[name] = self._fresh()
        else:
            holder.pop(name, None)

    def _holder(self, place: Place) -> Any:  # noqa: ANN401 -- any JSON
        value = self.tree
        for step in place[:-1]:
            value = value[step]
        return value

    def _fresh(self) -> str:
        """Return a short name that is not in the document, and another one each time."""
        if not self._prefix:
            self._prefix = next(prefix for n in count() if (prefix := f"z{n}x") not in self.text)
        self._number += 1
        return f"{self._prefix}{self._number}"
