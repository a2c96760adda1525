"""The program grove-autoscaler: `run` scales, `replay` shows what a policy would have done with a trace.

Exit codes: 0 done, 1 it could not start, 2 usage.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from typing import Final

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
_USAGE: Final = "usage: grove-autoscaler run|replay … (--help with either tells more)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("", [])
    match command:
        case "run":
            return _run(rest)
        case "replay":
            # Numbers of numpy that a start of the service need not load.
            from autoscaler.replay.__main__ import main as replay  # noqa: PLC0415 -- see above

            return replay(rest)
        case "--version":
            from grove_server.telemetry.build import version  # noqa: PLC0415 -- only here

            print(f"grove-autoscaler {version()}")
            return EXIT_OK
        case "--help" | "-h":
            print(_USAGE)
            return EXIT_OK
        case _:
            print(_USAGE, file=sys.stderr)
            return EXIT_USAGE


def _run(arguments: Sequence[str]) -> int:
    # What is imported stays; looking through it for garbage, again and again while it grows, is a tenth of a start.
    gc.disable()
    from autoscaler.settings import SettingsError, load, parser  # noqa: PLC0415 -- replay needs none of it

    told = "Scale the roles of sets as their ScalingPolicies say."
    made = argparse.ArgumentParser(
        prog="grove-autoscaler run",
        description=told,
        epilog="Each flag is also a variable (GROVE_SCALER_TICK_S) and a key of the YAML file (tick_s).",
        allow_abbrev=False,
    )
    try:
        settings = load(parser(made).parse_args(arguments))
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"grove-autoscaler: {line}", file=sys.stderr)
        return EXIT_USAGE
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Only now: what is below takes most of the time of a start, and --help should not.
    from autoscaler.app import StartError, serve  # noqa: PLC0415 -- see above

    gc.freeze()
    gc.enable()
    try:
        serve(settings)
    except StartError as error:
        print(f"grove-autoscaler: {error}", file=sys.stderr)
        return EXIT_ERROR
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
