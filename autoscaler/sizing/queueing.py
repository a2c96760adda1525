"""How long requests wait at a number of servers: Erlang's C with Allen and Cunneen's correction. Pure.

M/M/c gives the chance to wait; the squared coefficients of variation of arrivals and service (Allen and Cunneen, 1978)
stretch the wait, and its tail is taken as exponential. Good for the sizes that matter here; not for a load near 1.
"""

from __future__ import annotations

import math


def servers_for(
    *, arrivals_per_s: float, service_s: float, wait_s: float, tail: float, variation: float, most: int
) -> int:
    """Return the least number of servers at which at most a share *tail* of requests waits longer than *wait_s*.

    *variation* is the mean of both squared coefficients of variation. *most* is the answer where nothing less does.
    """
    load = arrivals_per_s * service_s
    if load <= 0:
        return 1
    # Erlang's B by its recursion, then C from B.
    blocked, servers = 1.0, 0
    while servers < most:
        servers += 1
        blocked = load * blocked / (servers + load * blocked)
        if servers <= load:
            continue
        share = load / servers
        waits = blocked / (1.0 - share * (1.0 - blocked))
        if waits <= tail:
            return servers
        drain_per_s = (servers - load) / service_s
        if math.log(waits / tail) * variation / drain_per_s <= wait_s:
            return servers
    return most
