"""Runs seeds: ``python -m tests.simulation --seeds 5000``, or one of them again: ``--replay SEED``.

With ``--load FILE`` it goes on from a dump of a real server instead, see ``dumps``.

Prints progress, what the runs did, how fast they were, and for each seed that failed: what went wrong, the last
transitions, and the command that runs it again. Exits 1 if a seed failed, and 2 if there is no dump to go on from.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from grove_server.control.dump import DumpError
from tests.simulation.dumps import go_on, load_dump
from tests.simulation.run import SIZES, Report, simulate

_FAILURES_SHOWN: Final = 5
_FAILURE_LENGTH_MAX: Final = 4_000
_PROGRESS_INTERVAL_S: Final = 5.0
_PROGRESS_LENGTH_MAX: Final = 300
_UNREADABLE: Final = 2


def main() -> int:
    """Run what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--size", choices=sorted(SIZES), default="small", help="how large the world is")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--replay", metavar="SEED", help="run one seed, hashing every row, and show its end")
    parser.add_argument("--load", metavar="FILE", type=Path, help="go on from a dump (grovectl debug dump FILE)")
    parser.add_argument(
        "--inputs", action="store_true", help="with --load: begin earlier, replay what came from outside"
    )
    options = parser.parse_args()
    if options.load is not None:
        return _load(options.load, with_inputs=options.inputs)
    if options.replay is not None:
        return _replay(options.replay, options.size)
    seeds = [str(seed) for seed in range(options.first, options.first + options.seeds)]
    began_s = time.perf_counter()
    reports = [*_progress(_run(seeds, options.size, options.jobs), len(seeds), began_s)]
    return _summarise(reports, options.size, time.perf_counter() - began_s)


def _run(seeds: list[str], size: str, jobs: int) -> Iterator[Report]:
    run = partial(simulate, size=SIZES[size])
    if jobs == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, seeds, chunksize=max(1, min(16, len(seeds) // (4 * jobs))))


def _progress(reports: Iterable[Report], count: int, began_s: float) -> Iterator[Report]:
    shown_s = began_s
    failed = 0
    for done, report in enumerate(reports, start=1):
        yield report
        if report.failure:
            failed += 1
            print(f"seed {report.seed} failed: {report.failure[:_PROGRESS_LENGTH_MAX]}", flush=True)
        now_s = time.perf_counter()
        if now_s - shown_s >= _PROGRESS_INTERVAL_S:
            shown_s = now_s
            print(f"{done} of {count} seeds, {failed} failed, {done / (now_s - began_s):.1f} seeds/s", flush=True)


def _replay(seed: str, size: str) -> int:
    report = simulate(seed, SIZES[size], is_thorough=True)
    print("\n".join(report.last))
    print(f"history {report.digest}, {report.virtual_s:.1f} virtual seconds, {report.changes.total()} changes")
    print(report.failure or "all is well")
    return 1 if report.failure else 0


def _load(path: Path, *, with_inputs: bool) -> int:
    try:
        dump = load_dump(path)
    except (DumpError, OSError) as error:
        print(f"error: {path}: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
        return _UNREADABLE
    ended = go_on(dump, with_inputs=with_inputs)
    print("\n".join(ended.last))
    print(f"history {ended.digest}, {ended.virtual_s:.1f} virtual seconds, changes by cause: {dict(ended.changes)}")
    if with_inputs:
        print(f"{ended.inputs} inputs, {ended.inputs_lost} of them lost")
    print("\n".join(ended.differences) or "all is as it should be")
    return 1 if ended.differences else 0


def _summarise(reports: list[Report], size: str, real_s: float) -> int:
    failures = [report for report in reports if report.failure]
    for report in failures[:_FAILURES_SHOWN]:
        print(describe(report, size))
    actions, answers = Counter[str](), Counter[str]()
    for report in reports:
        actions += report.actions
        answers += Counter(report.answers)
    virtual_s = sum(report.virtual_s for report in reports)
    print(f"actions: {', '.join(f'{name} {count}' for name, count in actions.most_common())}")
    print(f"calls: {dict(answers)}; changes: {sum(report.changes.total() for report in reports)}")
    print(
        f"{len(reports)} seeds in {real_s:.1f} s: {len(reports) / real_s:.1f} seeds/s, "
        f"{actions.total() / real_s:.0f} faults and edits/s, {virtual_s / real_s:.0f} times real time; "
        f"{len(failures)} failed{': ' + ', '.join(r.seed for r in failures[:50]) if failures else ''}"
    )
    return 1 if failures else 0


def describe(report: Report, size: str = "small") -> str:
    """Return what is known of a failed run, with the command that repeats it."""
    return "\n".join(
        (
            f"--- seed {report.seed} failed: {report.failure[:_FAILURE_LENGTH_MAX]}",
            *report.last,
            f"replay: python -m tests.simulation --size {size} --replay {report.seed}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
