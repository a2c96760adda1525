"""Traces: when requests came, how long their prompts and answers were; read from public formats.

Formats: Azure LLM inference 2023 and 2024 (CSV: TIMESTAMP, ContextTokens, GeneratedTokens) and Mooncake, FAST 2025
(JSONL: timestamp in ms, input_length, output_length, hash_ids of 512-token blocks). Days and weeks are made from
them in `patterns`. Arrivals are open-loop: nobody sends less because answers are late.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK_TOKENS: Final = 512
TOKENS_MAX: Final = 2_000_000
REQUESTS_MAX: Final = 50_000_000


class TraceError(ValueError):
    """A trace cannot be read; the message names file and line."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in order of arrival; all arrays have one entry a request.

    `arrival_s` counts from the trace's start and ascends; `cached_tokens` of `prompt_tokens` need no prefill.
    """

    name: str
    duration_s: float
    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def uncached_tokens(self) -> Ints:
        """Return what prefill has to compute; at least one token, from which the answer starts."""
        uncached: Ints = np.maximum(self.prompt_tokens - self.cached_tokens, 1)
        return uncached

    def taken(self, chosen: Ints | npt.NDArray[np.bool_]) -> Trace:
        """Return the trace with some of its requests."""
        return Trace(
            name=self.name,
            duration_s=self.duration_s,
            arrival_s=self.arrival_s[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            cached_tokens=self.cached_tokens[chosen],
        )

    def between(self, start_s: float, end_s: float) -> Trace:
        """Return the part from `start_s` to before `end_s`, counted from its own start."""
        first, last = np.searchsorted(self.arrival_s, (start_s, end_s))
        part = self.taken(np.arange(first, last))
        return Trace(
            name=self.name,
            duration_s=min(end_s, self.duration_s) - start_s,
            arrival_s=part.arrival_s - start_s,
            prompt_tokens=part.prompt_tokens,
            output_tokens=part.output_tokens,
            cached_tokens=part.cached_tokens,
        )


def trace_of(
    name: str,
    duration_s: float | None,
    rows: Iterable[tuple[float, int, int]],
    cached_tokens: Sequence[int] | None = None,
) -> Trace:
    """Return a trace of rows (arrival in s, prompt tokens, output tokens), sorted by arrival.

    `duration_s` None ends it with its last arrival. Prompts and answers have one token at least. TraceError when a
    number is not finite, negative or absurd, or when there are too many rows.
    """
    table = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(-1, 3)
    if len(table) > REQUESTS_MAX:
        raise TraceError(f"{name}: {len(table)} requests; at most {REQUESTS_MAX}")
    if not np.isfinite(table).all() or (table < 0).any() or (table[:, 1:] > TOKENS_MAX).any():
        raise TraceError(f"{name}: a time or a length is negative, not finite, or above {TOKENS_MAX} tokens")
    cached = np.zeros(len(table), dtype=np.int64) if cached_tokens is None else np.array(cached_tokens, dtype=np.int64)
    order = np.argsort(table[:, 0], kind="stable")
    table, cached = table[order], cached[order]
    prompt_tokens = np.maximum(table[:, 1].astype(np.int64), 1)
    return Trace(
        name=name,
        duration_s=duration_s if duration_s is not None else float(table[-1, 0]) + 1e-3 if len(table) else 0.0,
        arrival_s=table[:, 0].copy(),
        prompt_tokens=prompt_tokens,
        output_tokens=np.maximum(table[:, 2].astype(np.int64), 1),
        cached_tokens=np.minimum(cached, prompt_tokens),
    )


def read_trace(path: Path, *, has_prefix_cache: bool = False) -> Trace:
    """Return the trace of a file: `.csv` is Azure's format, `.jsonl` Mooncake's.

    `has_prefix_cache` counts as cached what a cache without limits would have had: leading blocks seen before. Only
    Mooncake's format can say that. OSError when the file cannot be read, TraceError when its content is wrong.
    """
    if path.suffix == ".jsonl":
        return _mooncake(path, has_prefix_cache=has_prefix_cache)
    if path.suffix == ".csv":
        return _azure(path)
    raise TraceError(f"{path}: neither .csv (Azure) nor .jsonl (Mooncake)")


def _azure(path: Path) -> Trace:
    rows: list[tuple[float, int, int]] = []
    start: datetime | None = None
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            try:
                # The file has seven digits of a second, or more; Python reads six.
                at = datetime.fromisoformat(_six_digits(row["TIMESTAMP"]))
                start = start or at
                rows.append(((at - start).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"])))
            except (KeyError, TypeError, ValueError) as error:
                raise TraceError(f"{path}:{number}: {error!r}") from error
    earliest_s = min((row[0] for row in rows), default=0.0)
    return trace_of(path.stem, None, [(at_s - earliest_s, prompt, output) for at_s, prompt, output in rows])


def _six_digits(stamp: str) -> str:
    whole, dot, rest = stamp.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{whole}{dot}{rest[: min(digits, 6)]:0<6}{rest[digits:]}" if dot else whole


def _mooncake(path: Path, *, has_prefix_cache: bool) -> Trace:
    rows: list[tuple[float, int, int]] = []
    cached: list[int] = []
    seen: set[object] = set()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row: Mapping[str, object] = orjson.loads(line)
                at_ms, prompt, output = (_number(row, key) for key in ("timestamp", "input_length", "output_length"))
                blocks = _blocks(row)
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise TraceError(f"{path}:{number}: {error!r}") from error
            rows.append((at_ms / 1e3, int(prompt), int(output)))
            known = next((i for i, block in enumerate(blocks) if block not in seen), len(blocks))
            cached.append(known * BLOCK_TOKENS if has_prefix_cache else 0)
            seen.update(blocks)
    return trace_of(path.stem, None, rows, cached)


def _blocks(row: Mapping[str, object]) -> list[object]:
    blocks = row.get("hash_ids", [])
    if not isinstance(blocks, list):
        raise TypeError("hash_ids is no list")
    return blocks


def _number(row: Mapping[str, object], key: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} is no number")
    return float(value)
