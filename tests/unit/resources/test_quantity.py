"""Quantities: grammar, canonical spelling and rounding, as apimachinery documents them."""

from __future__ import annotations

import pytest

from grove_server.resources.quantity import ZERO, Quantity, QuantityError, parse_quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Mi", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("5.", "5"),
        ("0.1", "100m"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1000000", "1M"),
        ("1001", "1001"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1025Ki", "1025Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("0.0001Ki", "102400u"),
        ("-1.5Gi", "-1536Mi"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1E", "1E"),
        ("12e6", "12e6"),
        ("1e-3", "1e-3"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1e-40", "1e-9"),
        ("9223372036854775807", "9223372036854775807"),
        ("7Ei", "7Ei"),
    ],
)
def test_spells_canonically(text: str, canonical: str) -> None:
    """A quantity is printed without a fraction, with the largest suffix that needs none."""
    assert str(parse_quantity(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "a",
        "1X",
        "1kb",
        "1KI",
        "1ki",
        "--1",
        "1..0",
        "1.2.3",
        "e3",
        ".",
        "+",
        "Ki",
        "1e",
        "0x10",
        "1_000",
        "1,5",
    ],
)
def test_refuses_what_is_no_number(text: str) -> None:
    """What Kubernetes cannot read is refused with an example of what it could."""
    with pytest.raises(QuantityError, match="must be a number"):
        parse_quantity(text)


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "8Ei", "10E", "1e19", "-1e99", "1e999999999999", "1e00000000000000041"]
)
def test_refuses_what_is_absurd(text: str) -> None:
    """Amounts beyond 2^63-1 are refused, where Kubernetes caps them."""
    with pytest.raises(QuantityError, match="larger than"):
        parse_quantity(text)


def test_refuses_long_texts() -> None:
    """A text longer than any sensible quantity is refused before it is read."""
    with pytest.raises(QuantityError, match="at most 64 characters"):
        parse_quantity("1" * 65)


@pytest.mark.parametrize(
    ("text", "milli", "whole"),
    [
        ("1", 1000, 1),
        ("1m", 1, 1),
        ("1n", 1, 1),
        ("1500m", 1500, 2),
        ("-1500m", -1500, -2),
        ("1.0001", 1001, 2),
        ("0", 0, 0),
    ],
)
def test_rounds_away_from_zero(text: str, milli: int, whole: int) -> None:
    """Reading a quantity in coarser units never understates it."""
    quantity = parse_quantity(text)
    assert (quantity.milli(), quantity.whole()) == (milli, whole)


def test_compares_by_amount() -> None:
    """Equal amounts are equal, and hash the same, however they were written."""
    assert parse_quantity("1Ki") == parse_quantity("1024") == parse_quantity("1.024k")
    assert hash(parse_quantity("1Ki")) == hash(parse_quantity("1024"))
    assert parse_quantity("100m") < parse_quantity("0.2") <= parse_quantity("200m")


def test_adds_and_subtracts_keeping_the_spelling() -> None:
    """A sum is spelled like its first part, unless that is zero."""
    assert str(parse_quantity("1Gi") + parse_quantity("1Gi")) == "2Gi"
    assert str(ZERO + parse_quantity("1Gi")) == "1Gi"
    assert str(parse_quantity("1") - parse_quantity("100m")) == "900m"
    assert -parse_quantity("1") == parse_quantity("-1")
    assert not ZERO
    assert Quantity(1)


def test_scales_to_any_power_of_ten() -> None:
    """A quantity can be read in units of any power of ten."""
    quantity = parse_quantity("1500M")
    assert quantity.scaled(6) == 1500
    assert quantity.scaled(9) == 2
    assert quantity.scaled(-12) == 1_500_000_000 * 10**12
