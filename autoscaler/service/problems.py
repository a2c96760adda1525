"""What sources could not answer, told when it begins and when it is over and not at every tick between. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.signals.vectors import Problem

_Mark = tuple[str, str, str]


class Problems:
    """The problems of the last tick; a problem is the same if its source, what was asked, and the failure are."""

    def __init__(self) -> None:
        self._known: dict[_Mark, Problem] = {}

    def turned(self, now_are: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
        """Return which of the problems are new, and which of the last tick's are over."""
        found = {(each.of, each.what, each.failure.value): each for each in now_are}
        began = [each for mark, each in found.items() if mark not in self._known]
        ended = [each for mark, each in self._known.items() if mark not in found]
        self._known = found
        return began, ended
