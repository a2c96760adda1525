"""One's own history as a trace: rates that Prometheus kept, made into requests that add up to them.

A history is a JSON object with three answers of `/api/v1/query_range`, each with one series: `requests` (requests/s),
`prompt_tokens` and `output_tokens` (tokens/s). In each step requests arrive at random times at the step's rate, with
lengths around the step's means, log-normal, as spread as public traces are. Bursts shorter than a step are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from autoscaler.replay.traces import REQUESTS_MAX, Trace, TraceError

QUERIES: Final = ("requests", "prompt_tokens", "output_tokens")
# Deviations of the logarithms of lengths: between those of Azure's conversation and code traces.
_PROMPT_SIGMA: Final = 0.9
_OUTPUT_SIGMA: Final = 0.8
_STEP_MAX_S: Final = 900.0

_Series = dict[float, float]
_ANSWERS: Final = TypeAdapter(dict[str, dict[str, object]])
_RESULT: Final = TypeAdapter(list[dict[str, object]])
_VALUES: Final = TypeAdapter(list[tuple[float, str]])


def read_history(path: Path, *, seed: int = 0) -> Trace:
    """Return a trace with the rates of a file. OSError, or TraceError that names the answer that is wrong.

    Steps without a value, or with one that is not finite, have no requests: nothing is known of them.
    """
    try:
        answers = _ANSWERS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise TraceError(f"{path}: no object of query_range answers: {error.error_count()} errors") from None
    requests, prompts, outputs = (_series(path, name, answers) for name in QUERIES)
    times = sorted(requests)
    if len(times) < 2:  # noqa: PLR2004 -- a step is between two
        raise TraceError(f"{path}: requests: fewer than two samples")
    step_s = min(after - before for before, after in pairwise(times))
    if not 0 < step_s <= _STEP_MAX_S:
        raise TraceError(f"{path}: requests: a step of {step_s:g} s; at most {_STEP_MAX_S:g} s")
    rates = np.array([[_known(of.get(at_s, 0.0)) for of in (requests, prompts, outputs)] for at_s in times])
    return _trace(path.stem, np.array(times) - times[0], rates, step_s, seed)


def _trace(
    name: str,
    times_s: np.ndarray[tuple[int], np.dtype[np.float64]],
    rates: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    step_s: float,
    seed: int,
) -> Trace:
    if rates[:, 0].sum() * step_s > REQUESTS_MAX:
        raise TraceError(f"{name}: more than {REQUESTS_MAX} requests")
    chance = np.random.default_rng((seed, len(times_s)))
    counts = chance.poisson(rates[:, 0] * step_s)
    which = np.repeat(np.arange(len(times_s)), counts)
    arrival_s = times_s[which] + chance.uniform(0.0, step_s, len(which))
    order = np.argsort(arrival_s, kind="stable")
    which = which[order]
    means = rates[:, 1:] / np.maximum(rates[:, :1], 1e-9)
    lengths = [
        np.maximum(means[which, column] * chance.lognormal(-sigma * sigma / 2, sigma, len(which)), 1).astype(np.int64)
        for column, sigma in enumerate((_PROMPT_SIGMA, _OUTPUT_SIGMA))
    ]
    return Trace(
        name=name,
        duration_s=float(times_s[-1]) + step_s,
        arrival_s=arrival_s[order],
        prompt_tokens=lengths[0],
        output_tokens=lengths[1],
        cached_tokens=np.zeros(len(which), dtype=np.int64),
    )


def _series(path: Path, name: str, answers: Mapping[str, Mapping[str, object]]) -> _Series:
    """Return the one series of an answer; an answer with several is not added up, because nobody knows what it is."""
    answer = answers.get(name)
    if answer is None:
        raise TraceError(f"{path}: no answer named {name}")
    if answer.get("status") != "success":
        raise TraceError(f"{path}: {name}: {answer.get('error', 'not a success')}")
    data = answer.get("data")
    try:
        found = _RESULT.validate_python(data.get("result") if isinstance(data, dict) else None)
        if len(found) != 1:
            raise TraceError(f"{path}: {name}: {len(found)} series where one is expected; sum() the query")
        values = _VALUES.validate_json(orjson.dumps(found[0].get("values")))
        return {at_s: float(value) for at_s, value in values}
    except (ValidationError, ValueError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path}: {name}: not a matrix of Prometheus") from None


def _known(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else 0.0
