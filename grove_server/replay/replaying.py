"""One replay: the cluster as it is in the files, and what would become of the manifests on it.

Rules: the real passes and the real planner; nothing is written anywhere. Gangs go in the order of the placement loop:
by priority, base gangs before scaled gangs, minimums before surplus. A set that runs already (its pods carry its name)
is taken as replaced, as in the server's own what-if. The picture is drawn by the first topology given, else by the one
that labels tell.

Not here: reading files (`objects`, `manifests`), telling people (`report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grove_server.placement.cluster import Cluster, ClusterError
from grove_server.placement.fragmentation import (
    PROBE_GPU_COUNTS,
    SHAPES_MAX,
    Fragmentation,
    LargestGang,
    fragmentation,
    largest_gangs,
    probe,
)
from grove_server.placement.nodes import NodeState
from grove_server.placement.picture import ClusterMap, map_of
from grove_server.placement.planned import PlannedGang, gang_count, planned_gangs
from grove_server.placement.requests import PodShape
from grove_server.placement.rounds import Rounds
from grove_server.placement.stage import Stage
from grove_server.placement.stranding import Mix
from grove_server.placement.trial import Trial
from grove_server.placement.trial_answer import Surroundings, TrialAnswer
from grove_server.replay.manifests import Wanted, read_wanted
from grove_server.replay.nodes import check_topology, guess_topology, read_nodes
from grove_server.replay.objects import Findings, Objects, ReplayError
from grove_server.replay.pods import PodCounts, RunningPod, keep_apart, read_pods, seat_pods
from grove_server.resources.manifest import TopologyLevel

GANGS_MAX: Final = 20_000
"""Most gangs of one replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPicture:
    """How the cluster is used at one moment."""

    fragmentation: Fragmentation
    largest: tuple[LargestGang, ...]
    map: ClusterMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """All that a replay found; `after` is None if nothing was placed."""

    levels: tuple[TopologyLevel, ...]
    is_guessed: bool
    pods: PodCounts
    before: ClusterPicture
    answers: tuple[TrialAnswer, ...]
    after: ClusterPicture | None
    warnings: tuple[str, ...]
    findings: Findings

    @property
    def fits(self) -> bool:
        """Return whether every gang found its places."""
        return all(answer.fits for answer in self.answers)


def replay(
    objects: Objects, manifests: Sequence[Path], bindings: Sequence[Path], namespace: str, findings: Findings
) -> Replay:
    """Place manifests on a cluster from files; ReplayError if the files hold no node, or what is no manifest."""
    states = read_nodes(objects.nodes, findings)
    if not states:
        raise ReplayError("the files hold no node that can be used")
    pods, counts = read_pods(objects.pods, findings)
    guessed = guess_topology(states, findings)
    wanted = read_wanted(manifests, bindings, namespace, guessed)
    given = sorted(wanted.levels.keys() - set(wanted.guessed))
    levels = wanted.levels[given[0]] if given else guessed
    keys = tuple(level.key for level in levels)
    check_topology(states, keys, findings)
    cluster = _cluster(states)
    replaced = {(owner.metadata.namespace, owner.metadata.name) for owner in wanted.sets}
    stay = [pod for pod in pods if not _is_of(pod, replaced)]
    if len(stay) < len(pods):
        findings.add("pods of sets that are placed anew are taken away first", f"{len(pods) - len(stay)} pods")
    occupancy = seat_pods(cluster, stay, findings)
    mix = _mix(stay)
    before = _picture(cluster, keys, mix)
    stage = Stage(cluster, wanted.levels)
    keep_apart(stage.peers, stay)
    sets = {(owner.metadata.namespace, owner.metadata.name): owner for owner in wanted.sets}
    around = Surroundings(owner_of=lambda gang: sets.get((gang.metadata.namespace, gang.set_name)))
    rounds = Rounds(Trial(stage, occupancy, around))
    generation = cluster.generation
    answers = tuple(rounds.run(_planned(wanted)))
    return Replay(
        levels=levels,
        is_guessed=not given,
        warnings=tuple(wanted.warnings),
        pods=counts,
        before=before,
        answers=answers,
        after=_picture(cluster, keys, mix) if cluster.generation != generation else None,
        findings=findings,
    )


def _cluster(states: Sequence[NodeState]) -> Cluster:
    try:
        return Cluster(states)
    except ClusterError as error:
        raise ReplayError(str(error)) from error


def _planned(wanted: Wanted) -> list[PlannedGang]:
    count = sum(map(gang_count, wanted.sets))
    if count > GANGS_MAX:
        raise ReplayError(f"the manifests make {count} gangs; one replay may have {GANGS_MAX}")
    return [
        gang
        for owner in wanted.sets
        for copy in range(owner.spec.replicas or 0)
        for gang in planned_gangs(owner, copy, wanted.levels, wanted.classes, 0.0)
    ]


def _is_of(pod: RunningPod, sets: set[tuple[str, str]]) -> bool:
    return (pod.namespace, pod.set_name) in sets


def _mix(pods: Sequence[RunningPod]) -> Mix | None:
    """Return the most common shapes with GPUs among what runs; None if nothing with GPUs does."""
    counts: dict[PodShape, int] = {}
    for pod in pods:
        if pod.shape.needs_gpu:
            counts[pod.shape] = counts.get(pod.shape, 0) + 1
    common = sorted(counts.items(), key=lambda each: -each[1])[:SHAPES_MAX]
    return Mix(shapes=tuple(common)) if common else None


def _picture(cluster: Cluster, keys: tuple[str, ...], mix: Mix | None) -> ClusterPicture:
    return ClusterPicture(
        fragmentation=fragmentation(cluster, keys, mix),
        largest=largest_gangs(cluster, keys, [probe(count) for count in PROBE_GPU_COUNTS]),
        map=map_of(cluster, keys),
    )
