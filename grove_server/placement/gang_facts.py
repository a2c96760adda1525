"""What evictions have to know of a gang, read from its resources: the same for the loop and for what-ifs.

Rules: names are ``namespace/name``. Pods that leave already no longer count for their gang: they stand under a name of
their own as surplus of the same queue and priority, so that a plan takes their places first and asks nobody else to go
for what is about to be free. A surplus pod goes within the availability budget of its clique; a budget counts ready
pods, and one that does not serve may always go.

Not here: who sits where (`occupancy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from grove_server.lifecycle.budget import max_unavailable_of, room
from grove_server.placement.occupancy import PRIORITY_MAX, PRIORITY_MIN, GangFacts
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodGang

LEAVING: Final = "~"
"""No gang's name begins like this; the name under which leaving pods stand does."""


def full_name(namespace: str, name: str) -> str:
    """Return the name that is unique over namespaces."""
    return f"{namespace}/{name}"


def facts_of(gang: PodGang, queue: str) -> GangFacts:
    """Return what a gang is for evictions."""
    namespace = gang.metadata.namespace
    return GangFacts(
        name=full_name(namespace, gang.metadata.name),
        minimums=tuple((group.name, group.min_replicas) for group in gang.pod_groups),
        priority=min(max(gang.priority, PRIORITY_MIN), PRIORITY_MAX),
        queue=queue,
        base_gang=full_name(namespace, gang.base_gang) if gang.base_gang else "",
        started_at_s=gang.status.scheduled_at or 0.0,
    )


def facts_of_leaving(facts: GangFacts) -> GangFacts:
    """Return what a gang's pods count as once they leave."""
    name = f"{LEAVING}{facts.queue}/{facts.priority}"
    return GangFacts(name=name, priority=facts.priority, queue=facts.queue, is_leaving=True)


def is_leaving(gang: str) -> bool:
    """Return whether a name is that of pods which leave already."""
    return gang.startswith(LEAVING)


def surplus_budgets(
    gang: PodGang,
    owner: PodCliqueSet | None,
    clique_of: Callable[[str], PodClique | None],
    pods: Iterable[Pod],
) -> tuple[tuple[str, int], ...]:
    """Return by standalone clique of a gang how many of its pods may be taken now; () once its set is gone."""
    if owner is None:
        return ()
    templates = {clique.name: clique for clique in owner.spec.template.cliques}
    active: Mapping[str, list[Pod]] = {group.name: [] for group in gang.pod_groups}
    for pod in pods:
        if pod.is_active and pod.identity.name in active:
            active[pod.identity.name].append(pod)
    budgets = []
    for group in gang.pod_groups:
        clique = clique_of(group.name)
        if clique is None or clique.identity.group:
            continue
        template = templates.get(clique.identity.clique)
        missing = max_unavailable_of(template.rolling_update if template else None, owner.spec, clique.replicas)
        mine = active[group.name]
        ready = sum(pod.is_ready for pod in mine)
        spare = room(desired=clique.replicas, available=ready, max_unavailable=missing)
        budgets.append((group.name, spare + len(mine) - ready))
    return tuple(budgets)
