"""Prometheus's API, when it says what it should and when it lies."""

import json
from collections.abc import AsyncIterator

import pytest

from autoscaler.signals.failures import Failure, SourceError
from autoscaler.signals.prometheus import Prometheus, PrometheusLimits, RetryPolicy
from autoscaler.signals.transport import Transport
from tests.scripted_peer import ScriptedPeer, answer

AT = 1_700_000_000.0
QUICK = RetryPolicy(attempts=3, first_wait_s=0.001, wait_max_s=0.001)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A client."""
    made = Transport()
    yield made
    await made.close()


def prometheus(peer: ScriptedPeer, transport: Transport, **limits: int) -> Prometheus:
    """Return a client of a peer that asks again at once."""
    return Prometheus(peer.url + "/", transport, chance=lambda: 1.0, retry=QUICK, limits=PrometheusLimits(**limits))


def vector(*values: str, at: float = AT, **more: object) -> bytes:
    """Return the answer of a good Prometheus with one series per value."""
    result = [{"metric": {"pod": f"p{i}"}, "value": [at, value]} for i, value in enumerate(values)]
    return answer(
        json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more}).encode()
    )


async def test_values_come_with_labels_and_what_is_no_number_is_left_out(transport: Transport) -> None:
    """NaN and infinity are dropped and counted, never made zero; warnings are kept."""
    async with ScriptedPeer(vector("1.5", "NaN", "+Inf", "0", warnings=["partial response"])) as peer:
        found = await prometheus(peer, transport).instant("up", at=AT, timeout_s=5)
        assert [(labels["pod"], value) for labels, value in found.series] == [("p0", 1.5), ("p3", 0.0)]
        assert (found.not_finite, found.warnings) == (2, ("partial response",))
        assert peer.requests[0].startswith(b"POST /api/v1/query HTTP/1.1\r\n")
        assert b"query=up&time=1700000000.000&timeout=5000ms" in peer.requests[0]


@pytest.mark.parametrize(
    ("said", "failure", "asked"),
    [
        pytest.param(
            answer(b'{"status":"error","errorType":"bad_data","error":"parse"}', status="400 Bad"),
            Failure.QUERY,
            1,
            id="bad-query",
        ),
        pytest.param(
            answer(b'{"status":"error","errorType":"execution","error":"too many samples"}', status="422 No"),
            Failure.QUERY,
            1,
            id="too-many-samples",
        ),
        pytest.param(
            answer(b'{"status":"error","errorType":"internal","error":"x"}'),
            Failure.UNAVAILABLE,
            3,
            id="200-with-an-error-body",
        ),
        pytest.param(answer(b"<html>login</html>", kind="text/html"), Failure.MALFORMED, 1, id="200-with-a-login-page"),
        pytest.param(answer(b'{"status":"success"}'), Failure.MALFORMED, 1, id="no-data"),
        pytest.param(
            answer(b'{"status":"success","data":{"resultType":"matrix","result":[]}}'),
            Failure.MALFORMED,
            1,
            id="matrix",
        ),
        pytest.param(
            answer(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}'),
            Failure.MALFORMED,
            1,
            id="no-value",
        ),
        pytest.param(
            answer(
                b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000,"x"]}]}}'
            ),
            Failure.MALFORMED,
            1,
            id="no-number",
        ),
        pytest.param(vector("1", at=AT - 60), Failure.WRONG_TIME, 1, id="answer-of-a-cache"),
        pytest.param(answer(b"no", status="401 Unauthorized"), Failure.UNAUTHORIZED, 1, id="no-token"),
        pytest.param(answer(b"Service Unavailable", status="503 Busy"), Failure.UNAVAILABLE, 3, id="restarting"),
        pytest.param(answer(b"gone", status="404 Not Found"), Failure.REFUSED, 1, id="wrong-address"),
        pytest.param(answer(b"", status="302 Found"), Failure.REFUSED, 1, id="redirect"),
        pytest.param(vector(*["1"] * 11), Failure.TOO_LARGE, 1, id="series-over-bound"),
    ],
)
@pytest.mark.parametrize("method", ["instant", "instant_texts"])
async def test_what_is_no_vector_fails(
    said: bytes, failure: Failure, asked: int, method: str, transport: Transport
) -> None:
    """Each lie and refusal has its reason; only what may pass is asked again."""
    async with ScriptedPeer(said) as peer:
        with pytest.raises(SourceError) as caught:
            await getattr(prometheus(peer, transport, series_max=10), method)("up", at=AT, timeout_s=5)
        assert caught.value.failure is failure
        assert len(peer.requests) == asked


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("warnings", [[], ["partial response"]])
async def test_both_ways_of_reading_a_vector_agree(
    separators: tuple[str, str], warnings: list[str], transport: Transport
) -> None:
    """However an answer is written, cutting series out of it finds what reading it as JSON finds."""
    names = ["plain", 'a "quote"', "a {brace}", '"},"value":[1,"2"]}', "back\\slash", '"metric":{', "\u00fc"]
    values = ["1", "NaN", "2.5", "+Inf", "-3e5", "0", "7"]
    result = [
        {"metric": {"le": "0.5", "pod": name}, "value": [AT, value]} for name, value in zip(names, values, strict=True)
    ]
    for some in (result, result[:1], result[1:2], []):
        body = {"status": "success", "data": {"resultType": "vector", "result": some}}
        if warnings:
            body["warnings"] = warnings
        said = answer(json.dumps(body, separators=separators, ensure_ascii=False).encode())
        async with ScriptedPeer(said) as peer:
            client = prometheus(peer, transport)
            whole = await client.instant("up", at=AT, timeout_s=5)
            texts = await client.instant_texts("up", at=AT, timeout_s=5)
        assert [(json.loads(labels), value) for labels, value in zip(texts.labels, texts.values, strict=True)] == [
            *whole.series
        ]


async def test_a_scalar_is_a_vector_of_one(transport: Transport) -> None:
    """A query like ``scalar(x)`` answers one series without labels."""
    body = b'{"status":"success","data":{"resultType":"scalar","result":[1700000000,"7"]}}'
    async with ScriptedPeer(answer(body)) as peer:
        found = await prometheus(peer, transport).instant("scalar(x)", at=AT, timeout_s=5)
        assert [*found.series] == [({}, 7.0)]


def test_waits_grow_to_their_bound() -> None:
    """The wait before asking again is a random part of a bound that doubles."""
    policy = RetryPolicy(first_wait_s=0.1, wait_max_s=0.3)
    assert [policy.wait_s(attempt, 1.0) for attempt in (1, 2, 3, 9)] == [0.1, 0.2, 0.3, 0.3]
    assert policy.wait_s(9, 0.0) == 0.0
