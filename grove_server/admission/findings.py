"""Where the rules put what they find, and the two ways it leaves: an error, or what is to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from grove_server.resources.meta import Kind
from grove_server.resources.violations import VIOLATIONS_SHOWN_MAX, Reason, Violation, bounded, quoted

WARNINGS_MAX: Final = 20

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted(Generic[R]):
    """What is to be stored; ``changed`` is False where that is what is stored already."""

    resource: R
    warnings: tuple[str, ...] = ()
    changed: bool


class InvalidResourceError(ValueError):
    """A resource breaks rules; ``violations`` holds all of them, at most as many as one answer can carry."""

    def __init__(self, kind: Kind, name: str, violations: Sequence[Violation], count: int | None = None) -> None:
        """Say of which resource, and what; *count* is how many violations there are where not all are given."""
        self.kind = kind
        self.name = name
        self.count = len(violations) if count is None else count
        self.violations = bounded(violations, count=count)
        super().__init__(f"{kind} {quoted(name)}: " + "; ".join(str(violation) for violation in self.violations))


@dataclass(slots=True)
class Findings:
    """Violations and warnings, collected while the rules run.

    The first of each are kept and the rest counted, since one answer could not carry them.
    """

    violations: list[Violation] = field(default_factory=list)
    count: int = 0
    kept_max: int = VIOLATIONS_SHOWN_MAX
    _warnings: list[str] = field(default_factory=list)
    _warning_count: int = 0

    def add(self, path: str, reason: Reason, message: str) -> None:
        """Note that the field at *path* is wrong."""
        self.count += 1
        if len(self.violations) < self.kept_max:
            self.violations.append(Violation(path, reason, message))

    def required(self, path: str, message: str = "is required") -> None:
        """Note that the field at *path* is missing."""
        self.add(path, Reason.REQUIRED, message)

    def invalid(self, path: str, message: str) -> None:
        """Note that the value at *path* breaks a rule."""
        self.add(path, Reason.INVALID, message)

    def duplicate(self, path: str, value: object) -> None:
        """Note that the value at *path* was given before."""
        self.add(path, Reason.DUPLICATE, f"{quoted(value)} is listed more than once")

    def forbidden(self, path: str, message: str) -> None:
        """Note that the field at *path* may not be set."""
        self.add(path, Reason.FORBIDDEN, message)

    def not_found(self, path: str, message: str) -> None:
        """Note that what *path* refers to does not exist."""
        self.add(path, Reason.NOT_FOUND, message)

    def not_supported(self, path: str, value: object, allowed: tuple[str, ...]) -> None:
        """Note that the value at *path* is none of those allowed."""
        message = f"must be one of {', '.join(allowed)}, got {quoted(value)}"
        self.add(path, Reason.NOT_SUPPORTED, message)

    def immutable(self, path: str, message: str = "cannot be changed after creation") -> None:
        """Note that the field at *path* differs from the stored one."""
        self.add(path, Reason.IMMUTABLE, message)

    def too_many(self, path: str, count: int, count_max: int, what: str = "entries") -> None:
        """Note that *path* holds more than is allowed."""
        self.add(path, Reason.TOO_MANY, f"must have at most {count_max} {what}, has {count}")

    def wrong_type(self, path: str, expected: str, value: object) -> None:
        """Note that the value at *path* has another type than *expected*."""
        self.add(path, Reason.TYPE_INVALID, f"must be {expected}, got {quoted(value)}")

    def unknown(self, path: str) -> None:
        """Note that there is no such field."""
        self.add(path, Reason.FIELD_UNKNOWN, "is not a known field")

    def warn(self, message: str) -> None:
        """Note something that is allowed but probably not meant."""
        self._warning_count += 1
        if len(self._warnings) < WARNINGS_MAX:
            self._warnings.append(message)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings; the last says how many more there are."""
        more = self._warning_count - len(self._warnings)
        return (*self._warnings, f"and {more} more warnings") if more else tuple(self._warnings)

    def raise_if_any(self, kind: Kind, name: str) -> None:
        """Raise InvalidResourceError if there are violations."""
        if self.violations:
            raise InvalidResourceError(kind, name, self.violations, self.count)
