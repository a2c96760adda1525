"""What changed between two states of a resource, in a few words each: the sentences that a story is made of.

Nothing here knows single fields unless they need words of their own, so that a new field of a resource tells its story
without anybody thinking of it. Left out: what never changes, what only repeats another field, and what is written
constantly without meaning anything to people.

A change is told by its path in camelCase without "metadata." and "status." before it. Times are told as "yes" and "no":
the transition itself has one.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from grove_server.resources.containers import ContainerStatus
from grove_server.resources.meta import Condition, Resource
from grove_server.resources.workload import ChosenDomain, PodTemplate

CHANGES_MAX: Final = 16
TEXT_LENGTH_MAX: Final = 120
MESSAGE_LENGTH_MAX: Final = 300
DEPTH_MAX: Final = 12

CREATED: Final = "created"
REMOVED: Final = "removed"
MORE: Final = "more"

_IGNORED: Final = frozenset(
    {
        "applied_replicas",
        "drain_deadline",
        "first_available_at",
        "hpa_pod_selector",
        "last_transition_at",
        "message",
        "observed_generation",
        "pod_gang_statuses",
        "pod_serial",
        "ready_changed_at",
        "resource_version",
        "selector",
        "set_created_at",
        "template_replicas",
        "unready_at",
        "waiting_message",
    }
)
# Holders whose fields are told as if they were the resource's own.
_TRANSPARENT: Final = frozenset({"metadata", "status"})


class Difference(NamedTuple):
    """One thing that changed; both texts are empty where there is nothing to tell."""

    what: str
    before: str = ""
    after: str = ""


class _Shape(NamedTuple):
    """How to look at one class: all fields at once, and their names."""

    fields: Callable[[Any], Any]
    names: tuple[str, ...]


_SHAPES: Final[dict[type, _Shape]] = {}


def differences(before: Resource, after: Resource) -> tuple[Difference, ...]:
    """Return what changed, at most CHANGES_MAX things; the last then says how many more there are."""
    found: list[Difference] = []
    more = 0
    for each in _fields(before, after, "", 0):
        if len(found) < CHANGES_MAX:
            found.append(each)
        else:
            more += 1
    if more:
        found[-1] = Difference(MORE, "", str(more + 1))
    return tuple(found)


def _fields(before: Any, after: Any, path: str, depth: int) -> Iterator[Difference]:  # noqa: ANN401 -- any dataclass
    shape = _SHAPES.get(type(after)) or _shape(type(after))
    for name, old, new in zip(shape.names, shape.fields(before), shape.fields(after), strict=True):
        if old is new or old == new:
            continue
        if name == "conditions":
            yield from _conditions(old, new)
        elif name == "pod_groups":
            yield from _pod_groups(old, new)
        elif name == "topology":
            yield Difference("domains", _domains(old), _domains(new))
        elif name in _TRANSPARENT:
            yield from _fields(old, new, path, depth + 1)
        elif name.endswith("_at") and not isinstance(old, str):
            if (old is None) is not (new is None):
                yield Difference(path + _camel(name[:-3]), _yes(old), _yes(new))
        else:
            yield from _values(old, new, path + _camel(name), depth + 1)


def _values(old: Any, new: Any, path: str, depth: int) -> Iterator[Difference]:  # noqa: ANN401 -- any field's value
    if old == new:
        return
    if depth < DEPTH_MAX:
        if isinstance(old, PodTemplate) and isinstance(new, PodTemplate):
            yield Difference(path, old.hash, new.hash)
            return
        if type(old) is type(new) and dataclasses.is_dataclass(new):
            yield from _fields(old, new, f"{path}.", depth)
            return
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in sorted({*old, *new}, key=str):
                yield from _values(old.get(key), new.get(key), f"{path}.{key}", depth + 1)
            return
        if _is_list(old) and _is_list(new) and len(old) == len(new):
            for index, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from _values(one, other, _item(path, index, other), depth + 1)
            return
    yield Difference(path, _text(old), _text(new))


def _item(path: str, index: int, item: object) -> str:
    """Return the path of an item of a list: containers by name, since the list of a pod's begins with the init ones."""
    if isinstance(item, ContainerStatus):
        return f"{'initContainers' if item.is_init else 'containers'}[{item.name}]"
    return f"{path}[{index}]"


def _conditions(old: Iterable[Condition], new: Iterable[Condition]) -> Iterator[Difference]:
    known = {each.type: each for each in old}
    for each in new:
        was = known.pop(each.type, None)
        if was is None or was.status != each.status or was.reason != each.reason:
            yield Difference(each.type, "" if was is None else _condition(was), _condition(each, each.message))
    for gone in known.values():
        yield Difference(gone.type, _condition(gone))


def _condition(condition: Condition, message: str = "") -> str:
    text = f"{condition.status} ({condition.reason})" if condition.reason else condition.status
    return _short(f"{text}: {message}" if message else text, MESSAGE_LENGTH_MAX)


def _pod_groups(old: Iterable[Any], new: Iterable[Any]) -> Iterator[Difference]:
    before = {group.name: len(group.pods) for group in old}
    after = {group.name: len(group.pods) for group in new}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Difference(f"pods of {name}", _text(before.get(name)), _text(after.get(name)))


def _domains(chosen: Iterable[ChosenDomain]) -> str:
    return _short(", ".join(f"{each.scope} in {each.level} {each.domain}" for each in chosen), TEXT_LENGTH_MAX)


def _text(value: Any) -> str:  # noqa: ANN401 -- any field's value
    if value is None:
        return ""
    if isinstance(value, str):
        # Also turns members of enums, whose class would stay referred to, into plain text.
        return _short(str(value), TEXT_LENGTH_MAX)
    if isinstance(value, bool):
        return "true" if value else "false"
    if _is_list(value) and all(isinstance(item, str | int) for item in value):
        return _short(",".join(str(item) for item in value), TEXT_LENGTH_MAX)
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    # Whatever is this deep or this different is told by its size alone.
    if isinstance(value, Mapping) or _is_list(value):
        return f"{len(value)} entries"
    return "set"


def _short(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"


def _yes(moment: float | None) -> str:
    return "no" if moment is None else "yes"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _camel(name: str) -> str:
    found = _CAMEL.get(name)
    if found is None:
        first, *rest = name.split("_")
        found = _CAMEL[name] = first + "".join(word.capitalize() for word in rest)
    return found


_CAMEL: Final[dict[str, str]] = {}


def _shape(cls: type) -> _Shape:
    names = tuple(field.name for field in dataclasses.fields(cls) if field.name not in _IGNORED)
    shape = _SHAPES[cls] = _Shape(_getter(names), names)
    return shape


def _getter(names: tuple[str, ...]) -> Callable[[Any], Any]:
    if len(names) > 1:
        return operator.attrgetter(*names)
    # attrgetter of one name returns no tuple, and none of no name exists.
    return lambda value: tuple(getattr(value, name) for name in names)
