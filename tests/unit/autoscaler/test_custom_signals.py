"""Signals that a policy words itself: what is understood is read, what is ambiguous is not."""

import asyncio
import json
from urllib.parse import parse_qs

import pytest

from autoscaler.observation import Fault, Reading
from autoscaler.signals.census import Census
from autoscaler.signals.collector import Collector
from autoscaler.signals.custom import age_query, read_signal
from autoscaler.signals.failures import Failure
from autoscaler.signals.prometheus import Prometheus, Series, Vector
from autoscaler.signals.scrape_source import ScrapeSource
from autoscaler.signals.transport import Transport
from grove_server.resources.scaling_policy import SignalSpec
from tests.scripted_peer import ScriptedPeer, answer
from tests.signal_cases import scope


def ask(spec: SignalSpec, *series: Series, role: str = "decode", copies: int = 1, not_finite: int = 0) -> Reading:
    """Return the reading of a role ("" for the scope) that some series make."""
    seen = scope("prefill-0", "decode-0", "decode-1", "decode-2!")
    return read_signal(spec, seen, copies, Vector(series=series, not_finite=not_finite), None, 1000.0)[role]


def pod(name: str, value: float, **labels: str) -> Series:
    """Return a series of a pod."""
    return {"namespace": "ns", "pod": name, **labels}, value


PER_POD = SignalSpec(query="q", unit="requests", per="pod")
PER_SET = SignalSpec(query="q", unit="requests", per="set")
PER_CLIQUE = SignalSpec(query="q", unit="requests", per="clique")


def test_series_of_pods_are_joined_and_strangers_fall_away() -> None:
    """Other namespaces' pods of the same name and pods that do not count are not added up."""
    reading = ask(PER_POD, pod("decode-0", 3), pod("decode-0", 90, namespace="other"), pod("decode-2", 50))
    assert (reading.value, reading.reporting, reading.expected, reading.missing) == (3, 1, 2, ("decode-1",))


@pytest.mark.parametrize(
    ("spec", "series", "fault"),
    [
        pytest.param(PER_SET, [pod("a", 1), pod("b", 2)], Fault.AMBIGUOUS, id="one-series-per-pod-for-the-set"),
        pytest.param(
            PER_POD, [pod("decode-0", 1, e="0"), pod("decode-0", 2, e="1")], Fault.AMBIGUOUS, id="two-per-pod"
        ),
        pytest.param(
            PER_CLIQUE,
            [({"role": "decode", "e": "0"}, 1.0), ({"role": "decode", "e": "1"}, 1.0)],
            Fault.AMBIGUOUS,
            id="two-per-role",
        ),
        pytest.param(
            SignalSpec(query="q", unit="ratio", per="set"), [({}, 50.0)], Fault.OUT_OF_RANGE, id="percent-as-ratio"
        ),
        pytest.param(
            SignalSpec(query="q", unit="percent"), [pod("decode-0", 101)], Fault.OUT_OF_RANGE, id="over-a-hundred"
        ),
        pytest.param(PER_SET, [({}, -1.0)], Fault.OUT_OF_RANGE, id="negative"),
    ],
)
def test_what_is_not_understood_gives_no_value(spec: SignalSpec, series: list[Series], fault: Fault) -> None:
    """Ambiguous answers and numbers that the unit cannot have are faults."""
    reading = ask(spec, *series, role="" if spec.per == "set" else "decode")
    assert (reading.value, reading.fault) == (None, fault)


def test_one_series_does_not_speak_for_two_copies() -> None:
    """With two copies a series must name its copy."""
    assert ask(PER_SET, ({}, 4.0), role="", copies=2).fault is Fault.AMBIGUOUS
    assert ask(PER_SET, ({"copy": "0"}, 4.0), ({"copy": "1"}, 9.0), role="", copies=2).value == 4


def test_empty_is_unknown_unless_the_policy_says_zero() -> None:
    """No series and NaN are unknown; only an empty answer can be declared to be zero."""
    zero = SignalSpec(query="q", unit="requests", per="set", empty="zero")
    assert ask(PER_SET, role="").value is None
    assert ask(zero, role="").value == 0
    assert ask(zero, role="", not_finite=1).fault is Fault.NOT_FINITE


def test_the_age_of_a_plain_selector_can_be_asked() -> None:
    """Expressions are computed anew and have no age; selectors have one."""
    assert age_query(SignalSpec(query='x{namespace="ns"}', unit="count")) == 'timestamp(x{namespace="ns"})'
    assert age_query(SignalSpec(query="sum(x)", unit="count")) == ""


async def test_a_signal_of_many_scopes_is_asked_once_and_its_failure_is_no_zero() -> None:
    """Scopes that share a query share its answer; a failed query leaves a fault, and the tick goes on."""

    async def talk(request: bytes, writer: asyncio.StreamWriter) -> None:
        form = parse_qs(request.partition(b"\r\n\r\n")[2].decode())
        if form["query"] == ["sum(broken)"]:
            writer.write(answer(b'{"status":"error","errorType":"bad_data","error":"no"}', status="400 Bad"))
        else:
            result = [{"metric": {"namespace": "ns", "pod": "decode-0"}, "value": [float(form["time"][0]), "8"]}]
            body = {"status": "success", "data": {"resultType": "vector", "result": result}}
            writer.write(answer(json.dumps(body).encode()))
        await writer.drain()

    signals = {
        "mine": SignalSpec(query="sum by (namespace,pod) (x)", unit="requests"),
        "bad": SignalSpec(query="sum(broken)", unit="count", per="set"),
    }
    census = Census([scope("decode-0", signals=signals), scope("decode-9", signals=signals, copy=1)])
    transport = Transport()
    async with ScriptedPeer(talk) as peer:
        prometheus = Prometheus(peer.url, transport, chance=lambda: 0.0)
        found = await Collector(ScrapeSource(transport), prometheus).observe(census, at=1000.0, timeout_s=5)
        assert len(peer.requests) == 2
    await transport.close()
    assert found.scopes[0].roles["decode"]["mine"].value == 8
    assert found.scopes[1].roles["decode"]["mine"].missing == ("decode-9",)
    assert (found.scopes[0].scope["bad"].value, found.scopes[0].scope["bad"].fault) == (None, Fault.ERROR)
    assert [problem.failure for problem in found.problems] == [Failure.QUERY]
