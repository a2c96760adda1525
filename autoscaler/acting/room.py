"""Whether there is room for more replicas: asked of the placement, before anything is scaled.

The question is a set of its own that has just the replicas that would come, with the labels, the priority and the
constraints of the real one. Where a gang would get places by preemption, that is room. What binds the new replicas to
those that run (a whole set in one rack) is not asked: then placement leaves them pending, and the unschedulable
timeout speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from autoscaler.acting.records import SetSeen
from grove.v1.placement_pb2 import SimulatedGang
from grove_client import GroveClient, to_object
from grove_server.resources.scaling_policy import RoleSpec

WANTS_MAX: Final = 32
REPLICAS_ASKED_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """More replicas of a role."""

    seen: SetSeen
    role: RoleSpec
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many of the replicas would get places, and what is missing for the rest."""

    replicas: int
    missing: str = ""


async def ask_room(client: GroveClient, wants: Sequence[Want]) -> list[Room]:
    """Return the room for each of at most WANTS_MAX wants, one after the other as they are given. GroveError."""
    assert len(wants) <= WANTS_MAX, "the caller asks for so many at a time"
    documents = [orjson.dumps(_question(want, number)).decode() for number, want in enumerate(wants)]
    answer = await client.simulate("\n---\n".join(documents))
    gangs: dict[tuple[str, str], list[SimulatedGang]] = {}
    for gang in answer.gangs:
        gangs.setdefault((gang.namespace, gang.pod_clique_set), []).append(gang)
    return [_room(want, gangs.get((want.seen.namespace, _name(number)), [])) for number, want in enumerate(wants)]


def _name(number: int) -> str:
    return f"room-{number}"


def _question(want: Want, number: int) -> dict[str, Any]:
    whole: Any = to_object(want.seen.message)
    template = whole["spec"]["template"]
    count = min(want.replicas, REPLICAS_ASKED_MAX)
    group_name = want.role.pod_clique_scaling_group
    kept: dict[str, Any] = {
        key: template[key] for key in ("priorityClassName", "topologyConstraint") if key in template
    }
    if group_name is None:
        kept["cliques"] = [
            _clique(clique, {"replicas": count, "minAvailable": 1})
            for clique in template["cliques"]
            if clique["name"] == want.role.pod_clique
        ]
    else:
        group = next(each for each in template["podCliqueScalingGroups"] if each["name"] == group_name)
        kept["cliques"] = [_clique(each, {}) for each in template["cliques"] if each["name"] in group["cliqueNames"]]
        bare = {key: value for key, value in group.items() if key != "scaleConfig"}
        kept["podCliqueScalingGroups"] = [{**bare, "replicas": count, "minAvailable": 1}]
    metadata = {key: whole["metadata"][key] for key in ("labels", "annotations") if key in whole["metadata"]}
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {**metadata, "name": _name(number), "namespace": want.seen.namespace},
        "spec": {"replicas": 1, "template": kept},
    }


def _clique(clique: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Return a clique without what does not matter for places, or names others."""
    spec = {key: value for key, value in clique["spec"].items() if key not in ("startsAfter", "autoScalingConfig")}
    return {**clique, "spec": {**spec, **sizes}}


def _room(want: Want, gangs: Sequence[SimulatedGang]) -> Room:
    placed = [gang for gang in gangs if gang.fits or gang.evictions]
    if want.role.pod_clique_scaling_group is not None:
        found = len(placed)
    else:
        found = sum(1 + gang.surplus_pod_count_placed for gang in placed)
    if want.replicas > REPLICAS_ASKED_MAX and found >= REPLICAS_ASKED_MAX:
        return Room(replicas=want.replicas)
    short = [gang.explanation.sentence for gang in gangs if gang not in placed and gang.explanation.sentence]
    return Room(replicas=min(found, want.replicas), missing=short[0] if short else "")
