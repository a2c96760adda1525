"""What annotations say about GPUs, and what they cannot say."""

from __future__ import annotations

import pytest

from grove_server.resources.gpu_annotations import GpuAnnotationError, parse_gpu_fraction, parse_gpu_islands


@pytest.mark.parametrize(
    ("text", "milli"), [("0.5", 500), ("0.25", 250), ("0.125", 125), ("0.001", 1), ("0.999", 999), ("0.50", 500)]
)
def test_a_fraction_is_read_in_milli(text: str, milli: int) -> None:
    """Up to three decimals stand for thousandths of one GPU."""
    assert parse_gpu_fraction(text) == milli


@pytest.mark.parametrize(
    "text",
    ["", "0", "1", "0.0", "0.000", "1.0", "1.5", "-0.5", "0.1234", ".5", "0,5", "50%", "500m", "½", "0.5 ", "0.\u0665"],
)
def test_other_texts_are_no_fraction(text: str) -> None:
    """Everything else is refused with the text in the message."""
    with pytest.raises(GpuAnnotationError, match="more than 0 and less than 1"):
        parse_gpu_fraction(text)


@pytest.mark.parametrize(
    ("text", "islands"),
    [
        ("0-3,4-7", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("0+2,1+3", ((0, 2), (1, 3))),
        ("5", ((5,),)),
        (" 4-5 , 0-1+8-9 ", ((4, 5), (0, 1, 8, 9))),
        ("1023", ((1023,),)),
    ],
)
def test_islands_are_read(text: str, islands: tuple[tuple[int, ...], ...]) -> None:
    """Ids, ranges and sums of them, in the order given."""
    assert parse_gpu_islands(text) == islands


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must list islands"),
        ("0-3,", "must list islands"),
        ("a", "must list islands"),
        ("0--3", "must list islands"),
        ("3-0", "ascending ids"),
        ("0-1024", "ascending ids up to 1023"),
        ("0-3,3-7", "names 3 twice"),
        ("0+0", "names 0 twice"),
        ("0," * 5_000, "at most 8192 characters"),
    ],
)
def test_malformed_islands_are_refused(text: str, message: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(GpuAnnotationError, match=message):
        parse_gpu_islands(text)
