"""Which pods usually come: the mix by which few pods are packed, taken from what runs and waits.

Rules: the mix is the shapes of all pods that hold something or wait for room, by their number, and only those with GPUs
count (`placement.stranding`). It is looked at after many changes and replaced when it drifted by more than DRIFT_MAX,
because a new mix has everything counted anew. Without the setting `packing: least-stranded` nothing of this happens and
few pods go where the least room is.

Not here: what a mix does (`placement.stranding`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

from grove_server.control.decisions import Holdings
from grove_server.placement.cluster import Cluster
from grove_server.placement.requests import PodShape
from grove_server.placement.stranding import MIX_MAX, WEIGHT_MAX, Mix
from grove_server.placement.wake_ups import WakeUps
from grove_server.resources.meta import Key
from grove_server.store.interface import Notice, Store

Packing = Literal["tightest", "least-stranded"]

DRIFT_MAX: Final = 0.1
"""Share of the weight that may lie on other shapes before the mix is replaced."""

_CHANGES_MIN: Final = 64
_CHANGES_SHARE: Final = 0.05


class PackingMix:
    """Keeps the cluster's mix near what runs and waits."""

    def __init__(self, cluster: Cluster, holdings: Holdings, wake_ups: WakeUps[Key]) -> None:
        self._cluster = cluster
        self._holdings = holdings
        self._wake_ups = wake_ups
        self._look_at = 0
        self._shares: dict[PodShape, float] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def start(self, store: Store) -> None:
        """Follow what changes in the store, where each placement ends up."""
        self._unsubscribe = store.subscribe(self._observe)

    def stop(self) -> None:
        """Follow no more; the mix stays as it is."""
        if self._unsubscribe is not None:
            self._unsubscribe()

    def _observe(self, _: Sequence[Notice]) -> None:
        self.follow()

    def follow(self) -> bool:
        """Look whether the mix drifted, if enough has changed, and return whether it was replaced."""
        if self._cluster.generation < self._look_at:
            return False
        changes = max(_CHANGES_MIN, int(_CHANGES_SHARE * len(self._holdings)))
        self._look_at = self._cluster.generation + changes
        pods = self._holdings.shapes()
        pods.update(self._wake_ups.shapes())
        with_gpus = {shape: count for shape, count in pods.items() if shape.needs_gpu}
        total = sum(with_gpus.values())
        shares = {shape: count / total for shape, count in with_gpus.items()}
        if drift(self._shares, shares) <= DRIFT_MAX:
            return False
        self._shares = shares
        self._cluster.pack_for(mix_of(with_gpus) if with_gpus else None)
        return True


def drift(before: dict[PodShape, float], after: dict[PodShape, float]) -> float:
    """Return which share of the weight lies on other shapes, 0..1 (total variation distance)."""
    if not before or not after:
        return float(bool(before) != bool(after))
    return sum(abs(before.get(shape, 0.0) - after.get(shape, 0.0)) for shape in before.keys() | after.keys()) / 2


def mix_of(pods: dict[PodShape, int]) -> Mix:
    """Return the mix of so many pods: the most frequent shapes, weights within their bound."""
    most = Counter(pods).most_common(MIX_MAX)
    scale = max(1, -(-most[0][1] // WEIGHT_MAX))
    return Mix(shapes=tuple((shape, max(1, count // scale)) for shape, count in most))
