"""Label selectors: ``a=b, c!=d, e in (x,y), f notin (z), g, !h``, as kubectl's ``-l`` takes them.

Meaning is Kubernetes': all requirements must hold; ``!=`` and ``notin`` also hold where the key is absent.
Not supported: ``>`` and ``<``, which Kubernetes itself offers for node labels only.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grove_server.resources.labels import label_key_problem, label_value_problem

TEXT_LENGTH_MAX: Final = 4096
REQUIREMENTS_MAX: Final = 64
VALUES_MAX: Final = 256

_WORD: Final = re.compile(r"\s*(?P<word>==|!=|=|!|,|\(|\)|[^\s=!,()]+)")
_SYMBOLS: Final = frozenset({"==", "!=", "=", "!", ",", "(", ")"})


class SelectorError(ValueError):
    """A text is no selector; ``position`` counts characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        """Say what is wrong and where."""
        super().__init__(f"{message} (at character {position})")
        self.position = position


class Operator(enum.StrEnum):
    """What a requirement asks of its key; the values are Kubernetes' names."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* satisfy the requirement."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None

    def __str__(self) -> str:
        """Return the requirement in selector syntax, values sorted."""
        if self.operator is Operator.EXISTS:
            return self.key
        if self.operator is Operator.DOES_NOT_EXIST:
            return f"!{self.key}"
        sign, relation = ("=", "in") if self.operator is Operator.IN else ("!=", "notin")
        if len(self.values) == 1:
            return f"{self.key}{sign}{next(iter(self.values))}"
        return f"{self.key} {relation} ({','.join(sorted(self.values))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Requirements that must all hold; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* satisfy every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        """Return a canonical text: equal selectors written differently give the same."""
        return ",".join(sorted(str(requirement) for requirement in self.requirements))


EVERYTHING: Final = Selector()


def parse_selector(text: str) -> Selector:
    """Return the selector that *text* spells; raise SelectorError with the position of the first mistake."""
    if len(text) > TEXT_LENGTH_MAX:
        raise SelectorError(f"a selector must have at most {TEXT_LENGTH_MAX} characters", TEXT_LENGTH_MAX + 1)
    if not text.strip():
        return EVERYTHING
    reader = _Reader(text)
    requirements = [_read_requirement(reader)]
    while (word := reader.next()) is not None:
        if word != ",":
            raise SelectorError(f"expected ',', found {word!r}", reader.position)
        requirements.append(_read_requirement(reader))
        if len(requirements) > REQUIREMENTS_MAX:
            raise SelectorError(f"a selector must have at most {REQUIREMENTS_MAX} requirements", reader.position)
    return Selector(requirements=tuple(requirements))


class _Reader:
    """The words of a selector, and where the last one began."""

    def __init__(self, text: str) -> None:
        self._words = [(match["word"], match.start("word") + 1) for match in _WORD.finditer(text)]
        self._next = 0
        self._end = len(text) + 1
        self.position = 1

    def peek(self) -> str | None:
        return self._words[self._next][0] if self._next < len(self._words) else None

    def next(self) -> str | None:
        if self._next == len(self._words):
            self.position = self._end
            return None
        word, self.position = self._words[self._next]
        self._next += 1
        return word


def _read_requirement(reader: _Reader) -> Requirement:
    word = reader.next()
    if word == "!":
        return Requirement(key=_as_key(reader.next(), reader), operator=Operator.DOES_NOT_EXIST)
    key = _as_key(word, reader)
    following = reader.peek()
    if following is None or following == ",":
        return Requirement(key=key, operator=Operator.EXISTS)
    reader.next()
    if following in ("=", "=="):
        return Requirement(key=key, operator=Operator.IN, values=frozenset({_read_value(reader)}))
    if following == "!=":
        return Requirement(key=key, operator=Operator.NOT_IN, values=frozenset({_read_value(reader)}))
    if following == "in":
        return Requirement(key=key, operator=Operator.IN, values=_read_values(reader))
    if following == "notin":
        return Requirement(key=key, operator=Operator.NOT_IN, values=_read_values(reader))
    raise SelectorError(f"expected '=', '!=', 'in' or 'notin' after {key!r}, found {following!r}", reader.position)


def _as_key(word: str | None, reader: _Reader) -> str:
    if word is None or word in _SYMBOLS:
        raise SelectorError("expected a label key" + (f", found {word!r}" if word else ""), reader.position)
    problem = label_key_problem(word)
    if problem is not None:
        raise SelectorError(f"label key {word!r}: {problem}", reader.position)
    return word


def _read_value(reader: _Reader) -> str:
    following = reader.peek()
    if following is None or following in (",", ")"):
        return ""
    return _as_value(reader.next(), reader)


def _as_value(word: str | None, reader: _Reader) -> str:
    if word is None or word in _SYMBOLS:
        raise SelectorError("expected a label value" + (f", found {word!r}" if word else ""), reader.position)
    problem = label_value_problem(word)
    if problem is not None:
        raise SelectorError(f"label value {word!r}: {problem}", reader.position)
    return word


def _read_values(reader: _Reader) -> frozenset[str]:
    if reader.next() != "(":
        raise SelectorError("expected '(' before the values", reader.position)
    values = {_read_value(reader)}
    while (word := reader.next()) == ",":
        values.add(_read_value(reader))
        if len(values) > VALUES_MAX:
            raise SelectorError(f"a requirement must have at most {VALUES_MAX} values", reader.position)
    if word != ")":
        raise SelectorError("expected ')' after the values", reader.position)
    return frozenset(values)
