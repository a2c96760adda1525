"""What runs: the version of the distribution, and the commit where the server runs from a checkout."""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path
from typing import Final

UNKNOWN_VERSION: Final = "0.0.0"
_HASH_LENGTH: Final = 40


@functools.cache
def version() -> str:
    """Return the installed version of the server."""
    try:
        return importlib.metadata.version("grove-server")
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN_VERSION


@functools.cache
def commit() -> str:
    """Return the checked-out commit, or "" when this is no checkout (an installed wheel, a container)."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if head.startswith("ref: "):
            head = (git / head.removeprefix("ref: ")).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return head if len(head) == _HASH_LENGTH else ""
