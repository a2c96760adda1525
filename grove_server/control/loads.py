"""How busy pods are, as routers report it: only used to choose whom scale-in takes first.

Rules: in memory only, and each word holds for a while, so that a router that died or lied is forgotten. Values are
clamped and the memory is bounded; who fills it pushes out the oldest words and nothing else. Several routers' words on
one pod are added up.

Not here: the order of victims (``lifecycle.victims``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from grove_server.control.clock import Clock
from grove_server.resources.workload import Pod
from grove_server.store.interface import Store
from grove_server.telemetry import metrics

LOAD_TTL_S: Final = 15.0
LOAD_MAX: Final = 1_000_000
ROUTERS_PER_POD_MAX: Final = 64
WORDS_MAX: Final = 500_000

_NO_LOADS: Final[Mapping[str, float]] = MappingProxyType({})


class _Place(NamedTuple):
    namespace: str
    set_name: str
    pod: str


class _Word(NamedTuple):
    """What one router said of one pod, and until when it holds (steady seconds)."""

    load: int
    due_s: float


class Loads:
    """The reports that hold, those of the pods that were reported longest ago first."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._words: OrderedDict[_Place, dict[str, _Word]] = OrderedDict()
        self._count = 0

    def report(self, namespace: str, set_name: str, router: str, loads: Mapping[str, int]) -> int:
        """Take in what *router* has under way and queued at pods of a set, by name; return how many are of the set."""
        now_s = self._clock.steady()
        reader = self._store.read()
        known = 0
        for name, load in loads.items():
            pod = reader.get(Pod, namespace, name)
            if pod is None or pod.identity.set_name != set_name:
                continue
            known += 1
            self._say(_Place(namespace, set_name, name), router, _Word(min(max(load, 0), LOAD_MAX), now_s + LOAD_TTL_S))
        forgotten = self._forget(now_s)
        metrics.LOADS_REPORTED.labels("accepted").inc(known)
        metrics.LOADS_REPORTED.labels("unknown").inc(len(loads) - known)
        metrics.LOADS_REPORTED.labels("pushed_out").inc(forgotten)
        return known

    def of_set(self, namespace: str, set_name: str) -> Mapping[str, float]:
        """Return the loads of a set's pods that hold now, by name. Nothing is summed up that is not asked for."""
        if not self._words:
            return _NO_LOADS
        return _SetLoads(self._words, namespace, set_name, self._clock.steady())

    def _say(self, place: _Place, router: str, word: _Word) -> None:
        words = self._words.setdefault(place, {})
        self._words.move_to_end(place)
        self._count -= len(words)
        if router not in words and len(words) >= ROUTERS_PER_POD_MAX:
            del words[min(words, key=lambda each: (words[each].due_s, each))]
        words[router] = word
        self._count += len(words)

    def _forget(self, now_s: float) -> int:
        """Forget pods of which nothing holds, then the oldest while there is too much; return how many words held."""
        pushed_out = 0
        while self._words:
            words = next(iter(self._words.values()))
            holding = sum(word.due_s > now_s for word in words.values())
            if holding and self._count <= WORDS_MAX:
                break
            self._words.popitem(last=False)
            self._count -= len(words)
            pushed_out += holding
        return pushed_out


class _SetLoads(Mapping[str, float]):
    """The loads of one set at one moment, looked up as they are asked for."""

    def __init__(
        self, words: Mapping[_Place, Mapping[str, _Word]], namespace: str, set_name: str, now_s: float
    ) -> None:
        self._words = words
        self._namespace = namespace
        self._set_name = set_name
        self._now_s = now_s

    def __getitem__(self, pod: str) -> float:
        words = self._words.get(_Place(self._namespace, self._set_name, pod), {})
        holding = [word.load for word in words.values() if word.due_s > self._now_s]
        if not holding:
            raise KeyError(pod)
        return float(sum(holding))

    def __iter__(self) -> Iterator[str]:
        places = (place for place in self._words if place[:2] == (self._namespace, self._set_name))
        return (place.pod for place in places if place.pod in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
