"""Replacements go back to the places of their predecessors: whether to wait for one.

A predecessor that was asked to stop a moment ago may be gone in another moment, and its place is the best that its
successor can have: warm caches and weights, and the rest of its gang near by. It is waited for so long and no longer,
since many pods take as long as their grace period. Nobody waits for places on nodes that are lost, cordoned or drained.
"""

from __future__ import annotations

from typing import Final

from grove_server.control.decisions import Holdings
from grove_server.control.indexes import PODS_BY_GANG
from grove_server.placement.gangs import GangScene
from grove_server.placement.old_places import has_room, may_run
from grove_server.resources.meta import key_of
from grove_server.store.interface import Reader

PLACE_WAIT_S: Final = 0.25


def wait_s(reader: Reader, holdings: Holdings, scene: GangScene, now: float) -> float:
    """Return for how long a gang's waiting pods should wait for their predecessors to go; 0 if for none.

    A predecessor that stops for longer already than pods are waited for, or since a time to come, is not waited for.
    """
    shapes = {
        pod.previous_node: scene.shape_of(pod.template)
        for waiting in scene.pods.unbound.values()
        for pod in waiting
        if pod.previous_node
    }
    if not shapes:
        return 0.0
    longest_s = 0.0
    for pod in reader.indexed(PODS_BY_GANG, (scene.gang.metadata.namespace, scene.gang.metadata.name)):
        asked_at = pod.metadata.deleted_at
        if asked_at is None or pod.node not in shapes or key_of(pod) not in holdings:
            continue
        left_s = asked_at + PLACE_WAIT_S - now
        shape, cluster = shapes[pod.node], holdings.cluster
        if longest_s < left_s <= PLACE_WAIT_S and may_run(cluster, shape, pod.node):
            longest_s = longest_s if has_room(cluster, shape, pod.node) else left_s
    return longest_s
