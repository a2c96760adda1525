"""Prometheus's HTTP API, as far as we ask it: instant queries at a given time, ranges, names of metrics.

What comes back is not believed: an error body with status 200, an answer for another time (a cache in between), series
without end and values that are no numbers are all told apart. NaN and infinity are dropped and counted: they mean that
nothing is known, never zero. Questions that failed in passing are asked again, a few times, within the caller's time.

Not here: which questions (``queries``), and what the answers mean (``readings``).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from autoscaler.signals.failures import Failure, SourceError
from autoscaler.signals.transport import Answer, Transport

MESSAGE_LENGTH_MAX: Final = 300
# An answer this far from the time asked for is one to another question.
TIME_TOLERANCE_S: Final = 1.0
_STATUS_OK: Final = 200

_SUCCESS: Final = b'{"status":"success","data":'
_VECTOR: Final = b'{"status":"success","data":{"resultType":"vector","result":['
# Labels, time and value of a series. A quote within a text is written \\", so none of these marks can stand in one.
_ENTRY: Final = re.compile(rb'\{"metric":(\{[^{}]*\}),"value":\[([0-9.]+),"([^"]*)"\]\}')

# Labels and value of one series.
Series = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how far apart, a question is asked again.

    Waits are full jitter: a random part of a bound that doubles. Nothing is asked again whose deadline would pass.
    """

    attempts: int = 3
    first_wait_s: float = 0.1
    wait_max_s: float = 1.0

    def wait_s(self, attempt: int, chance: float) -> float:
        """Return how long to wait after the *attempt*-th failure (from 1); *chance* is from 0 to 1."""
        return float(min(self.first_wait_s * 2 ** (attempt - 1), self.wait_max_s)) * chance


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusLimits:
    """Bounds of one question. A vector of more series than that is refused, not cut: a part would look like less."""

    series_max: int = 200_000
    attempt_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """The answer to an instant query: series with finite values, and how many had none; what the server warned of."""

    series: Sequence[Series]
    not_finite: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVector:
    """The same with each series' labels as the JSON object they came as, for readers who know most of them already."""

    labels: Sequence[bytes]
    values: Sequence[float]


class Prometheus:
    """One Prometheus, or what speaks like it (Thanos, Mimir, VictoriaMetrics)."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        chance: Callable[[], float],
        retry: RetryPolicy | None = None,
        limits: PrometheusLimits | None = None,
    ) -> None:
        """*url* is the root, without /api/v1; *chance* returns a random number from 0 to 1 for waits."""
        self._root = url.rstrip("/")
        self._transport = transport
        self._chance = chance
        self._retry = retry or RetryPolicy()
        self._limits = limits or PrometheusLimits()

    async def instant(self, query: str, *, at: float, timeout_s: float) -> Vector:
        """Return the vector that *query* has at *at* (epoch seconds), within *timeout_s*. Raises SourceError."""
        return self._vector(await self._ask("/api/v1/query", self._instant_form(query, at, timeout_s), timeout_s), at)

    async def instant_texts(self, query: str, *, at: float, timeout_s: float) -> TextVector:
        """Return the same as `instant`, several times cheaper for large vectors. Raises SourceError.

        Prometheus writes its answers without a space, so that the series can be cut out by a pattern; an answer that
        is written otherwise is read as any other JSON. Values that are no finite numbers are left out here too.
        """
        form = self._instant_form(query, at, timeout_s)
        answer = await self._ask_raw("/api/v1/query", form, timeout_s)
        found = _cut(answer.body, at, self._limits.series_max) if answer.status == _STATUS_OK else None
        if found is None:
            vector = self._vector(_unwrap(answer), at)
            labels = [orjson.dumps(labels) for labels, _ in vector.series]
            found = TextVector(labels=labels, values=[value for _, value in vector.series])
        return found

    async def names(self, matches: Sequence[str], *, start: float, end: float, timeout_s: float) -> frozenset[str]:
        """Return the names of the metrics that match any of the selectors, between two times. Raises SourceError."""
        pairs = [*(("match[]", match) for match in matches), ("start", f"{start:.3f}"), ("end", f"{end:.3f}")]
        data = await self._ask("/api/v1/label/__name__/values", pairs, timeout_s, method="GET")
        values = data.value
        if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
            raise SourceError(Failure.MALFORMED, "the names of metrics are no list of texts")
        return frozenset(values)

    async def matrix(
        self, query: str, *, start: float, end: float, step_s: float, timeout_s: float
    ) -> Sequence[tuple[Mapping[str, str], Sequence[tuple[float, float]]]]:
        """Return each series of a range query with its finite samples (time, value). Raises SourceError."""
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        data = await self._ask("/api/v1/query_range", form, timeout_s)
        try:
            if data.value["resultType"] != "matrix" or len(data.value["result"]) > self._limits.series_max:
                raise SourceError(Failure.TOO_LARGE, "the answer is no matrix, or has too many series")
            return [
                (
                    entry["metric"],
                    [(float(when), value) for when, text in entry["values"] if math.isfinite(value := float(text))],
                )
                for entry in data.value["result"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(Failure.MALFORMED, f"the matrix cannot be read: {type(error).__name__}") from error

    def _instant_form(self, query: str, at: float, timeout_s: float) -> Mapping[str, str]:
        # The server gives up when we do, so that it does not work for nobody.
        server_s = min(timeout_s, self._limits.attempt_timeout_s)
        return {"query": query, "time": f"{at:.3f}", "timeout": f"{max(1, math.ceil(server_s * 1000))}ms"}

    async def _ask(
        self, path: str, form: Mapping[str, str] | Sequence[tuple[str, str]], timeout_s: float, *, method: str = "POST"
    ) -> _Data:
        return _unwrap(await self._ask_raw(path, form, timeout_s, method=method))

    async def _ask_raw(
        self, path: str, form: Mapping[str, str] | Sequence[tuple[str, str]], timeout_s: float, *, method: str = "POST"
    ) -> Answer:
        """Return an answer that is no passing failure; ask again, within the time, while it is one."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + timeout_s
        body = urlencode(form)
        attempt = 1
        while True:
            try:
                left_s = min(give_up_at - clock(), self._limits.attempt_timeout_s)
                if method == "GET":
                    answer = await self._transport.get(f"{self._root}{path}?{body}", timeout_s=left_s)
                else:
                    answer = await self._transport.post(f"{self._root}{path}", body.encode("ascii"), timeout_s=left_s)
                if answer.status != _STATUS_OK or not answer.body.startswith(_SUCCESS):
                    # Raises, unless it is a success in other words.
                    _unwrap(answer)
                return answer
            except SourceError as error:
                wait_s = self._retry.wait_s(attempt, self._chance())
                if not error.is_passing or attempt >= self._retry.attempts or clock() + wait_s >= give_up_at:
                    raise
                await asyncio.sleep(wait_s)
                attempt += 1

    def _vector(self, data: _Data, at: float) -> Vector:
        try:
            kind, result = data.value["resultType"], data.value["result"]
            if kind == "scalar":
                result = [{"metric": {}, "value": result}]
            elif kind != "vector":
                raise SourceError(Failure.MALFORMED, f"the query answers a {str(kind)[:20]}, not a vector")
            if len(result) > self._limits.series_max:
                raise SourceError(
                    Failure.TOO_LARGE, f"the query answers {len(result)} series, more than {self._limits.series_max}"
                )
            if result and abs(float(result[0]["value"][0]) - at) > TIME_TOLERANCE_S:
                raise SourceError(Failure.WRONG_TIME, "the answer is for another time than asked; is there a cache?")
            isfinite = math.isfinite
            series = [(entry["metric"], value) for entry in result if isfinite(value := float(entry["value"][1]))]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SourceError(Failure.MALFORMED, f"the vector cannot be read: {type(error).__name__}") from error
        return Vector(series=series, not_finite=len(result) - len(series), warnings=data.warnings)


@dataclass(frozen=True, slots=True)
class _Data:
    value: Any  # JSON, checked where it is read
    warnings: tuple[str, ...] = ()


def _cut(body: bytes, at: float, series_max: int) -> TextVector | None:
    """Return the vector that an answer holds, None if it is not written as Prometheus writes it. Raises SourceError."""
    if not body.startswith(_VECTOR):
        return None
    entries = _ENTRY.findall(body)
    if len(entries) != body.count(b'"metric":{') or len(entries) > series_max or b'"warnings":' in body[-4096:]:
        return None
    if entries and abs(float(entries[0][1]) - at) > TIME_TOLERANCE_S:
        raise SourceError(Failure.WRONG_TIME, "the answer is for another time than asked; is there a cache?")
    try:
        values = [float(entry[2]) for entry in entries]
    except ValueError:
        return None
    labels = [entry[0] for entry in entries]
    if not all(map(math.isfinite, values)):
        kept = [place for place, value in enumerate(values) if math.isfinite(value)]
        labels, values = [labels[place] for place in kept], [values[place] for place in kept]
    return TextVector(labels=labels, values=values)


def _unwrap(answer: Answer) -> _Data:
    """Return what a good answer holds; raise SourceError for every other."""
    try:
        envelope = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        envelope = None
    if not isinstance(envelope, dict):
        raise _refusal(answer.status, "")
    message = str(envelope.get("error", ""))[:MESSAGE_LENGTH_MAX]
    if answer.status != _STATUS_OK or envelope.get("status") != "success" or "data" not in envelope:
        raise _refusal(answer.status, message, str(envelope.get("errorType", "")))
    warnings = envelope.get("warnings") or []
    if not isinstance(warnings, list):
        raise SourceError(Failure.MALFORMED, "the warnings are no list")
    return _Data(envelope["data"], tuple(str(warning)[:MESSAGE_LENGTH_MAX] for warning in warnings[:8]))


def _refusal(status: int, message: str, kind: str = "") -> SourceError:
    said = f": {message}" if message else ""
    match status, kind:
        case ((401 | 403), _):
            return SourceError(Failure.UNAUTHORIZED, f"answered {status}{said}")
        case _, "timeout" | "canceled":
            return SourceError(Failure.TIMEOUT, f"gave up on the query{said}")
        case _, "bad_data" | "execution":
            return SourceError(Failure.QUERY, f"cannot run the query{said}")
        case ((429 | 500 | 502 | 503 | 504), _):
            return SourceError(Failure.UNAVAILABLE, f"answered {status}{said}")
        case 200, "":
            return SourceError(Failure.MALFORMED, f"the answer is not Prometheus's{said}")
        case 200, _:
            return SourceError(Failure.UNAVAILABLE, f"answered 200 with an error ({kind[:30]}){said}")
        case _:
            return SourceError(Failure.REFUSED, f"answered {status}{said}")
