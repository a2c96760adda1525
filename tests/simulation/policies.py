"""How users want their sets to live, drawn from a seed: start order, updates, budgets, gang termination, drains.

Times are short, so that a run of minutes meets what takes hours in life: deadlines that pass, clocks that run out.
Everything drawn passes admission, and everything can in principle work in the end.
"""

from __future__ import annotations

import random
from typing import Any, Final

from grove_server.resources.labels import DRAIN_TIMEOUT, STUCK_FORCE, STUCK_TERMINATING_POLICY, STUCK_WAIT
from grove_server.resources.manifest import COHERENT, ON_DELETE, ROLLING_RECREATE, STARTUP_EXPLICIT, STARTUP_IN_ORDER

Json = dict[str, Any]

# What may be missing, and what may be added.
_BUDGETS: Final = ((1, 0), (1, 1), (2, 0), (0, 1), (0, "50%"), ("25%", "25%"), ("50%", 0), (3, 2))
_MISSING_UNDER_COHERENT: Final = (1, 2, "25%", "100%")
_DELAYS: Final = ("2s", "15s", "60s", "never")


def add_policies(rng: random.Random, document: Json) -> None:
    """Say how a new set starts, is updated, recycled and drained; or leave out some of it, or all."""
    template = document["spec"]["template"]
    _add_start_order(rng, template)
    if rng.random() < 0.5:
        template["terminationDelay"] = rng.choice(_DELAYS)
    for group in template["podCliqueScalingGroups"]:
        if rng.random() < 0.3:
            group["terminationDelay"] = rng.choice(_DELAYS)
    annotations: Json = {}
    if rng.random() < 0.3:
        annotations[STUCK_TERMINATING_POLICY] = rng.choice((STUCK_FORCE, STUCK_WAIT))
    if rng.random() < 0.4:
        annotations[DRAIN_TIMEOUT] = rng.choice(("0s", "1s", "8s", "60s"))
    if annotations:
        document["metadata"]["annotations"] = annotations
    draw_strategy(rng, document)


def draw_strategy(rng: random.Random, document: Json) -> None:
    """Say how a set is updated, in place of what it said before."""
    spec = document["spec"]
    template = spec["template"]
    units = [*_standalone(template), *template["podCliqueScalingGroups"]]
    for unit in units:
        unit.pop("rollingUpdate", None)
    spec.pop("updateStrategy", None)
    if rng.random() < 0.2:
        return
    kind = rng.choice((ROLLING_RECREATE, ROLLING_RECREATE, ROLLING_RECREATE, COHERENT, COHERENT, ON_DELETE))
    strategy: Json = {"type": kind}
    rolling: Json = _budget(rng, kind, 1) if rng.random() < 0.5 else {}
    if rng.random() < 0.4:
        rolling["progressDeadline"] = rng.choice(("5s", "20s", "90s"))
        rolling["autoRollback"] = rng.random() < 0.6
    if rolling:
        strategy["rollingUpdate"] = rolling
    spec["updateStrategy"] = strategy
    for unit in units:
        if rng.random() < 0.4:
            minimum = unit["spec"].get("minAvailable") if "spec" in unit else unit["minAvailable"]
            unit["rollingUpdate"] = _budget(rng, kind, minimum or 3)


def redraw_annotations(rng: random.Random, document: Json) -> None:
    """Change what a set says of drains and of pods that do not stop."""
    annotations = document["metadata"].setdefault("annotations", {})
    annotations[STUCK_TERMINATING_POLICY] = rng.choice((STUCK_FORCE, STUCK_WAIT))
    annotations[DRAIN_TIMEOUT] = rng.choice(("0s", "1s", "8s", "60s"))


def redraw_delay(rng: random.Random, document: Json) -> None:
    """Change when broken units of a set are recycled."""
    document["spec"]["template"]["terminationDelay"] = rng.choice(_DELAYS)


def _add_start_order(rng: random.Random, template: Json) -> None:
    order = rng.choice(("", "", STARTUP_IN_ORDER, STARTUP_EXPLICIT))
    if not order:
        return
    template["cliqueStartupType"] = order
    if order == STARTUP_IN_ORDER:
        return
    names = [clique["name"] for clique in template["cliques"]]
    # Whom a clique may wait for does not follow the order of the template; a shuffled order has no cycles.
    rng.shuffle(names)
    for clique in template["cliques"]:
        earlier = names[: names.index(clique["name"])]
        if earlier and rng.random() < 0.7:
            clique["spec"]["startsAfter"] = sorted(rng.sample(earlier, rng.randint(1, min(2, len(earlier)))))


def _standalone(template: Json) -> list[Json]:
    members = {name for group in template["podCliqueScalingGroups"] for name in group["cliqueNames"]}
    return [clique for clique in template["cliques"] if clique["name"] not in members]


def _budget(rng: random.Random, kind: str, minimum: int) -> Json:
    if kind == COHERENT:
        missing = rng.choice(_MISSING_UNDER_COHERENT)
        return {"maxUnavailable": max(missing, minimum) if isinstance(missing, int) else missing}
    unavailable, surge = rng.choice(_BUDGETS)
    return {"maxUnavailable": unavailable, "maxSurge": surge}
