"""Whom scale-in takes first among the pods of one clique.

Grove's order (design note on scale-in: what does least goes first), with the load that routers report in front of age:
no node, not running, not ready, of an old revision, least loaded, youngest. Groups need no order of their own: their
highest indices go.
"""

from __future__ import annotations

from collections.abc import Mapping

from grove_server.resources.workload import Pod, PodPhase

_ORDER_OF_PHASES = {PodPhase.PENDING: 0, PodPhase.RUNNING: 1}


def victim_order(
    pod: Pod, template_hash: str, loads: Mapping[str, float]
) -> tuple[bool, int, bool, bool, float, float, str]:
    """Return the sort key of scale-in, first victim first.

    *template_hash* is the revision that stays; *loads* are reported requests in flight by pod name, and a pod that no
    router reports has none. Ties go by name.
    """
    return (
        pod.node != "",
        _ORDER_OF_PHASES.get(pod.phase, 0),
        pod.ready_at is not None,
        pod.template.hash == template_hash,
        loads.get(pod.metadata.name, 0.0),
        -pod.metadata.created_at,
        pod.metadata.name,
    )
