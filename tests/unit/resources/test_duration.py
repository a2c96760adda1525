"""Durations: what Go's time package reads and prints."""

from __future__ import annotations

import pytest

from grove_server.resources.duration import (
    DurationError,
    canonical_duration,
    format_duration,
    parse_duration,
    parse_duration_ns,
)


@pytest.mark.parametrize(
    ("text", "seconds", "canonical"),
    [
        ("0", 0, "0s"),
        ("0s", 0, "0s"),
        ("5s", 5, "5s"),
        ("30s", 30, "30s"),
        ("1478s", 1478, "24m38s"),
        ("-5s", -5, "-5s"),
        ("+5s", 5, "5s"),
        ("5.s", 5, "5s"),
        (".5s", 0.5, "500ms"),
        ("1.5h", 5400, "1h30m0s"),
        ("4h", 14400, "4h0m0s"),
        ("4h0m0s", 14400, "4h0m0s"),
        ("1m30s", 90, "1m30s"),
        ("100ms", 0.1, "100ms"),
        ("1500ms", 1.5, "1.5s"),
        ("10.5s4m", 250.5, "4m10.5s"),
        ("1us", 1e-6, "1\u00b5s"),
        ("1\u00b5s", 1e-6, "1\u00b5s"),
        ("1\u03bcs", 1e-6, "1\u00b5s"),
        ("1ns", 1e-9, "1ns"),
        ("100h", 360000, "100h0m0s"),
    ],
)
def test_reads_and_prints_as_go(text: str, seconds: float, canonical: str) -> None:
    """A duration is read to the nanosecond and printed as Kubernetes prints it."""
    assert parse_duration(text) == seconds
    assert canonical_duration(text) == canonical
    assert format_duration(seconds) == canonical


@pytest.mark.parametrize("text", ["", "1", "s", ".", "-", "1 s", "1d", "1h1", "never", "-.s", "1,5s", "٣s"])
def test_refuses_what_go_refuses(text: str) -> None:
    """A number without a unit, or a unit that Go does not know, is refused."""
    with pytest.raises(DurationError):
        parse_duration(text)


def test_refuses_more_than_go_can_hold() -> None:
    """Longer than 2^63-1 nanoseconds is refused, as are texts without end."""
    assert parse_duration_ns("9223372036854775807ns") == 2**63 - 1
    with pytest.raises(DurationError, match="292 years"):
        parse_duration("3000000h")
    with pytest.raises(DurationError, match="at most 64"):
        parse_duration("1s" * 40)
