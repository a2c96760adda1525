"""Cron times: five fields (minute, hour, day of month, month, day of week), and when one of them was last. Pure.

Lists, ranges, steps and the names of months and days are understood. As in cron(5), where both days are given, either
will do. Times are those of a wall clock: ``last_before`` works on them, and whoever asks knows the time zone. A time
that the change to summer time skips does not occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
# The 29th of February may be eight years away.
_DAYS_BACK_MAX: Final = 8 * 366
_DIGITS_MAX: Final = 2


class CronError(ValueError):
    """A text is no cron time; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """The values that each field matches; ``is_either_day`` says that day of month or day of week is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either_day: bool

    def matches_day(self, day: datetime) -> bool:
        """Tell whether the time occurs on a day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.is_either_day else of_month and of_week

    def last_before(self, at: datetime) -> datetime | None:
        """Return the latest occurrence that is not after *at*, to the minute; None if there is none in eight years."""
        day, limit = at.replace(hour=0, minute=0, second=0, microsecond=0), (at.hour, at.minute)
        for _ in range(_DAYS_BACK_MAX):
            if self.matches_day(day):
                for hour in reversed(self.hours):
                    for minute in reversed(self.minutes):
                        if (hour, minute) <= limit:
                            return day.replace(hour=hour, minute=minute)
            day, limit = day - timedelta(days=1), (24, 0)
        return None


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """Return the cron time that *text* spells; raise CronError."""
    parts = text.lower().split()
    if len(parts) != len(_FIELDS):
        raise CronError(f"must have 5 fields (minute hour day month weekday), has {len(parts)}")
    sets = [
        _values(part, low, high, names, label) for part, (label, low, high, names) in zip(parts, _FIELDS, strict=True)
    ]
    return Cron(
        minutes=tuple(sorted(sets[0])),
        hours=tuple(sorted(sets[1])),
        days=sets[2],
        months=sets[3],
        weekdays=frozenset(day % 7 for day in sets[4]),
        is_either_day=not parts[2].startswith("*") and not parts[4].startswith("*"),
    )


def _values(text: str, low: int, high: int, names: tuple[str, ...], label: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(first, low, names, label)
            end = _number(last, low, names, label) if dash else high if step else begin
        width = 1 if not step else _number(step, low, (), label)
        if not low <= begin <= end <= high or width < 1:
            raise CronError(f"has a {label} that does not exist: {part}")
        found.update(range(begin, end + 1, width))
    return frozenset(found)


def _number(text: str, low: int, names: tuple[str, ...], label: str) -> int:
    if text in names:
        return names.index(text) + low
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX:
        raise CronError(f"has a {label} that is no number: {text or 'nothing'}")
    return int(text)
