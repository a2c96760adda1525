"""Bounds that hold from one cron time to another, as a wall clock somewhere shows them. Pure.

A schedule holds when its start was later than its end, seen ``lead`` ahead for the start, so that replicas are there in
time. Time zones come from the system's tables, which are data and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from autoscaler.policy import Schedule


def holds(schedule: Schedule, now: float) -> bool:
    """Tell whether a schedule's bounds hold at an epoch time."""
    zone = ZoneInfo(schedule.time_zone)
    started = schedule.start.last_before(_wall(now + schedule.lead_s, zone))
    if started is None:
        return False
    ended = schedule.end.last_before(_wall(now, zone))
    return ended is None or started > ended


def bounds(schedules: Sequence[Schedule], role: str, least: int, most: int, now: float) -> tuple[int, int]:
    """Return the bounds of a role with all schedules that hold; where they contradict, the smaller size wins."""
    for schedule in schedules:
        if schedule.role in ("", role) and holds(schedule, now):
            if schedule.min_replicas is not None:
                least = max(least, schedule.min_replicas)
            if schedule.max_replicas is not None:
                most = min(most, schedule.max_replicas)
    return min(least, most), most


def _wall(at: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None)
