"""What placement last said of each gang, and the book of what every bound pod holds on its node."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from grove_server.placement.cluster import Cluster, ClusterError, UnknownNodeError
from grove_server.placement.nodes import NodeState
from grove_server.placement.requests import GangRequest, PodShape
from grove_server.placement.results import Placement, PodBinding, Verdict
from grove_server.placement.shapes import node_state
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, key_of
from grove_server.resources.workload import Pod, PodPhase

# A gang that lost many parts one by one is explained by the latest of them.
_LATER_MAX: Final = 64

_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Placement's last word on one gang, for explanations. Times are epoch seconds.

    ``others`` are further parts of the gang that have no room either: growth may help them and not the first.
    ``later`` are parts of the minimum that were placed after the whole of it: they came back from size 0 or were lost.
    ``surplus`` says why pods beyond the minimum of a placed gang wait. ``nominated`` are places that are kept until
    those who sit there are gone. ``queue``, ``priority`` and ``queue_position`` (from 1, if it waits) are filled in
    when somebody asks.
    """

    request: GangRequest | None = None
    outcome: Placement | Verdict | None = None
    waiting_reason: str = ""
    waiting_message: str = ""
    since: float | None = None
    evaluated_at: float | None = None
    level_names: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)
    others: tuple[Decision, ...] = ()
    later: tuple[Decision, ...] = ()
    surplus: Decision | None = None
    nominated: Placement | None = None
    queue: str = ""
    priority: int = 0
    queue_position: int | None = None

    @property
    def is_placed(self) -> bool:
        """Return whether what was asked for has its places."""
        return isinstance(self.outcome, Placement)

    @property
    def reason(self) -> str:
        """Return why the gang waits, as one word; empty if it does not."""
        return str(self.outcome.code) if isinstance(self.outcome, Verdict) else self.waiting_reason

    @property
    def message(self) -> str:
        """Return why the gang waits, as one sentence; empty if it does not."""
        return self.outcome.sentence() if isinstance(self.outcome, Verdict) else self.waiting_message

    def with_later(self, part: Decision) -> Decision:
        """Return the decision with a part that was placed after it, which replaces an earlier word on that part."""
        kept = [each for each in self.later if _name(each) != _name(part)]
        return replace(self, later=(*kept, part)[-_LATER_MAX:])


def asked_again(decision: Decision, before: Verdict, found: Placement | Verdict, now: float) -> Decision:
    """Return a decision as it would be now, with *found* in the place of the verdict *before*.

    Who could leave for the gang is not asked again: what was said of that stays.
    """
    if isinstance(found, Placement):
        text = f"as the cluster is now it would fit, and it is about to be asked again; before, {before.sentence()}"
        return replace(decision, outcome=None, waiting_reason=before.code.value, waiting_message=text, evaluated_at=now)
    own = found.detail.split("; ") if found.detail else []
    notes = [text for text in before.notes if text not in own]
    outcome = replace(found, detail="; ".join([*own, *notes]), notes=tuple(notes))
    return replace(decision, outcome=outcome, evaluated_at=now)


def _name(decision: Decision) -> str:
    return "" if decision.request is None else decision.request.name


class Holding(NamedTuple):
    """What one pod holds."""

    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...]


def _tell_nobody(_keys: Iterable[Key]) -> None:
    """Listen to nothing."""


class Holdings:
    """What each pod holds in the cluster. A pod is in here from the decision on, not only once it is durable.

    ``tell`` hears of each pod whose holding changed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.tell: Callable[[Iterable[Key]], None] = _tell_nobody
        self._held: dict[Key, Holding] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    def keys(self) -> Iterable[Key]:
        """Return all pods that hold something."""
        return self._held.keys()

    def get(self, key: Key) -> Holding | None:
        """Return what a pod holds."""
        return self._held.get(key)

    def snapshot(self) -> dict[Key, Holding]:
        """Return what each pod holds, as a copy that stays as it is."""
        return dict(self._held)

    def shapes(self) -> dict[PodShape, int]:
        """Return how many pods there are of each shape."""
        # Pods of one template share their shape's object, so that few shapes have to be hashed.
        counts = Counter(map(id, (holding.shape for holding in self._held.values())))
        objects = {id(holding.shape): holding.shape for holding in self._held.values()}
        pods: dict[PodShape, int] = {}
        for identity, count in counts.items():
            shape = objects[identity]
            pods[shape] = pods.get(shape, 0) + count
        return pods

    def set_nodes(self, nodes: Mapping[str, Node | None]) -> dict[str, str]:
        """Take over what nodes are now as one change, None for those that are gone; what pods hold stays.

        A node that cannot be taken is left as it was; return what is wrong with each of these, by name.
        """
        refused: dict[str, str] = {}
        states: list[NodeState] = []
        for name, node in nodes.items():
            if node is None:
                # Unknown if it came and went between two looks, or was never taken.
                with contextlib.suppress(UnknownNodeError):
                    self.cluster.remove_node(name)
                continue
            try:
                states.append(node_state(node))
            except ValueError as error:
                refused[name] = str(error)
        try:
            self.cluster.upsert_nodes(states)
        except ClusterError:
            # One of them spoils the change for all: take them one by one.
            for state in states:
                try:
                    self.cluster.upsert_node(state)
                except ClusterError as error:
                    refused[state.name] = str(error)
        return refused

    def note(self, key: Key, holding: Holding) -> None:
        """Enter what the cluster has reserved already."""
        self._held[key] = holding
        self.tell((key,))

    def adopt(self, key: Key, holding: Holding) -> bool:
        """Enter a pod that runs already and reserve for it; return whether its node is known and its GPUs were free."""
        try:
            gpu_ids = self.cluster.bind_pod(holding.node, holding.shape, holding.gpu_ids)
        except ClusterError:
            return False
        self._held[key] = Holding(holding.node, holding.shape, gpu_ids)
        self.tell((key,))
        return True

    def unaccounted(self, pods: Iterable[Pod]) -> dict[Key, Pod]:
        """Return those of *pods*, which have a node, that hold room there and are not in here.

        After a start that found a node gone, pods of it may still be there when it comes back.
        """
        over = (PodPhase.FAILED, PodPhase.SUCCEEDED)
        return {key_of(pod): pod for pod in pods if key_of(pod) not in self and pod.phase not in over}

    def release(self, keys: Iterable[Key]) -> None:
        """Give back what these pods hold, as one change; unknown ones hold nothing."""
        keys = list(keys)
        batches: dict[PodShape, list[PodBinding]] = {}
        for key in keys:
            holding = self._held.pop(key, None)
            if holding is not None:
                batches.setdefault(holding.shape, []).append(PodBinding(holding.node, holding.gpu_ids))
        if batches:
            self.cluster.release_pods(batches.items())
        self.tell(keys)
