"""What is wrong with a document: a path, a reason, a sentence; any number of them at once.

Paths are Kubernetes' (``spec.template.cliques[0].spec.podSpec``, map keys as ``labels[x]``), reasons are stable tokens
that programs may rely on, messages are for people and complete the sentence that the path begins.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# What one answer can carry (the wire's limit for error details).
VIOLATIONS_SHOWN_MAX: Final = 20
_VALUE_LENGTH_MAX: Final = 64
_PATH_LENGTH_MAX: Final = 512


class Reason(enum.StrEnum):
    """Why a field was refused."""

    REQUIRED = "Required"
    INVALID = "Invalid"
    NOT_SUPPORTED = "NotSupported"
    NOT_FOUND = "NotFound"
    DUPLICATE = "Duplicate"
    FORBIDDEN = "Forbidden"
    IMMUTABLE = "Immutable"
    TOO_LONG = "TooLong"
    TOO_MANY = "TooMany"
    TYPE_INVALID = "TypeInvalid"
    FIELD_UNKNOWN = "FieldUnknown"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong; an empty path means the document as a whole."""

    path: str
    reason: Reason
    message: str

    def __str__(self) -> str:
        """Return ``path: message``."""
        return f"{self.path}: {self.message}" if self.path else self.message


def bounded(
    violations: Sequence[Violation], count_max: int = VIOLATIONS_SHOWN_MAX, count: int | None = None
) -> tuple[Violation, ...]:
    """Return at most *count_max* violations, long paths cut; the last then says how many more there are.

    *count* is how many there are in all, where *violations* are only the first of them.
    """
    total = len(violations) if count is None else count
    if total <= count_max:
        return tuple(_cut(violation) for violation in violations)
    kept = tuple(_cut(violation) for violation in violations[: count_max - 1])
    rest = Violation("", Reason.TOO_MANY, f"and {total - len(kept)} more violations")
    return (*kept, rest)


def _cut(violation: Violation) -> Violation:
    if len(violation.path) <= _PATH_LENGTH_MAX:
        return violation
    return Violation(f"{violation.path[: _PATH_LENGTH_MAX - 1]}…", violation.reason, violation.message)


def quoted(value: object) -> str:
    """Return *value* as JSON for a message, cut to a length a line can hold."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > _VALUE_LENGTH_MAX:
        text = text[: _VALUE_LENGTH_MAX - 1] + ('…"' if text.startswith('"') else "…")
    return text
