"""Where pods ran whose rows are gone, until their successors are made.

Most successors are made while the predecessor's row still says where it ran. A pod that ends at once may be gone before
its clique's pass; what it left is remembered here. The memory is bounded and not kept over a restart: it only makes
placement better.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from grove_server.lifecycle.removal import StopReason
from grove_server.resources.workload import Pod
from grove_server.store.interface import ChangeType, Notice, Store

PLACES_MAX: Final = 10_000


class FreedPlaces:
    """Nodes by (uid of the clique, index of the pod)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Follow pods that go."""
        self._unsubscribe = self._store.subscribe(self._observe)

    def stop(self) -> None:
        """Stop following."""
        if self._unsubscribe is not None:
            self._unsubscribe()

    @property
    def by_place(self) -> Mapping[tuple[str, int], str]:
        """The nodes; the mapping is the same object while it lasts."""
        return self._places

    def _observe(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            pod = notice.resource
            if notice.kind is not ChangeType.DELETED or not isinstance(pod, Pod) or not pod.node:
                continue
            place = (pod.metadata.owner_uid, pod.index)
            if pod.stop_reason == StopReason.SCALE_IN:
                self._places.pop(place, None)
                continue
            self._places[place] = pod.node
            self._places.move_to_end(place)
            if len(self._places) > PLACES_MAX:
                self._places.popitem(last=False)
