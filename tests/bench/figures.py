"""Figures: what a benchmark found, beside a bare baseline of the same run and the target it should meet.

Rules: a figure is measured here and now, never copied; its baseline runs in the same process run, because machines
differ and noisy ones differ from minute to minute; nothing is asserted, a missed target is a line in a table.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from tests.tidy.sources import ROOT

Better = Literal["higher", "lower"]
COLUMNS: Final = ("figure", "value", "unit", "baseline", "ratio", "target", "met")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure should reach: a bound on its value, or on its ratio to the baseline."""

    bound: float
    of: Literal["value", "ratio"] = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of build/bench.json. ``ratio`` is value by baseline; what has no target has no ``met``."""

    name: str
    value: float
    unit: str
    better: Better
    baseline: float | None = None
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None


def figure(
    name: str, value: float, unit: str, *, better: Better, baseline: float | None = None, target: Target | None = None
) -> Figure:
    """Return a figure with its ratio and whether it meets its target; a target of the ratio needs a baseline."""
    ratio = value / baseline if baseline else None
    text = met = None
    if target is not None:
        reached = value if target.of == "value" else ratio
        if reached is None:
            message = f"{name}: a target for the ratio needs a baseline other than 0"
            raise ValueError(message)
        met = reached >= target.bound if better == "higher" else reached <= target.bound
        text = f"{target.of} {'>=' if better == 'higher' else '<='} {target.bound:g}"
    return Figure(
        name=name, value=value, unit=unit, better=better, baseline=baseline, ratio=ratio, target=text, met=met
    )


def machine() -> dict[str, str | int | float]:
    """Return what a reader needs to know of the machine to judge its figures."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "memory_gib": round(memory_bytes / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the commit that is measured, with a plus sign if the tree differs from it; empty outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip()


def write(figures: Iterable[Figure], path: Path) -> None:
    """Write the report: commit, machine and one object for each figure."""
    report = {"commit": commit(), "machine": machine(), "results": [asdict(found) for found in figures]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table, ready for docs/performance.md."""
    rows = [COLUMNS, *(_row(found) for found in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def _row(found: Figure) -> tuple[str, ...]:
    baseline = "" if found.baseline is None else _number(found.baseline)
    ratio = "" if found.ratio is None else f"{found.ratio:.3g}"
    met = {None: "", True: "yes", False: "NO"}[found.met]
    return (found.name, _number(found.value), found.unit, baseline, ratio, found.target or "", met)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
