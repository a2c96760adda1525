"""The program `grove-autoscaler replay`: a policy and a trace in, a comparison out. Also `python -m autoscaler.replay`.

Exit codes: 0 done, 2 the input is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from autoscaler.replay.comparing import Comparison, compare
from autoscaler.replay.history import read_history
from autoscaler.replay.manifest import ManifestError, read_policy, setting_of
from autoscaler.replay.pareto import Point
from autoscaler.replay.patterns import DAY_S, flat, level, spread, week
from autoscaler.replay.plot import svg
from autoscaler.replay.traces import Trace, TraceError, read_trace

EXIT_OK: Final = 0
EXIT_INPUT: Final = 2
_SEEDS_MAX: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay what the arguments name; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        policy = read_policy(options.policy)
        trace = _trace(options)
        setting = setting_of(policy, trace, cold_start_s=options.cold_start, gpus_per_replica=options.gpus_per_replica)
    except (ManifestError, TraceError, OSError) as error:
        print(f"grove-autoscaler replay: {error}", file=sys.stderr)
        return EXIT_INPUT
    found = compare(
        trace,
        setting,
        policy,
        seeds=range(options.seeds),
        profile_error=options.profile_error,
        has_baselines=options.baselines,
    )
    for line in table(found):
        print(line)
    if options.json:
        options.json.write_bytes(orjson.dumps(found.document(), option=orjson.OPT_INDENT_2) + b"\n")
    if options.plot:
        options.plot.write_text(svg(f"{found.trace}: attainment and cost", points(found)), encoding="utf-8")
    return EXIT_OK


def parser(parent: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Return the parser; `parent` is that of a subcommand, which gets the same arguments."""
    told = "Show what a policy, and what others, would have done with a trace, in a simulated serving system."
    made = parent or argparse.ArgumentParser(prog="grove-autoscaler replay", description=told)
    made.add_argument("--policy", type=Path, required=True, metavar="FILE", help="a ScalingPolicy manifest")
    made.add_argument(
        "--trace",
        type=Path,
        required=True,
        metavar="FILE",
        help="Azure's CSV or Mooncake's JSONL of requests, or a JSON history of Prometheus",
    )
    made.add_argument("--baselines", action="store_true", help="also HPA, KEDA, KPA, the best static fleet, the oracle")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the comparison as JSON")
    made.add_argument("--plot", type=Path, metavar="FILE", help="write the plot as SVG")
    made.add_argument("--seeds", type=_seeds, default=1, metavar="N", help="runs, each with its chance (1)")
    made.add_argument("--scale", type=_positive, default=1.0, metavar="X", help="copies laid over each other (1)")
    made.add_argument("--shape", choices=("as-is", "flat", "day", "week"), default="as-is", help="repeat it as a day")
    made.add_argument(
        "--cold-start", type=_positive, default=120.0, metavar="S", help="seconds from GPUs to ready (120)"
    )
    made.add_argument(
        "--profile-error", type=_share, default=0.2, metavar="X", help="hidden error of the profile (0.2)"
    )
    made.add_argument("--gpus-per-replica", type=int, default=4, metavar="N", help="where the policy says auto (4)")
    made.add_argument("--prefix-cache", action="store_true", help="count repeated blocks as cached (Mooncake)")
    return made


def _trace(options: argparse.Namespace) -> Trace:
    if options.trace.suffix == ".json":
        trace = read_history(options.trace)
    else:
        trace = read_trace(options.trace, has_prefix_cache=options.prefix_cache)
    if not len(trace):
        raise TraceError(f"{options.trace}: no requests")
    match options.shape:
        case "day":
            return spread(trace, seed=0, scale=options.scale, shape=level)
        case "week":
            return spread(trace, seed=0, scale=options.scale, shape=week, duration_s=7 * DAY_S)
        case "flat":
            return spread(trace, seed=0, scale=options.scale, shape=flat)
        case _:
            if options.scale == 1.0:
                return trace
            return spread(trace, seed=0, scale=options.scale, shape=flat, duration_s=trace.duration_s)


def table(found: Comparison) -> list[str]:
    """Return the comparison for reading, a line of text for each line."""
    header = "policy         SLO %  TTFT %  TPOT %    GPU-h  actions reversals  aborted"
    lines = [f"{found.trace}: {found.requests} requests in {found.duration_s / 3_600:.1f} h", header]
    policies = found.document()["policies"]
    assert isinstance(policies, dict)
    for name, means in policies.items():
        shares = " ".join(
            f"{100 * means[key]:>7.2f}" for key in ("slo_attainment", "ttft_attainment", "tpot_attainment")
        )
        counts = f"{means['scale_actions']:>8.0f} {means['reversals']:>9.0f} {means['aborted_requests']:>8.0f}"
        lines.append(f"{name:<12} {shares} {means['gpu_hours']:>8.1f} {counts}")
    return lines


def points(found: Comparison) -> dict[str, list[Point]]:
    """Return each line's runs as points."""
    return {
        name: [
            Point(gpu_hours=each.gpu_hours, attainment=each.slo_attainment, label=f"seed {seed}")
            for seed, each in zip(found.seeds, outcomes, strict=True)
        ]
        for name, outcomes in found.outcomes.items()
    }


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:  # noqa: PLR2004 -- the message says it
        raise argparse.ArgumentTypeError("a number above 0 and below a million")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("a number from 0 to below 1")
    return value


def _seeds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _SEEDS_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_SEEDS_MAX}")
    return value


if __name__ == "__main__":
    sys.exit(main())
