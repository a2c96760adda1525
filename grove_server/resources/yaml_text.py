"""Reading YAML as kubectl reads it, within bounds.

Scalars mean what they mean to Go's yaml.v2, which stands behind sigs.k8s.io/yaml: YAML 1.1, so ``yes``, ``on`` and
``y`` are true and ``010`` is 8, but ``1e3`` is 1000, ``1:30`` is text, and a date stays a string. What kubectl lets
pass is refused where it hides a mistake: a key given twice, an unknown tag.

Everything is bounded before memory is spent on it: nesting, and the number of values, counted with every alias written
out, because a few lines of aliases can stand for billions of values.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NamedTuple

import yaml

from grove_server.resources.schema import NESTING_MAX
from grove_server.resources.violations import quoted

VALUES_MAX: Final = 200_000

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_INTEGER: Final = re.compile(r"[-+]?(?:0b[01]+|0x[0-9a-fA-F]+|0o[0-7]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_LENGTH_MAX: Final = 64
_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_MERGE_KEY: Final = "<<"


class UnreadableError(ValueError):
    """A document cannot be read; ``line`` counts from 1 in the whole text."""

    def __init__(self, line: int, message: str) -> None:
        """Say where and why."""
        super().__init__(message)
        self.line = line
        self.message = message


class _Read(NamedTuple):
    """A value, and with every alias in it written out: how many values it is, and how deep."""

    value: Any
    size: int
    height: int


class Budget:
    """How many more values the documents of one text may have."""

    def __init__(self, values_max: int = VALUES_MAX) -> None:
        """Begin with the whole budget."""
        self._left = values_max

    def spend(self, count: int, line: int) -> None:
        """Count values; raise UnreadableError when there are too many."""
        self._left -= count
        if self._left < 0:
            raise UnreadableError(
                line, f"the text must have at most {VALUES_MAX} values, counted with every alias written out"
            )

    def spend_on(self, value: object, depth: int, line: int) -> None:
        """Count a value that was read from JSON, and check its depth."""
        self.spend(1, line)
        if not isinstance(value, dict | list):
            return
        if depth > NESTING_MAX:
            raise UnreadableError(line, f"must not be nested deeper than {NESTING_MAX} levels")
        for item in value.values() if isinstance(value, dict) else value:
            self.spend_on(item, depth + 1, line)


class Composer:
    """Builds documents from the events of libyaml's parser.

    PyYAML's own composer resolves scalars as YAML 1.1 in Python does, takes the last of two equal keys, and leaves the
    counting of aliases to whoever walks the result.
    """

    def __init__(self, text: str, first_line: int, budget: Budget) -> None:
        """Read *text*, whose first line is *first_line* of the whole."""
        self._events = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._first_line = first_line
        self._budget = budget
        # What each anchor stands for; None while it is still being read.
        self._anchors: dict[str | None, _Read | None] = {}

    def documents(self) -> list[tuple[int, Any]]:
        """Return line and content of each document that is not empty."""
        found: list[tuple[int, Any]] = []
        try:
            while not isinstance(event := self._next(), yaml.StreamEndEvent):
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors = {}
                    first = self._next()
                    content = self._value(first, 1).value
                    if content is not None:
                        found.append((self._line(first), content))
                    self._next()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = self._first_line if mark is None else self._first_line + mark.line
            raise UnreadableError(line, f"must be valid YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise UnreadableError(
                self._first_line, "must be valid YAML: it has characters that are not allowed"
            ) from error
        return found

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _line(self, event: yaml.Event) -> int:
        mark = event.start_mark
        return self._first_line if mark is None else self._first_line + mark.line

    def _value(self, event: yaml.Event, depth: int) -> _Read:
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event, depth)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = None
        self._budget.spend(1, self._line(event))
        if isinstance(event, yaml.ScalarEvent):
            read = _Read(_scalar(event, self._line(event)), 1, 0)
        elif depth > NESTING_MAX:
            raise UnreadableError(self._line(event), f"must not be nested deeper than {NESTING_MAX} levels")
        elif isinstance(event, yaml.SequenceStartEvent):
            read = self._list(event, depth)
        else:
            read = self._map(event, depth)
        if anchor is not None:
            self._anchors[anchor] = read
        return read

    def _aliased(self, event: yaml.AliasEvent, depth: int) -> _Read:
        known = self._anchors.get(event.anchor)
        if known is None:
            what = "contains itself" if event.anchor in self._anchors else "is not defined before it is used"
            raise UnreadableError(self._line(event), f"alias {event.anchor} {what}")
        self._budget.spend(known.size, self._line(event))
        if depth + known.height - 1 > NESTING_MAX:
            raise UnreadableError(self._line(event), f"must not be nested deeper than {NESTING_MAX} levels")
        return known

    def _list(self, start: yaml.Event, depth: int) -> _Read:
        _check_tag(start, "seq", self._line(start))
        items: list[Any] = []
        size, height = 1, 0
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            read = self._value(event, depth + 1)
            items.append(read.value)
            size += read.size
            height = max(height, read.height)
        return _Read(items, size, height + 1)

    def _map(self, start: yaml.Event, depth: int) -> _Read:
        _check_tag(start, "map", self._line(start))
        entries: dict[str, Any] = {}
        merged: list[Any] = []
        size, height = 1, 0
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            is_merge = key == _MERGE_KEY and isinstance(event, yaml.ScalarEvent) and event.implicit[0]
            if key in entries:
                raise UnreadableError(self._line(event), f"key {quoted(key)} is given twice in one map")
            read = self._value(self._next(), depth + 1)
            size += read.size
            height = max(height, read.height)
            if is_merge:
                merged.extend(read.value if isinstance(read.value, list) else [read.value])
            else:
                entries[key] = read.value
        for source in merged:
            if not isinstance(source, dict):
                raise UnreadableError(self._line(start), f"{_MERGE_KEY} must be given maps, got {quoted(source)}")
            entries = {**source, **entries}
        return _Read(entries, size, height + 1)

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent):
            key = self._aliased(event, 1).value
        elif isinstance(event, yaml.ScalarEvent):
            key = _scalar(event, self._line(event))
            if event.anchor is not None:
                self._anchors[event.anchor] = _Read(key, 1, 0)
        else:
            raise UnreadableError(self._line(event), "keys must be strings")
        if isinstance(key, str):
            return key
        if key is None or isinstance(key, dict | list):
            raise UnreadableError(self._line(event), f"keys must be strings, got {quoted(key)}")
        # As kubectl: numbers and booleans become strings where a key must be one.
        return json.dumps(key)


def _check_tag(event: yaml.Event, expected: str, line: int) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None and tag not in (_TAG_PREFIX + expected, "!"):
        raise UnreadableError(line, f"tag {quoted(tag.removeprefix(_TAG_PREFIX))} is not supported here")


def _scalar(event: yaml.ScalarEvent, line: int) -> str | int | float | bool | None:
    text, tag = event.value, event.tag
    if tag is None or tag == "!":
        return _resolved(text, line) if event.implicit[0] and tag is None else text
    kind = tag.removeprefix(_TAG_PREFIX)
    if kind == "str":
        return text
    value = _resolved(text, line)
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "null": value is None,
    }
    if kind not in fits:
        raise UnreadableError(line, f"tag {quoted(kind)} is not supported here")
    if not fits[kind]:
        raise UnreadableError(line, f"{quoted(text)} does not fit its tag {kind}")
    return value


def _resolved(text: str, line: int) -> str | int | float | bool | None:
    """Return what a plain scalar stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _NUMBER_LENGTH_MAX:
        return text
    plain = text.replace("_", "")
    if _INTEGER.fullmatch(plain) is not None:
        return _integer(plain)
    if _NOT_FINITE.fullmatch(text) is not None:
        raise UnreadableError(line, f"numbers must be finite, got {text}")
    if _FLOAT.fullmatch(plain) is None:
        return text
    number = float(plain)
    if not math.isfinite(number):
        raise UnreadableError(line, f"number {text} is too large")
    # As JSON written by kubectl: a whole number, however it was spelled.
    return int(number) if number.is_integer() and abs(number) < 2**63 else number


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if digits[:2].lower() in ("0x", "0b", "0o"):
        base = {"x": 16, "b": 2, "o": 8}[digits[1].lower()]
        return sign * int(digits[2:], base)
    if len(digits) > 1 and digits.startswith("0"):
        return sign * int(digits, 8)
    return sign * int(digits)
