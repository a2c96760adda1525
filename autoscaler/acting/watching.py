"""The inventory's watches: one stream for each kind, over restarts of the server, for as long as the autoscaler runs.

Until every kind has told its present state nothing is known, and nothing is decided. A watch that ends for good (no
permission, a server that does not know the kind) is opened again after a while, and what is wrong is a problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from autoscaler.acting.conflicts import Conflicts
from autoscaler.acting.inventory import Inventory
from autoscaler.acting.records import CLIQUE, GROUP, pod_of, policy_of, set_of, target_of
from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_pb2 import Pod
from grove.v1.scaling_policy_pb2 import ScalingPolicy
from grove_client import GroveClient, GroveError, WatchEvent, WatchPolicy
from grove_server.resources import labels
from grove_server.telemetry.logs import get_logger

_FOR_EVER: Final = WatchPolicy(open_patience_s=None)
_AGAIN_S: Final = 5.0
# The event loop is not held longer than this many events of a burst take.
_BURST: Final = 64
_MANAGED: Final = f"{labels.MANAGED_BY}={labels.MANAGER}"
_GONE: Final = "DELETED"
_SYNCED: Final = "SYNCED"

_log = get_logger("autoscaler.watching")


class Watching:
    """Feeds an inventory until it is cancelled."""

    def __init__(
        self, client: GroveClient, inventory: Inventory, conflicts: Conflicts, now: Callable[[], float]
    ) -> None:
        self._client = client
        self._inventory = inventory
        self._conflicts = conflicts
        self._now = now
        self._waits_for = {"policies", "sets", "cliques", "groups", "pods"}
        self._synced = asyncio.Event()
        self.problems: dict[str, str] = {}

    async def run(self) -> None:
        """Watch all kinds."""
        client = self._client
        async with asyncio.TaskGroup() as group:
            for name, kind, take in (
                ("policies", client.scaling_policies, self._policy),
                ("sets", client.pod_clique_sets, self._set),
                ("cliques", client.pod_cliques, self._target),
                ("groups", client.pod_clique_scaling_groups, self._target),
                ("pods", client.pods, self._pod),
            ):
                selector = _MANAGED if name == "pods" else ""
                group.create_task(self._follow(name, kind, take, selector))

    async def synced(self) -> None:
        """Return when all that is there is known."""
        await self._synced.wait()

    @property
    def waits_for(self) -> Mapping[str, str]:
        """Kinds whose present state is not known yet, with why, as far as that is known."""
        return {name: self.problems.get(name, "not read yet") for name in sorted(self._waits_for)}

    async def _follow(self, name: str, kind: Any, take: Callable[[Any, bool], None], selector: str) -> None:  # noqa: ANN401 -- five kinds of one shape
        while True:
            events: AsyncGenerator[WatchEvent[Any], None] = kind.watch(
                all_namespaces=True, label_selector=selector, policy=_FOR_EVER
            )
            try:
                count = 0
                async for event in events:
                    if event.type == _SYNCED:
                        self._was_synced(name)
                        continue
                    take(event.object, event.type == _GONE)
                    count += 1
                    if count % _BURST == 0:
                        await asyncio.sleep(0)
            except GroveError as error:
                if self.problems.get(name) != error.message:
                    _log.warning("watch_failed", kind=name, code=error.code.name, reason=error.reason)
                self.problems[name] = error.message
                await asyncio.sleep(_AGAIN_S)
            finally:
                await events.aclose()

    def _was_synced(self, name: str) -> None:
        self.problems.pop(name, None)
        self._waits_for.discard(name)
        if not self._waits_for:
            self._synced.set()

    def _policy(self, found: ScalingPolicy, is_gone: bool) -> None:  # noqa: FBT001 -- one of five takers
        if is_gone:
            self._inventory.drop_policy(found.metadata.namespace, found.metadata.name)
        else:
            self._inventory.put_policy(policy_of(found))

    def _set(self, found: PodCliqueSet, is_gone: bool) -> None:  # noqa: FBT001 -- as above
        if is_gone:
            self._inventory.drop_set(found.metadata.namespace, found.metadata.name)
        else:
            self._inventory.put_set(set_of(found))

    def _target(self, found: PodClique | PodCliqueScalingGroup, is_gone: bool) -> None:  # noqa: FBT001 -- as above
        if is_gone:
            kind = CLIQUE if isinstance(found, PodClique) else GROUP
            self._inventory.drop_target(kind, found.metadata.namespace, found.metadata.name)
            self._conflicts.forget((kind, found.metadata.namespace, found.metadata.name))
            return
        target = target_of(found)
        known = self._inventory.put_target(target)
        if known is not None:
            self._conflicts.saw(known, target, self._now())

    def _pod(self, found: Pod, is_gone: bool) -> None:  # noqa: FBT001 -- as above
        if is_gone:
            self._inventory.drop_pod(found.metadata.namespace, found.metadata.name)
        else:
            self._inventory.put_pod(pod_of(found))
