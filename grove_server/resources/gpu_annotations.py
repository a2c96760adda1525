"""What annotations say about GPUs: the share of one GPU that a pod wants, and which GPUs of a node belong together.

Rules: texts are read strictly and bounded; whoever reads one gets a number or an error that says what is wrong.

Not here: who may write them where (admission, the cluster file), what placement does with them.
"""

from __future__ import annotations

import re
from typing import Final

from grove_server.resources.violations import quoted

GPU_MILLI: Final = 1_000
"""Thousandths of one GPU: the unit of shares."""

GPU_ID_MAX: Final = 1_023
"""Largest id of a GPU on a node."""

_TEXT_LENGTH_MAX: Final = 8_192
_FRACTION: Final = re.compile(r"0\.([0-9]{1,3})")
_RANGE: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


class GpuAnnotationError(ValueError):
    """The text of an annotation about GPUs cannot be read."""


def parse_gpu_fraction(text: str) -> int:
    """Return the milli (1 to 999) of one GPU that *text* such as "0.5" stands for; GpuAnnotationError otherwise."""
    match = _FRACTION.fullmatch(text)
    milli = int(match[1].ljust(3, "0")) if match else 0
    if not milli:
        message = "must be more than 0 and less than 1, with at most three decimals, such as 0.5"
        raise GpuAnnotationError(f"{message}; got {quoted(text)}")
    return milli


def parse_gpu_islands(text: str) -> tuple[tuple[int, ...], ...]:
    """Return the islands that *text* lists, each with its GPU ids, ascending; GpuAnnotationError if it is malformed.

    Islands are set apart by commas; an island is one id, a range, or several of these joined by plus signs: "0-3,4-7"
    are two islands of four, "0+2,1+3" two of two. An id belongs to one island at most.
    """
    if len(text) > _TEXT_LENGTH_MAX:
        raise GpuAnnotationError(f"must have at most {_TEXT_LENGTH_MAX} characters, has {len(text)}")
    islands = []
    seen: set[int] = set()
    for part in text.split(","):
        ids = [gpu_id for piece in part.split("+") for gpu_id in _ids(piece.strip())]
        twice = sorted({gpu_id for gpu_id in ids if gpu_id in seen or ids.count(gpu_id) > 1})
        if twice:
            raise GpuAnnotationError(f"must name each GPU once, names {twice[0]} twice")
        seen.update(ids)
        islands.append(tuple(sorted(ids)))
    return tuple(islands)


def _ids(piece: str) -> range:
    match = _RANGE.fullmatch(piece)
    if match is None:
        raise GpuAnnotationError(f"must list islands of GPU ids such as 0-3,4-7; got {quoted(piece)}")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not first <= last <= GPU_ID_MAX:
        raise GpuAnnotationError(f"must have ascending ids up to {GPU_ID_MAX}, got {quoted(piece)}")
    return range(first, last + 1)
