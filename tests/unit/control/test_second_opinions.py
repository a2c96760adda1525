"""Gangs that the search gives up on: the exact solver places them or proves that there is no way."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grove_server.control.second_opinions import LOST_MAX, PROVEN
from grove_server.control.solver_pool import SolverPool
from grove_server.placement import GPU_RESOURCE, Cluster, GangRequest, GroupRequest, Verdict, VerdictCode, place
from grove_server.placement.requests import CliqueRequest
from grove_server.placement.solver_program import SolverAnswer, SolverOutcome, SolverQuestion
from grove_server.placement.violations import violations
from grove_server.resources.cluster import Event, Node
from grove_server.resources.meta import Metadata, key_of
from grove_server.resources.workload import PodGang
from grove_server.telemetry import metrics
from tests.lifecycle_cases import Json, clique, group, manifest, pack
from tests.placement_cases import BLOCK, HOST, RACK
from tests.placement_instances import instance, planted_instance
from tests.planes import Plane, binding, gang_key

Patch = pytest.MonkeyPatch

HARD = 173
"""Seed of a gang that has a place, which the search does not find within its budget."""

IMPOSSIBLE = 63
"""Seed of a gang that has none, which no bound shows."""


@pytest.fixture
async def pool() -> AsyncIterator[SolverPool]:
    """Return a solver."""
    made = SolverPool(seconds_max=10.0)
    yield made
    await made.close()


@pytest.fixture
async def plane(tmp_path: Path, pool: SolverPool) -> AsyncIterator[Plane]:
    """Return a running plane with a solver."""
    made = Plane(tmp_path / "grove.db", solver=pool)
    await made.start(has_runtime=False)
    yield made
    await made.stop()


async def _set_up(plane: Plane, cluster: Cluster, request: GangRequest) -> None:
    """Give the plane the nodes of an instance and its gang, as a set of one copy."""
    await plane.put(binding("block", "rack", "host"), *(_node(cluster, name) for name in cluster.node_names()))
    await plane.apply(_document(request))


def _node(cluster: Cluster, name: str) -> Node:
    """Return a node that has what is free on one of the cluster."""
    labels = cluster.node(name).labels
    keys = {BLOCK: "block", RACK: "rack", HOST: "host"}
    free = cluster.free_of(name)
    amounts = {"cpu": f"{free['cpu']}m", "pods": str(free["pods"]), GPU_RESOURCE: str(free[GPU_RESOURCE])}
    return Node(
        metadata=Metadata(
            name=name, uid=f"node-{name}", labels={f"example.com/{keys[key]}": value for key, value in labels.items()}
        ),
        allocatable=amounts,
    )


def _document(request: GangRequest, name: str = "s") -> Json:
    cliques, groups = [], []
    for member in request.members:
        assert isinstance(member, GroupRequest)
        names = []
        for each in member.members:
            assert isinstance(each, CliqueRequest)
            amounts = {"cpu": f"{each.shape.amount('cpu')}m", GPU_RESOURCE: str(each.shape.amount(GPU_RESOURCE))}
            container = {"name": "main", "image": "registry.example/app:1", "resources": {"limits": amounts}}
            cliques.append(clique(each.name, each.minimum, each.minimum, podSpec={"containers": [container]}))
            names.append(each.name)
        groups.append(group(member.name, names, topologyConstraint=pack("rack")))
    return manifest(cliques, groups, name=name, topologyConstraint=pack("block"))


async def test_the_solver_finds_what_the_search_does_not(plane: Plane, pool: SolverPool) -> None:
    """A gang that the search gives up on gets places from the solver, with every level kept."""
    cluster, request = planted_instance(HARD, filled=0.95)
    verdict = place(cluster, request)
    assert isinstance(verdict, Verdict)
    assert verdict.code is VerdictCode.BUDGET_EXHAUSTED
    await _set_up(plane, cluster, request)
    await plane.until(lambda: all(pod.node for pod in plane.pods()) and bool(plane.pods()), "the gang is placed")
    await plane.until_quiet()
    gang = plane.one(PodGang, "s-0")
    assert gang.status.reason == ""
    assert pool.starts == 1
    decision = plane.control.placement.decision(key_of(gang))
    assert decision is not None
    assert decision.request is not None
    assert decision.outcome is not None
    # Before its pods were there, the answer kept every promise.
    free = Cluster(plane.control.placement.cluster.node(name) for name in cluster.node_names())
    assert violations(free, decision.request, decision.outcome) == []


async def test_a_proof_of_the_solver_is_said(plane: Plane) -> None:
    """A gang for which there is no way waits with a proof, and no more questions are asked about it."""
    cluster, request = instance(IMPOSSIBLE)
    verdict = place(cluster, request)
    assert isinstance(verdict, Verdict)
    assert not verdict.proof
    await _set_up(plane, cluster, request)

    def is_proven() -> bool:
        decision = plane.control.placement.decision(gang_key("s-0"))
        return decision is not None and isinstance(decision.outcome, Verdict) and decision.outcome.proof

    await plane.until(is_proven, "the gang waits with a proof")
    await plane.until_quiet()
    assert PROVEN in plane.one(PodGang, "s-0").status.message
    assert not any(pod.node for pod in plane.pods())


async def test_a_solver_killed_in_mid_search_is_asked_again(plane: Plane, pool: SolverPool) -> None:
    """The worker is killed while it searches: the gang says so, and a new worker finds its places."""
    lost = metrics.SOLVER_QUESTIONS.labels("lost")._value.get()
    cluster, request = planted_instance(50, filled=0.95)
    assert isinstance(place(cluster, request), Verdict)
    await _set_up(plane, cluster, request)
    await plane.until(lambda: pool.pid is not None, "the solver searches")
    assert pool.pid is not None
    os.kill(pool.pid, signal.SIGKILL)
    await plane.until(lambda: bool(plane.pods()) and all(pod.node for pod in plane.pods()), "the gang is placed")
    await plane.until_quiet()
    assert plane.control.problems() == {}
    assert pool.starts == 2
    assert metrics.SOLVER_QUESTIONS.labels("lost")._value.get() == lost + 1
    [told] = [event for event in plane.all(Event) if event.reason == "SolverLost"]
    assert told.involved_name == "s-0"


async def test_a_gang_that_costs_every_worker_waits(plane: Plane, monkeypatch: Patch) -> None:
    """A question that ends its worker each time is asked a few times, and again when something grew."""
    cluster, request = planted_instance(50, filled=0.95)
    is_broken = True
    ask = SolverPool.ask

    async def lost(pool: SolverPool, question: SolverQuestion) -> SolverAnswer:
        return SolverAnswer(outcome=SolverOutcome.LOST) if is_broken else await ask(pool, question)

    monkeypatch.setattr(SolverPool, "ask", lost)
    before = metrics.SOLVER_QUESTIONS.labels("lost")._value.get()
    await _set_up(plane, cluster, request)
    await plane.until(lambda: plane.control.placement.decision(gang_key("s-0")) is not None, "it is decided")
    await plane.until_quiet()
    assert metrics.SOLVER_QUESTIONS.labels("lost")._value.get() == before + LOST_MAX
    is_broken = False
    spare = plane.one(Node, cluster.node_names()[0])
    await plane.set_nodes(spare.metadata.name, unschedulable=True)
    await plane.set_nodes(spare.metadata.name, unschedulable=False)
    await plane.until(lambda: all(pod.node for pod in plane.pods()), "the gang is placed")


async def test_an_answer_that_was_overtaken_is_not_taken(plane: Plane) -> None:
    """A place that lost a node while the solver searched is never bound; the gang waits or is placed elsewhere."""
    cluster, request = planted_instance(9, filled=0.95)
    assert isinstance(place(cluster, request), Verdict)
    await _set_up(plane, cluster, request)
    await plane.until(lambda: not plane.control.placement.desk.opinions.is_idle, "the solver searches")
    gone = [name for name in cluster.node_names()[::2] if cluster.free_of(name)[GPU_RESOURCE]]
    await plane.set_nodes(*gone, unschedulable=True)
    await plane.until_quiet()
    assert not {pod.node for pod in plane.pods() if pod.node} & set(gone)
    assert len({bool(pod.node) for pod in plane.pods()}) == 1
