"""The program grove-server: settings in, running server out. What it does stands in `app`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Final

from grove_server.api.addresses import ListenError, check_listening
from grove_server.settings import SettingsError, load
from grove_server.telemetry.logs import set_up_logs

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until it is told to stop; return the exit code."""
    try:
        settings = load(sys.argv[1:] if arguments is None else arguments)
        check_listening(settings)
    except (SettingsError, ListenError) as error:
        for line in str(error).splitlines():
            print(f"grove-server: {line}", file=sys.stderr)
        return EXIT_USAGE
    set_up_logs(log_format=settings.log_format, level=settings.log_level)
    # The transport's own log goes to stderr in a form of its own; who wants it sets the variable, before the import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Only now: everything below costs half a second to import, and --help should not. What imports make stays for good:
    # the collector need not look at it while it grows, nor ever after.
    gc.disable()
    try:
        from grove_server.app import StartError, serve  # noqa: PLC0415 -- see above
    finally:
        gc.freeze()
        gc.enable()

    try:
        serve(settings)
    except StartError as error:
        print(f"grove-server: {error}", file=sys.stderr)
        return EXIT_ERROR
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
