"""Reading lists of a manifest that may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.findings import Findings

_ENTRIES_MAX: Final = 256


def maps_in(entries: object, path: str, findings: Findings) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the entries of a list that are maps, with their index, and note those that are not."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        findings.wrong_type(path, "a list", entries)
        return []
    if len(entries) > _ENTRIES_MAX:
        findings.too_many(path, len(entries), _ENTRIES_MAX)
        return []
    maps: list[tuple[int, Mapping[str, Any]]] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, dict):
            maps.append((index, entry))
        else:
            findings.wrong_type(f"{path}[{index}]", "a map", entry)
    return maps
