"""Kubernetes quantities ("500m", "1.5Gi", "2e3"), exactly.

A quantity is a whole number of nano-units, since Kubernetes keeps nothing smaller: what is finer is rounded away from
zero when it is read, and reading in coarser units (``milli``, ``whole``) rounds the same way, so that a request is
never understated. Grammar, rounding and canonical spelling follow apimachinery's ``resource.Quantity``. One thing is
stricter: what Kubernetes caps at 2^63-1 is refused here, because nobody means it.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, total_ordering
from typing import Final

TEXT_LENGTH_MAX: Final = 64
WHOLE_MAX: Final = 2**63 - 1

_NANO_DIGITS: Final = 9
_NANO_PER_UNIT: Final = 10**_NANO_DIGITS
_NANO_PER_MILLI: Final = 10**6
# Exponents beyond these decide by themselves: too large, or the smallest amount there is.
_EXPONENT_MAX: Final = 40
_BINARY_STEP: Final = 1024

_TEXT: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]+))?"
)
_BINARY_POWERS: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_BINARY_SUFFIXES: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL_EXPONENTS: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES: Final = {0: "", **{exponent: suffix for suffix, exponent in _DECIMAL_EXPONENTS.items()}}


class QuantityError(ValueError):
    """A text is no quantity; the message says why, without the text."""


class Form(enum.Enum):
    """How a quantity was written, and is printed again."""

    DECIMAL = "decimal"
    BINARY = "binary"
    EXPONENT = "exponent"


@total_ordering
@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount in nano-units; equal amounts are equal however they were written."""

    nano: int
    form: Form = field(default=Form.DECIMAL, compare=False)

    def milli(self) -> int:
        """Return the amount in thousandths, rounded away from zero."""
        return _divide_away(self.nano, _NANO_PER_MILLI)

    def whole(self) -> int:
        """Return the amount in whole units, rounded away from zero."""
        return _divide_away(self.nano, _NANO_PER_UNIT)

    def scaled(self, exponent: int) -> int:
        """Return the amount in units of 10**exponent, rounded away from zero (Kubernetes' ``ScaledValue``)."""
        shift = exponent + _NANO_DIGITS
        return _divide_away(self.nano, 10**shift) if shift >= 0 else self.nano * 10**-shift

    def is_whole(self) -> bool:
        """Return whether the amount is a whole number of units."""
        return self.nano % _NANO_PER_UNIT == 0

    def fraction(self) -> Fraction:
        """Return the exact amount."""
        return Fraction(self.nano, _NANO_PER_UNIT)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.form if self.nano else other.form)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.form if self.nano else other.form)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.form)

    def __bool__(self) -> bool:
        return self.nano != 0

    def __str__(self) -> str:
        """Return the canonical spelling: no fraction, and the largest suffix that needs none."""
        if self.nano == 0:
            return "0"
        if self.form is Form.BINARY and abs(self.nano) >= _BINARY_STEP * _NANO_PER_UNIT and self.is_whole():
            return _binary_spelling(self.nano // _NANO_PER_UNIT)
        return _decimal_spelling(self.nano, self.form)


ZERO: Final = Quantity(0)


@lru_cache(maxsize=8192)
def parse_quantity(text: str) -> Quantity:
    """Return the quantity that *text* spells; raise QuantityError if it spells none, or one beyond 2^63-1."""
    if len(text) > TEXT_LENGTH_MAX:
        raise QuantityError(f"must have at most {TEXT_LENGTH_MAX} characters, has {len(text)}")
    match = _TEXT.fullmatch(text)
    if match is None or not (match["whole"] or match["fraction"]):
        raise QuantityError("must be a number with an optional suffix, such as 2, 500m, 1.5 or 16Gi")
    fraction = match["fraction"] or ""
    mantissa = int(match["whole"] + fraction)
    form = Form.DECIMAL
    exponent = _NANO_DIGITS - len(fraction)
    if match["binary"]:
        mantissa *= _BINARY_STEP ** _BINARY_POWERS[match["binary"]]
        form = Form.BINARY
    elif match["decimal"]:
        exponent += _DECIMAL_EXPONENTS[match["decimal"]]
    elif match["exponent"]:
        exponent += _bounded_exponent(match["exponent"])
        form = Form.EXPONENT
    nano = _divide_away(mantissa, 10**-exponent) if exponent < 0 else mantissa * 10**exponent
    if nano > WHOLE_MAX * _NANO_PER_UNIT:
        raise QuantityError("must not be larger than 9223372036854775807 (2^63-1)")
    if form is Form.BINARY and nano < _NANO_PER_UNIT:
        # As Kubernetes: a fraction of a byte is not spelled with a binary suffix.
        form = Form.DECIMAL
    return Quantity(-nano if match["sign"] == "-" else nano, form)


def _bounded_exponent(text: str) -> int:
    digits = text.lstrip("+-0")
    # Past the bounds every mantissa of legal length is too large, or rounds to the smallest amount.
    value = int(digits or "0") if len(digits) <= len(str(_EXPONENT_MAX)) else 10 * _EXPONENT_MAX
    value = min(value, TEXT_LENGTH_MAX + _EXPONENT_MAX)
    return -value if text.startswith("-") else value


def _divide_away(value: int, divisor: int) -> int:
    """Return value / divisor rounded away from zero."""
    return -(-value // divisor) if value >= 0 else value // divisor


def _binary_spelling(units: int) -> str:
    power = 0
    while units % _BINARY_STEP == 0 and power < len(_BINARY_SUFFIXES) - 1:
        units //= _BINARY_STEP
        power += 1
    return f"{units}{_BINARY_SUFFIXES[power]}"


def _decimal_spelling(nano: int, form: Form) -> str:
    exponent = -_NANO_DIGITS
    while nano % 1000 == 0 and exponent < _DECIMAL_EXPONENTS["E"]:
        nano //= 1000
        exponent += 3
    if form is Form.EXPONENT:
        return f"{nano}e{exponent}" if exponent else str(nano)
    return f"{nano}{_DECIMAL_SUFFIXES[exponent]}"
