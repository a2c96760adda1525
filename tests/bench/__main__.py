"""Run the benchmarks: `python -m tests.bench [--only PREFIX] [--out FILE]`.

Each benchmark runs in a process of its own, so that none inherits the memory, the caches or the event loop of another,
and a figure of memory means what it says. A benchmark that fails is reported, the others still run, and the exit
status is 1. A missed target is no failure: the table says so.
"""

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from tests.bench.figures import Figure, table, write
from tests.bench.suite import SUITE, Benchmark
from tests.tidy.sources import ROOT

OUT: Final = ROOT / "build" / "bench.json"


def measure(benchmark: Benchmark) -> list[Figure]:
    """Run one benchmark in a fresh interpreter and return its figures."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(benchmark.figures).result()


def main() -> int:
    """Run what was asked for, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure; nothing is asserted.")
    parser.add_argument("--only", default="", metavar="PREFIX", help="run benchmarks whose name starts with this")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="where the report goes")
    options = parser.parse_args()
    chosen = [benchmark for benchmark in SUITE if benchmark.name.startswith(options.only)]
    if not chosen:
        print(
            f"no benchmark starts with {options.only!r}; there are: {', '.join(b.name for b in SUITE)}", file=sys.stderr
        )
        return 2
    figures: list[Figure] = []
    failed: list[str] = []
    for benchmark in chosen:
        started_s = time.monotonic()
        print(f"{benchmark.name} …", end=" ", flush=True, file=sys.stderr)
        try:
            figures.extend(measure(benchmark))
        except Exception as error:  # noqa: BLE001 -- one broken benchmark must not hide the figures of the others
            failed.append(benchmark.name)
            print(f"failed: {error!r}", file=sys.stderr)
        else:
            print(f"{time.monotonic() - started_s:.1f} s", file=sys.stderr)
    write(figures, options.out)
    print(table(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
