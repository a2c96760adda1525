"""Rules for the schedules of a ScalingPolicy: times, bounds, and that no two hold for a role at the same moment.

Overlaps are looked for in a year of which every day exists (2024), or in two weeks of it where no schedule names days
of the month or months. How many periods are looked at is bounded, so that admission takes a few milliseconds at most; a
handful of schedules is looked at whole. Time zones count with the offset that they had at each start.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from grove_server.admission.findings import Findings
from grove_server.admission.validation_scaling_role import check_between, check_duration
from grove_server.resources.cron import Cron, CronError, parse_cron
from grove_server.resources.scaling_policy import REPLICAS_MAX, SCHEDULES_MAX, ScalingPolicySpec, ScheduleSpec
from grove_server.resources.violations import VIOLATIONS_SHOWN_MAX, quoted

STARTS_PER_DAY_MAX: Final = 24
PERIODS_MAX: Final = 2_048
"""Periods of all schedules of a policy that are looked at, each schedule's part of them from the beginning."""

_DAY_MINUTES: Final = 24 * 60
_YEAR_DAYS: Final = 366
_FORTNIGHT_DAYS: Final = 15
_FIRST: Final = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS: Final = tuple(_FIRST + timedelta(days=day) for day in range(_YEAR_DAYS))
_ALL_MONTHS: Final = 12
_ALL_DAYS: Final = 31
_LEAD_MAX_S: Final = 86_400.0


class _Period(NamedTuple):
    """Minutes since the beginning of the year in UTC, and which schedule it is of."""

    start: int
    end: int
    number: int


def check_schedules(spec: ScalingPolicySpec, findings: Findings) -> None:
    """Check each schedule, then whether some hold at the same time."""
    if len(spec.schedules) > SCHEDULES_MAX:
        findings.too_many("spec.schedules", len(spec.schedules), SCHEDULES_MAX)
        return
    times: dict[int, tuple[Cron, Cron]] = {}
    for index, schedule in enumerate(spec.schedules):
        path = f"spec.schedules[{index}]"
        start, end = (_cron(schedule.start, f"{path}.start", findings), _cron(schedule.end, f"{path}.end", findings))
        is_zone = _check_zone(schedule.time_zone, f"{path}.timeZone", findings)
        _check_bounds(schedule, path, spec, findings)
        if start is not None and end is not None and is_zone:
            times[index] = (start, end)
    _check_overlaps(spec, times, findings)


def _cron(text: str, path: str, findings: Findings) -> Cron | None:
    try:
        cron = parse_cron(text)
    except CronError as error:
        findings.invalid(path, f"{error}; got {quoted(text)}")
        return None
    per_day = len(cron.hours) * len(cron.minutes)
    if per_day > STARTS_PER_DAY_MAX:
        findings.invalid(path, f"must be at most {STARTS_PER_DAY_MAX} times a day, is {per_day} times")
        return None
    return cron


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _check_zone(name: str, path: str, findings: Findings) -> bool:
    if name == "UTC" or _zone(name) is not None:
        return True
    findings.invalid(path, f"must be a time zone such as UTC or Europe/Berlin, got {quoted(name)}")
    return False


def _check_bounds(schedule: ScheduleSpec, path: str, spec: ScalingPolicySpec, findings: Findings) -> None:
    least, most = schedule.min_replicas, schedule.max_replicas
    check_duration(schedule.lead, f"{path}.lead", findings, most_s=_LEAD_MAX_S)
    if least is None and most is None:
        findings.required(path, "must have minReplicas or maxReplicas")
    for name, value in (("minReplicas", least), ("maxReplicas", most)):
        if value is not None:
            check_between(value, f"{path}.{name}", findings, least=0, most=REPLICAS_MAX)
    if least is not None and most is not None and most < least:
        findings.invalid(f"{path}.maxReplicas", f"must be at least minReplicas ({least}), got {most}")
    if schedule.role is not None and schedule.role not in {role.name for role in spec.roles}:
        findings.not_found(f"{path}.role", f"there is no role {quoted(schedule.role)} in spec.roles")
    for role in spec.roles:
        if schedule.role not in (None, role.name):
            continue
        if least is not None and least > role.max_replicas:
            message = f"must be at most maxReplicas ({role.max_replicas}) of role {role.name}, got {least}"
            findings.invalid(f"{path}.minReplicas", message)
        if most is not None and most < role.min_replicas:
            message = f"must be at least minReplicas ({role.min_replicas}) of role {role.name}, got {most}"
            findings.invalid(f"{path}.maxReplicas", message)


def _check_overlaps(spec: ScalingPolicySpec, times: dict[int, tuple[Cron, Cron]], findings: Findings) -> None:
    """Report each schedule that holds together with one before it in the list."""
    is_weekly = all(_is_weekly(start) and _is_weekly(end) for start, end in times.values())
    day_count = _FORTNIGHT_DAYS if is_weekly else _YEAR_DAYS
    periods: list[_Period] = []
    for number, (start, end) in times.items():
        starts = _minutes(start, day_count, count_max=PERIODS_MAX // len(times))
        ends = _minutes(end, day_count, beyond=starts[-1]) if starts else []
        periods += _periods(starts, ends, number, spec.schedules[number].time_zone, day_count)
    periods.sort()
    running: list[_Period] = []
    told: set[int] = set()
    for period in periods:
        if len(told) >= VIOLATIONS_SHOWN_MAX:
            return
        running = [each for each in running if each.end > period.start]
        for other in running:
            first, second = sorted((other.number, period.number))
            if first == second or second in told or not _share_a_role(spec, first, second):
                continue
            told.add(second)
            moment = (_FIRST + timedelta(minutes=period.start)).strftime("%a %H:%M" if is_weekly else "%d %b %H:%M")
            message = f"overlaps with spec.schedules[{first}], for example at {moment} UTC"
            findings.invalid(f"spec.schedules[{second}]", message)
        running.append(period)


def _share_a_role(spec: ScalingPolicySpec, first: int, second: int) -> bool:
    one, other = spec.schedules[first].role, spec.schedules[second].role
    return one is None or other is None or one == other


def _is_weekly(cron: Cron) -> bool:
    return len(cron.months) == _ALL_MONTHS and len(cron.days) == _ALL_DAYS and not cron.is_either_day


def _periods(starts: list[int], ends: list[int], number: int, time_zone: str, day_count: int) -> list[_Period]:
    """Return the periods of one schedule in order, merged where it begins anew."""
    periods: list[_Period] = []
    if not ends:
        return periods
    whole = day_count * _DAY_MINUTES
    until = -1
    for begin in starts:
        if begin < until:
            continue
        position = bisect_right(ends, begin)
        until = ends[position] if position < len(ends) else ends[0] + whole
        offset = _offset_minutes(time_zone, begin)
        periods.append(_Period(begin - offset, until - offset, number))
    return periods


def _minutes(cron: Cron, day_count: int, *, count_max: int = PERIODS_MAX, beyond: int | None = None) -> list[int]:
    """Return when a cron time occurs first, in minutes of its wall clock: so often, or until it is after *beyond*."""
    found: list[int] = []
    for number, day in enumerate(_DAYS[:day_count]):
        if found and (len(found) >= count_max if beyond is None else found[-1] > beyond):
            break
        # Most days are told apart by their month or their number alone.
        if day.month in cron.months and (cron.is_either_day or day.day in cron.days) and cron.matches_day(day):
            base = number * _DAY_MINUTES
            found += [base + hour * 60 + minute for hour in cron.hours for minute in cron.minutes]
    return found


def _offset_minutes(time_zone: str, minute: int) -> int:
    zone = None if time_zone == "UTC" else _zone(time_zone)
    if zone is None:
        return 0
    local = (_FIRST + timedelta(minutes=minute)).replace(tzinfo=zone)
    offset = local.utcoffset()
    return 0 if offset is None else round(offset.total_seconds() / 60)
