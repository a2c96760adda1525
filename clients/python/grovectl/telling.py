"""The story of a resource, as `describe` shows it: its last transitions with what changed, by whom and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from grovectl import table
from grovectl.ages import age
from grovectl.output import now
from grovectl.table import NONE

if TYPE_CHECKING:
    from grove.v1.story_pb2 import Change, StoryServiceGetResponse, Transition
    from grove_client import GroveClient

TRANSITIONS_SHOWN_MAX: Final = 25
# What is longer is in the call's answer; here it would push the reasons off the screen.
_WHAT_LENGTH_MAX: Final = 200
_TITLES: Final = ("AGE", "BY", "WHAT", "WHY")


async def story_of(grove: GroveClient, kind: str, namespace: str, name: str) -> StoryServiceGetResponse | None:
    """Read what the server remembers of one resource; None from a server that does not."""
    from grove_client import UnimplementedError

    try:
        return await grove.story(kind, name, namespace=namespace)
    except UnimplementedError:
        return None


def story_lines(story: StoryServiceGetResponse) -> list[str]:
    """Return the story as a table, the latest last, with a word about what is not shown."""
    shown = story.transitions[-TRANSITIONS_SHOWN_MAX:]
    lines = table.lines(_TITLES, [_row(each) for each in shown]) if shown else []
    earlier = story.forgotten + len(story.transitions) - len(shown)
    since = f"remembered for {age(story.remembered_since, now())}"
    return [*lines, f"({since}; {earlier} earlier not shown)" if earlier else f"({since})"]


def _row(transition: Transition) -> list[str]:
    by = f"{transition.cause} ({transition.actor})" if transition.actor else transition.cause
    return [
        age(transition.time, now()),
        by or NONE,
        _changes(transition.changes),
        " ".join(transition.reason.split()) or (f"request {transition.request_id}" if transition.request_id else NONE),
    ]


def _changes(changes: Sequence[Change]) -> str:
    text = "; ".join(_change(each) for each in changes)
    return text if len(text) <= _WHAT_LENGTH_MAX else f"{text[: _WHAT_LENGTH_MAX - 1]}…"


def _change(change: Change) -> str:
    if not change.before and not change.after:
        text = change.what
    elif not change.before:
        text = f"{change.what} {change.after}"
    else:
        text = f"{change.what} {change.before} → {change.after or NONE}"
    return "".join(char if char.isprintable() else " " for char in text)
