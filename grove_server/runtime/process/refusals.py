"""What of a pod spec cannot be had here, collected while it is read. Pure.

Deeper parts of a pod spec are plain JSON that nobody has checked: what has not the form of Kubernetes' API is a reason
not to run, with the path to it; what has its form and asks for something that this runtime lacks is told and left out.

Not here: who reads what (``pod_reading`` and its neighbours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from grove_server.resources.violations import quoted
from grove_server.runtime.process.pod_plan import Refusal

# A manifest may be wrong in each of its thousands of fields; people read the first few.
_REFUSALS_MAX: Final = 64


class Refusals:
    """What was found; at most ``_REFUSALS_MAX`` of each sort are kept."""

    def __init__(self) -> None:
        self._not_honoured: dict[str, Refusal] = {}
        self._cannot_run: dict[str, Refusal] = {}

    @property
    def not_honoured(self) -> tuple[Refusal, ...]:
        """Fields without which the pod runs, in the order they were found in."""
        return tuple(self._not_honoured.values())

    @property
    def cannot_run(self) -> tuple[Refusal, ...]:
        """Fields for which the pod is never started, in the order they were found in."""
        return tuple(self._cannot_run.values())

    def leave_out(self, path: str, why: str) -> None:
        """Say that the field at *path* is not honoured."""
        if len(self._not_honoured) < _REFUSALS_MAX:
            self._not_honoured.setdefault(path, Refusal(path=path, why=why))

    def refuse(self, path: str, why: str) -> None:
        """Say that the pod cannot run for the field at *path*."""
        if len(self._cannot_run) < _REFUSALS_MAX:
            self._cannot_run.setdefault(path, Refusal(path=path, why=why))

    def refuse_value(self, path: str, wanted: str, value: object) -> None:
        """Say that the value at *path* is not what the API wants."""
        self.refuse(path, f"must be {wanted}, got {quoted(str(value))}")


class Fields:
    """One JSON object of a pod spec, read field by field; a field of another form counts as left out, and is told."""

    def __init__(self, value: object, path: str, refusals: Refusals) -> None:
        self.path = path
        self.refusals = refusals
        self._value: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._value = value
        elif value is not None:
            refusals.refuse_value(path, "a map", value)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields that are there."""
        return (name for name, value in self._value.items() if value is not None)

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def raw(self, name: str) -> object:
        """Return the value of a field as it is, None if it is not there."""
        return self._value.get(name)

    def at(self, name: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def fields(self, name: str) -> Fields:
        """Return the object in a field; empty if it is not there."""
        return Fields(self._value.get(name), self.at(name), self.refusals)

    def objects(self, name: str) -> list[Fields]:
        """Return the objects in a list; empty if it is not there."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.refusals.refuse_value(self.at(name), "a list", value)
            return []
        return [Fields(item, f"{self.at(name)}[{index}]", self.refusals) for index, item in enumerate(value)]

    def text(self, name: str, default: str = "") -> str:
        """Return a string."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.refusals.refuse_value(self.at(name), "a string", value)
            return default
        if "\x00" in value:
            self.refusals.refuse(self.at(name), "must not have a null character")
            return default
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self._value.get(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            self.refusals.refuse_value(self.at(name), "a list of strings", value)
            return ()
        if any("\x00" in item for item in value):
            self.refusals.refuse(self.at(name), "must not have a null character")
            return ()
        return tuple(value)

    def number(self, name: str, default: int, *, least: int, most: int = 2**31 - 1) -> int:
        """Return a whole number from *least* to *most*."""
        value = self._value.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refusals.refuse_value(self.at(name), f"a whole number from {least} to {most}", value)
            return default
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refusals.refuse_value(self.at(name), "true or false", value)
            return default
        return value
