"""How a command fails: lines for stderr and the exit code. The codes are part of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3
EXIT_TIMEOUT: Final = 4
EXIT_CONFLICT: Final = 5
EXIT_INTERRUPTED: Final = 130


class Failure(Exception):  # noqa: N818 -- it is what the program reports, not an error of the program
    """Ends the command. Each of *lines* is printed to stderr after "error: "."""

    def __init__(self, lines: str | Sequence[str], exit_code: int = EXIT_ERROR) -> None:
        self.lines = (lines,) if isinstance(lines, str) else tuple(lines)
        self.exit_code = exit_code
        super().__init__("; ".join(self.lines))


def usage(line: str) -> Failure:
    """Return the failure for words that make no sense."""
    return Failure(line, EXIT_USAGE)
