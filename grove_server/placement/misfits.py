"""Whether any node could ever hold a pod, were it empty and alone: what is said when a manifest arrives.

Rules: amounts count, and labels the pod asks for; what passes by itself (cordons, taints, readiness, other pods) does
not. Nothing is said of a cluster without nodes, for its nodes may be on their way.

Not here: why a gang waits now (`explain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.matching import affinity_holds, selector_holds
from grove_server.placement.nodes import NodeState
from grove_server.placement.requests import GPU_RESOURCE, PodShape, Toleration
from grove_server.placement.results import amount_text

_SHOWN_MAX: Final = 3
# Most pods fit almost any node; looking at a few of them spares looking at all.
_TRIED_FIRST: Final = 8


def misfit(cluster: Cluster, shape: PodShape) -> str:
    """Return why no node could hold one pod of a shape, as a phrase; empty if one could."""
    wanted = {**dict(shape.requests), **({GPU_RESOURCE: 1} if shape.gpu_milli else {})}
    if any(_holds(shape, wanted, state) for state in cluster.rules.states[:_TRIED_FIRST]):
        return ""
    slots = np.array([slot for slot, state in enumerate(cluster.rules.states) if state is not None], dtype=np.int64)
    if len(slots) == 0:
        return ""
    ledger = cluster.ledger
    holds = np.ones(len(slots), dtype=np.bool_)
    short = []
    for resource, amount in sorted(wanted.items()):
        row = ledger.rows.get(resource)
        there = np.zeros(len(slots), dtype=np.int64) if row is None else ledger.allocatable[row][slots]
        holds &= there >= amount
        most = int(there.max())
        if amount > most:
            short.append(f"{amount_text(resource, amount)} (at most {amount_text(resource, most)})")
    if short:
        return "no node has " + " or ".join(short[:_SHOWN_MAX])
    if not holds.any():
        amounts = ", ".join(amount_text(resource, amount) for resource, amount in sorted(wanted.items()))
        return f"no node has all of {amounts}"
    # With every taint tolerated, what is left to judge are labels.
    anywhere = replace(shape, tolerations=(Toleration(operator="Exists"),))
    fits_labels = cluster.rules.eligibility(anywhere, all_ready=True)[0][slots]
    return "" if (holds & fits_labels).any() else "no node that is large enough has the labels it asks for"


def _holds(shape: PodShape, wanted: Mapping[str, int], state: NodeState | None) -> bool:
    return (
        state is not None
        and all(state.allocatable.get(resource, 0) >= amount for resource, amount in wanted.items())
        and selector_holds(shape.node_selector, state)
        and affinity_holds(shape.affinity, state)
    )
