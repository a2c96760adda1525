"""Work that is done a piece at a time, so that whoever has it done can let others run between two pieces.

Rules: a generator that yields wherever it may rest and returns its result at last. What it reads must not change while
it rests: the caller holds changes back, or drops it and begins anew. Pieces are small by what they do (one copy of a
cluster, one decision, so many units), not by a clock.

Not here: how long a piece may take before others run (the caller's clock knows).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work in pieces with a result."""


def finished(steps: Steps[T]) -> T:
    """Do all of it now and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
