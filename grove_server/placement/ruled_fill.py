"""Which nodes inside a domain to take for pods that rules between pods bind.

Rules: what the quotas leave of the room on the nodes of the domain is all there is; within that the rules are those of
`choice`, tier by tier.

Not here: what the quotas leave (`ruled_counts`).
"""

from __future__ import annotations

import numpy as np

from grove_server.placement.choice import Region, Runs, fill_tiers
from grove_server.placement.counts import tree_of
from grove_server.placement.ruled_counts import RuledClass


def fill_ruled(request_class: RuledClass, region: Region, pods: int, *, is_tight: bool = False) -> Runs | None:
    """Return the nodes for pods in a region, ascending; None if the quotas leave no room for all of them."""
    layout = request_class.layout
    start, end = layout.span(*region)
    rooms = request_class.room_in(start, end, pods, is_tight=is_tight)
    if not rooms:
        return None
    trees = []
    for room in rooms:
        whole = np.zeros(len(layout.slots), dtype=np.int64)
        whole[start:end] = room
        trees.append(tree_of(layout, whole))
    return fill_tiers(layout, trees, region, pods)
