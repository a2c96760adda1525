"""What the replay table says of its runs: means, spreads and gaps between fronts, as JSON, text and plots. Pure.

Gaps are told both ways: our front against KEDA's chosen setting, and what ships of ours against KEDA's front.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.replay.comparing import LINES, summary
from autoscaler.replay.outcome import Outcome
from autoscaler.replay.pareto import Gap, Point, front, gap
from autoscaler.replay.plot import svg

ALL: Final = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One line on one day. `line` is a policy's name, `label` its setting; "" is the one that is compared."""

    line: str
    label: str
    case: str
    seed: int
    outcome: Outcome


def points(runs: Sequence[Run], line: str, case: str) -> list[Point]:
    """Return a line's settings in a case, means over seeds; of all cases mean attainment and GPU-hours together."""
    cases = sorted({run.case for run in runs}) if case == ALL else [case]
    made = []
    for label in sorted({run.label for run in runs if run.line == line}):
        of_cases = [_outcomes(runs, line, label, each) for each in cases]
        attainment = statistics.mean(statistics.mean(one.slo_attainment for one in each) for each in of_cases)
        gpu_hours = sum(statistics.mean(one.gpu_hours for one in each) for each in of_cases)
        made.append(Point(gpu_hours=gpu_hours, attainment=attainment, label=label))
    return made


def _outcomes(runs: Sequence[Run], line: str, label: str, case: str) -> list[Outcome]:
    return [run.outcome for run in runs if (run.line, run.label, run.case) == (line, label, case)]


def _gaps(runs: Sequence[Run], case: str) -> dict[str, float | None]:
    """Return both gaps of a case, and how far ours is from the oracle."""
    ours, keda, oracle = (points(runs, line, case) for line in ("ours", "keda", "oracle"))
    compared = [next(point for point in each if not point.label) for each in (ours, keda, oracle)]
    shipped, chosen, ideal = compared
    told, back = gap(front(ours), chosen), gap(front(keda), shipped)
    return {
        **_named("our_front_to_keda", told),
        **_named("keda_front_to_ours", back),
        "points_ours_to_keda": round(100 * (shipped.attainment - chosen.attainment), 3),
        "gpu_ratio_ours_to_keda": round(shipped.gpu_hours / chosen.gpu_hours, 4),
        "gpu_ratio_ours_to_oracle": round(shipped.gpu_hours / ideal.gpu_hours, 4),
    }


def _named(name: str, told: Gap) -> dict[str, float | None]:
    return {
        f"{name}_points": None if told.points is None else round(told.points, 3),
        f"{name}_gpu_ratio": None if told.gpu_ratio is None else round(told.gpu_ratio, 4),
    }


def document(runs: Sequence[Run], settings: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Return the whole table."""
    cases = sorted({run.case for run in runs})
    shown = [line for line in LINES if any(run.line == line for run in runs)]
    by_case: dict[str, object] = {
        case: {
            "policies": {line: summary(_outcomes(runs, line, "", case)) for line in shown},
            "gaps": _gaps(runs, case),
        }
        for case in cases
    }
    totals = {line: _total([summary(_outcomes(runs, line, "", case)) for case in cases]) for line in shown}
    fronts = {
        line: [
            {
                "setting": point.label,
                "gpu_hours": round(point.gpu_hours, 1),
                "slo_attainment": round(point.attainment, 6),
            }
            for point in front(points(runs, line, ALL))
        ]
        for line in ("ours", "keda")
    }
    return {
        "cases": by_case,
        "all": {"policies": totals, "gaps": _gaps(runs, ALL), "fronts": fronts},
        "settings": dict(settings),
        "seeds": {str(seed): "held" for seed in sorted({run.seed for run in runs})},
    }


def _total(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means of shares over cases, and sums of what is counted."""
    shares = ("slo_attainment", "ttft_attainment", "tpot_attainment", "worst_5min_attainment")
    counts = ("gpu_hours", "scale_actions", "reversals", "aborted_requests")
    total = {name: round(statistics.mean(each[name] for each in summaries), 6) for name in shares}
    return total | {name: round(sum(each[name] for each in summaries), 3) for name in counts}


def lines_of_text(runs: Sequence[Run]) -> list[str]:
    """Return the table as Markdown."""
    cases = sorted({run.case for run in runs})
    told = ["| case | line | SLO % | worst 5 min | GPU-h | actions | reversals | aborted |", "|" + " --- |" * 8]
    for case in cases:
        for line in LINES:
            outcomes = _outcomes(runs, line, "", case)
            if outcomes:
                told.append(_row(case, line, summary(outcomes)))
    shown = [line for line in LINES if any(run.line == line for run in runs)]
    told += [_row(ALL, line, _total([summary(_outcomes(runs, line, "", case)) for case in cases])) for line in shown]
    told += ["", "| case | gap | points at equal GPU-h | GPU-h at equal attainment |", "|" + " --- |" * 4]
    for case in (*cases, ALL):
        gaps = _gaps(runs, case)
        for name in ("our_front_to_keda", "keda_front_to_ours"):
            told.append(
                f"| {case} | {name.replace('_', ' ')} | {_number(gaps[f'{name}_points'], '+.2f')} "
                f"| {_number(gaps[f'{name}_gpu_ratio'], '.3f')} |"
            )
        told.append(
            f"| {case} | ours to keda as set | {_number(gaps['points_ours_to_keda'], '+.2f')} "
            f"| {_number(gaps['gpu_ratio_ours_to_keda'], '.3f')} |"
        )
    return told


def _row(case: str, line: str, means: Mapping[str, float]) -> str:
    return (
        f"| {case} | {line.replace('_', ' ')} | {100 * means['slo_attainment']:.2f} "
        f"| {100 * means['worst_5min_attainment']:.1f} | {means['gpu_hours']:.0f} | {means['scale_actions']:.0f} "
        f"| {means['reversals']:.1f} | {means['aborted_requests']:.0f} |"
    )


def _number(value: float | None, form: str) -> str:
    return "not reached" if value is None else format(value, form)


def plots(runs: Sequence[Run]) -> dict[str, str]:
    """Return a plot for each case and one for all, by name."""
    cases = sorted({run.case for run in runs})
    shown = [line for line in LINES if any(run.line == line for run in runs)]
    return {
        case: svg(
            f"{case.replace('_', ' ')}, {len({run.seed for run in runs})} held seeds",
            {line: points(runs, line, case) for line in shown},
        )
        for case in (*cases, ALL)
    }
