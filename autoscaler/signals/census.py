"""Whose signals are wanted: scopes, their roles and their pods, numbered once so that vectors can be joined fast. Pure.

The autoscaler owns the inventory, so joining is done here and never in a query: series of pods that are gone, of other
namespaces and of other tenants have no number and fall away. A census is made anew when the inventory changes, not at
every tick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaler.engines.dialect import Dialect
from autoscaler.engines.presets import PRESETS
from grove_server.resources.scaling_policy import SignalSpec

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

NO_ROLE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen:
    """A pod of a scope.

    ``role`` is the policy's name of it, "" for pods of the set in no role (a router). ``counts`` is whether signals
    are expected of it: ready and not leaving. ``page`` is the URL of its metrics, "" if it has none.
    """

    name: str
    role: str
    counts: bool
    page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSeen:
    """One copy of a policy's set. ``roles`` maps names to kinds ("prefill", ...), in the policy's order."""

    key: str
    copy: int
    namespace: str
    engine: str
    roles: Mapping[str, str]
    pods: Sequence[PodSeen]
    ttft_s: float | None = None
    itl_s: float | None = None
    signals: Mapping[str, SignalSpec] = field(default_factory=dict)


class Census:
    """Scopes, roles and pods with numbers; pods in the order of the scopes."""

    def __init__(self, scopes: Sequence[ScopeSeen]) -> None:
        self.scopes = tuple(scopes)
        self.names: list[str] = []
        self.namespaces: tuple[str, ...] = tuple(sorted({scope.namespace for scope in scopes}))
        self.pages: list[str] = []
        self.roles: list[tuple[int, str, str]] = []
        by_namespace: dict[str, dict[str, int]] = {namespace: {} for namespace in self.namespaces}
        role_of, scope_of, counts = [], [], []
        for scope_number, scope in enumerate(self.scopes):
            numbers = {name: len(self.roles) + place for place, name in enumerate(scope.roles)}
            self.roles += [(scope_number, name, kind) for name, kind in scope.roles.items()]
            index = by_namespace[scope.namespace]
            for pod in scope.pods:
                # A pod that two policies speak of is counted where it came first; admission refuses such policies.
                index.setdefault(pod.name, len(self.names))
                self.names.append(pod.name)
                self.pages.append(pod.page)
                role_of.append(numbers.get(pod.role, NO_ROLE))
                scope_of.append(scope_number)
                counts.append(pod.counts)
        self.index: Mapping[str, Mapping[str, int]] = by_namespace
        self.role_of: Numbers = np.array(role_of, dtype=np.int64)
        self.scope_of: Numbers = np.array(scope_of, dtype=np.int64)
        self.counts: Flags = np.array(counts, dtype=np.bool_)

    def __len__(self) -> int:
        """Return how many pods there are."""
        return len(self.names)

    def dialects(self) -> tuple[Dialect, ...]:
        """Return the dialects that the scopes' engines need, each once, in order of preference."""
        found: dict[str, Dialect] = {}
        for engine in sorted({scope.engine for scope in self.scopes}):
            found.update({dialect.name: dialect for dialect in PRESETS[engine]})
        return tuple(found.values())

    def namespace_of(self, pod: int) -> str:
        """Return the namespace of a pod, by its number."""
        return self.scopes[int(self.scope_of[pod])].namespace

    def unknown(self) -> Floats:
        """Return a new vector of nothing known."""
        return np.full(len(self.names), np.nan)

    def positions_in(self, earlier: Census) -> Numbers:
        """Return for each pod its number in an earlier census, -1 if it was not there."""
        found = np.full(len(self.names), -1, dtype=np.int64)
        for number, name in enumerate(self.names):
            found[number] = earlier.index.get(self.namespace_of(number), {}).get(name, -1)
        return found
