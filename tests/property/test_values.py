"""Quantities and durations against exact arithmetic: nothing is lost in reading, printing, adding or rounding."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from grove_server.resources.duration import format_duration_ns, parse_duration_ns
from grove_server.resources.quantity import Quantity, QuantityError, parse_quantity

SUFFIXES = {
    "": Fraction(1),
    **{name: Fraction(10) ** power for name, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)},
    **{f"{name}i": Fraction(1024) ** power for power, name in enumerate("KMGTPE", start=1)},
    **{f"e{power}": Fraction(10) ** power for power in range(-12, 19)},
}

numbers = st.builds(
    lambda sign, whole, fraction: f"{sign}{whole}{fraction}",
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 10**12).map(str),
    st.one_of(
        st.just(""), st.just("."), st.text("0123456789", min_size=1, max_size=12).map(lambda digits: f".{digits}")
    ),
)


def exact(number: str, suffix: str) -> Fraction:
    """Return what a spelling says, by Python's exact arithmetic."""
    return Fraction(number.rstrip(".")) * SUFFIXES[suffix]


def away_from_zero(value: Fraction) -> int:
    """Round as Kubernetes does."""
    return math.ceil(value) if value >= 0 else math.floor(value)


@given(numbers, st.sampled_from(sorted(SUFFIXES)))
def test_reading_is_exact_to_the_nano_unit(number: str, suffix: str) -> None:
    """A quantity is the exact amount, rounded away from zero at one nano-unit; or it is refused for its size."""
    value = exact(number, suffix)
    try:
        quantity = parse_quantity(number + suffix)
    except QuantityError:
        assert abs(value) > 2**63 - 1
        return
    assert quantity.nano == away_from_zero(value * 10**9)
    assert quantity.milli() == away_from_zero(Fraction(quantity.nano, 10**6))
    assert quantity.whole() == away_from_zero(quantity.fraction())


@given(numbers, st.sampled_from(sorted(SUFFIXES)))
def test_printing_loses_nothing(number: str, suffix: str) -> None:
    """The canonical spelling reads back as the same amount and prints as itself."""
    try:
        quantity = parse_quantity(number + suffix)
    except QuantityError:
        return
    text = str(quantity)
    assert "." not in text
    assert parse_quantity(text) == quantity
    assert str(parse_quantity(text)) == text


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_arithmetic_is_that_of_fractions(one: int, other: int) -> None:
    """Sums, differences and comparisons are those of the exact amounts."""
    a, b = Quantity(one), Quantity(other)
    assert (a + b).fraction() == a.fraction() + b.fraction()
    assert (a - b).fraction() == a.fraction() - b.fraction()
    assert (a < b) == (a.fraction() < b.fraction())
    assert (a == b) == (one == other)


@given(st.text(max_size=70))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader fail in another way."""
    try:
        parse_quantity(text)
    except QuantityError as error:
        assert str(error)  # noqa: PT017 -- most texts are refused, some are not


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_durations_read_back(duration_ns: int) -> None:
    """A printed duration is the same number of nanoseconds, and its spelling is canonical."""
    text = format_duration_ns(duration_ns)
    assert parse_duration_ns(text) == duration_ns
    assert format_duration_ns(parse_duration_ns(text)) == text


@given(st.integers(0, 1000), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_are_the_sum_of_their_parts(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    """Parts may come in any order and are added."""
    total_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds
    assert parse_duration_ns(f"{hours}h{minutes}m{seconds}s{milliseconds}ms") == total_ms * 1_000_000
    assert parse_duration_ns(f"{milliseconds}ms{seconds}s{minutes}m{hours}h") == total_ms * 1_000_000
