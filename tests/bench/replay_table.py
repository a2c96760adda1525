"""The replay table: `make replay-table`. Tunes the baselines, then runs every line on the held seeds, 24 h each.

    python -m tests.bench.replay_table [--quick] [--jobs N] [--seeds N] [--out FOLDER]

Ours is what ships (`Tuning()`): its constants were chosen on tuning seeds and are frozen. Its front is the same with
more or less room in decode batches. KEDA's setting is, of all tried, the one for all cases with the highest mean
attainment (of equal ones, to a hundredth of a point, the cheapest), and its front is what of the tried settings no
other beats; HPA and KPA are chosen as KEDA is. Static fleet and oracle are chosen with hindsight, case by case.

Written: JSON, Markdown and a plot for each case. `--quick` has one held seed and fewer tries. Runs are kept, by the
code that they were made with, and not repeated.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from autoscaler.policy import Tuning
from autoscaler.replay.lines import LineSettings, policy_of
from autoscaler.replay.oracle import cheapest, oracle, static_best
from autoscaler.replay.outcome import Outcome
from autoscaler.replay.pareto import Point, front
from autoscaler.replay.running import run
from tests.bench.replay_cases import CASES, HELD_SEEDS, day, digest, has_data, setting
from tests.bench.replay_ours import ours
from tests.bench.replay_report import Run, document, lines_of_text, plots
from tests.bench.replay_tuning import FOLDER, Score, search

TRIES: Final[Mapping[str, int]] = {"keda": 120, "hpa": 40, "kpa": 40}
QUICK_TRIES: Final[Mapping[str, int]] = {"keda": 24, "hpa": 8, "kpa": 8}
# Our front: room in decode batches (`Tuning.batch_tail`), most first. On the tuning slices this beat emptier replicas
# of both roles: 99.98 % at 832 GPU-hours, where utilisations had to be scaled until 1,075 for 99.97 %.
TAILS: Final = (5.0, 3.5, 2.5, 1.5, 0.75, 0.0)
FRONT_MAX: Final = 5


def with_tail(tail: float) -> Tuning:
    """Return what ships with other room in decode batches, and prefill replicas fuller where there is less of it."""
    tuning = Tuning()
    fuller = 1.0 + 0.15 * max(tuning.batch_tail - tail, 0.0)
    return replace(
        tuning,
        batch_tail=tail,
        prefill_utilization=min(tuning.prefill_utilization * fuller, 0.95),
        prefill_scale_in_utilization=min(tuning.prefill_scale_in_utilization * fuller, 0.9),
    )


def chosen(found: Mapping[str, tuple[LineSettings, Score]]) -> str:
    """Return the label of the setting with the highest mean attainment, the cheapest of nearly equal ones."""
    return min(found, key=lambda label: (-round(found[label][1].mean_attainment, 4), found[label][1].total_gpu_hours))


def of_front(found: Mapping[str, tuple[LineSettings, Score]], best: str) -> list[str]:
    """Return labels of some settings of a front, evenly picked, without `best`."""
    points = [
        Point(gpu_hours=score.total_gpu_hours, attainment=score.mean_attainment, label=label)
        for label, (_, score) in found.items()
    ]
    labels = [point.label for point in front(points) if point.label != best and point.attainment > 0.9]
    step = max(len(labels) / FRONT_MAX, 1.0)
    return [labels[int(number * step)] for number in range(min(len(labels), FRONT_MAX))]


Line = tuple[str, str, LineSettings | None]


def lines(tries: Mapping[str, int], jobs: int) -> list[Line]:
    """Tune the baselines; return name, label and settings of each line that is run."""
    shipped = Tuning().batch_tail
    made: list[Line] = [("ours", "" if tail == shipped else f"tail {tail:g}", ours(with_tail(tail))) for tail in TAILS]
    for family, count in tries.items():
        found = search(family, count, jobs)
        best = chosen(found)
        print(f"{family}: {best} of {count}: {found[best][0]}", file=sys.stderr)
        made.append((family, "", found[best][0]))
        if family == "keda":
            made += [(family, label, found[label][0]) for label in of_front(found, best)]
    return [*made, ("static_best", "", None), ("oracle", "", None)]


def setting_key(line: str, label: str, settings: LineSettings | None) -> str:
    """Return what tells apart the runs of a line: its setting, and the code that it depends on."""
    return f"{label} {settings} {digest(of_core=line == 'ours')}"


def tried(made: Sequence[Line], done: frozenset[tuple[str, str, str, int]], task: tuple[str, int]) -> list[Run]:
    """Run all lines on one day, but for those that were run before."""
    case, seed = task
    trace = day(case, seed)
    of_day = setting(trace, seed)
    runs = []
    for line, label, settings in made:
        if (line, setting_key(line, label, settings), case, seed) in done:
            continue
        if settings is not None:
            found = run(trace, of_day, policy_of(settings, of_day))[0]
        elif line == "oracle":
            found = cheapest(oracle(trace, of_day))
        else:
            found = static_best(trace, of_day)[1]
        runs.append(Run(line=line, label=label, case=case, seed=seed, outcome=found))
    return runs


def held(made: Sequence[Line], seeds: Sequence[int], jobs: int, folder: Path) -> list[Run]:
    """Run all lines on all days, and keep what was run."""
    kept = folder / "runs.jsonl"
    before = dict(_read(kept))
    tasks = [(case.name, seed) for seed in seeds for case in CASES]
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for number, runs in enumerate(pool.map(partial(tried, made, frozenset(before)), tasks), start=1):
            settings = {(line, label): value for line, label, value in made}
            with kept.open("ab") as out:
                for each in runs:
                    told = setting_key(each.line, each.label, settings[each.line, each.label])
                    key = (each.line, told, each.case, each.seed)
                    before[key] = each
                    out.write(orjson.dumps({"key": key, "run": asdict(each)}) + b"\n")
            print(f"{number} of {len(tasks)} days", file=sys.stderr)
    wanted = {(line, setting_key(line, label, value)) for line, label, value in made}
    return [each for key, each in before.items() if key[:2] in wanted and key[3] in seeds]


def _read(path: Path) -> Iterator[tuple[tuple[str, str, str, int], Run]]:
    if path.exists():
        for line in path.read_bytes().splitlines():
            entry = orjson.loads(line)
            fields = entry["run"]
            yield tuple(entry["key"]), Run(**{**fields, "outcome": Outcome(**fields["outcome"])})


def main() -> int:
    """Tune, run, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replay_table", description="The replay table.")
    parser.add_argument("--quick", action="store_true", help="one held seed, fewer tries: minutes, not an hour")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--seeds", type=int, default=len(HELD_SEEDS), metavar="N", help="held seeds")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="where it is written")
    options = parser.parse_args()
    if not has_data():
        print("replay-table: data not found; set GROVE_REPLAY_DATA", file=sys.stderr)
        return 2
    start_s = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    made = lines(QUICK_TRIES if options.quick else TRIES, options.jobs)
    seeds = HELD_SEEDS[: 1 if options.quick else options.seeds]
    runs = held(made, seeds, options.jobs, options.out)
    settings = {f"{line} {label}".strip(): str(value) for line, label, value in made if value is not None}
    found = document(runs, {name: told for name, told in settings.items() if not name.startswith("ours")})
    (options.out / "table.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    text = "\n".join(lines_of_text(runs))
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    for name, picture in plots(runs).items():
        (options.out / f"{name}.svg").write_text(picture, encoding="utf-8")
    print(text)
    print(f"replay-table: {time.monotonic() - start_s:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
