"""Files of Kubernetes objects, as `kubectl get nodes,pods -A -o json` prints them, sorted by kind.

Rules: a file is one object or a v1 List of them, and may hold both kinds; kinds that are not asked for are counted and
left out. What cannot be read is a finding, so that one bad object does not hide the others; a file that is no JSON at
all is an error. Everything is bounded: bytes of a file, objects, findings shown.

Not here: what nodes and pods mean (`nodes`, `pods`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

FILE_BYTES_MAX: Final = 2 << 30
OBJECTS_MAX: Final = 1_000_000
FINDINGS_SHOWN_MAX: Final = 20

Json = dict[str, Any]


class ReplayError(ValueError):
    """A file that cannot be used at all; the text is for the person who named it."""


@dataclass(slots=True)
class Findings:
    """What is odd about the input, by what it is about; the first of each are kept, the rest is counted."""

    kept: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, text: str) -> None:
        """Note one thing; *what* is a short heading for all of its kind."""
        self.counts[what] += 1
        kept = self.kept.setdefault(what, [])
        if len(kept) < FINDINGS_SHOWN_MAX:
            kept.append(text)

    def lines(self, each_max: int = 3) -> list[str]:
        """Return a few lines per heading."""
        found = []
        for what, texts in self.kept.items():
            found.append(f"{self.counts[what]} {what}")
            found += (f"  {text}" for text in texts[:each_max])
            if self.counts[what] > each_max:
                found.append(f"  and {self.counts[what] - min(each_max, len(texts))} more")
        return found


@dataclass(slots=True)
class Objects:
    """The objects of all files by kind."""

    nodes: list[Json] = field(default_factory=list)
    pods: list[Json] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def read_objects(paths: list[Path], findings: Findings) -> Objects:
    """Return what the files hold; ReplayError for a file that cannot be read."""
    objects = Objects()
    for path in dict.fromkeys(paths):
        _sort(path, _load(path), objects, findings)
    if objects.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(objects.others.items()))
        findings.add("files hold other kinds, which are left out", kinds)
    return objects


def _load(path: Path) -> object:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ReplayError(f"{path}: has {size} bytes, more than {FILE_BYTES_MAX}")
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ReplayError(f"{path}: is not JSON ({error}); use kubectl get … -o json") from error


def _sort(path: Path, document: object, objects: Objects, findings: Findings) -> None:
    items = document.get("items") if isinstance(document, Mapping) and "items" in document else [document]
    if not isinstance(items, list):
        raise ReplayError(f"{path}: items must be a list")
    if len(items) + len(objects.nodes) + len(objects.pods) > OBJECTS_MAX:
        raise ReplayError(f"{path}: more than {OBJECTS_MAX} objects")
    list_kind = document.get("kind") if isinstance(document, Mapping) else None
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            findings.add("objects cannot be read", f"{path}: items[{number}] is no object")
            continue
        # The items of a NodeList, as an API server answers it, do not say their kind.
        kind = item.get("kind") or str(list_kind or "").removesuffix("List")
        if kind == "Node":
            objects.nodes.append(item)
        elif kind == "Pod":
            objects.pods.append(item)
        else:
            objects.others[str(kind) or "without kind"] += 1
