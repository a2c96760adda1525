"""Steering updates through gRPC: pause, resume, undo, restart, history."""

from __future__ import annotations

from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.control.revisions import kept_revisions
from grove_server.lifecycle.rollout.revisions import keep_revision
from grove_server.resources.manifest import RollingUpdate
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Put
from tests.rpc.harness import TIMEOUT_S, Harness, refused, sample_set


def stored(rpc: Harness) -> PodCliqueSet:
    """Return the set."""
    owner = rpc.store.read().get(PodCliqueSet, "default", "demo")
    assert owner is not None
    return owner


async def apply(rpc: Harness, image: str) -> None:
    """Apply the set with an image, and keep its revision as the loop does when it begins to use it."""
    await rpc.apply(image=image)
    owner = stored(rpc)
    changes = keep_revision(owner, kept_revisions(rpc.store.read(), owner.metadata.uid), 1.0, works=True)
    assert changes.put is not None
    await rpc.store.commit([Put(changes.put, changes.put.resource_version)], cause="test")


async def test_pause_and_resume(rpc: Harness) -> None:
    """Both say whether they changed anything, and the status shows since when a set rests."""
    await rpc.apply()
    pause = pb.PodCliqueSetServicePauseRolloutRequest(name="demo")
    first = await rpc.sets.PauseRollout(pause, timeout=TIMEOUT_S)
    assert first.changed
    assert first.pod_clique_set.status.paused_at
    assert not (await rpc.sets.PauseRollout(pause, timeout=TIMEOUT_S)).changed
    resume = pb.PodCliqueSetServiceResumeRolloutRequest(name="demo")
    assert (await rpc.sets.ResumeRollout(resume, timeout=TIMEOUT_S)).changed
    assert not (await rpc.sets.ResumeRollout(resume, timeout=TIMEOUT_S)).changed
    assert stored(rpc).paused_at is None


async def test_history_and_undo(rpc: Harness) -> None:
    """The history lists what ran, and undo goes back to the one before or to a number; sizes stay."""
    await apply(rpc, "image:1")
    first = stored(rpc).revision.hash
    await apply(rpc, "image:2")
    ask = pb.PodCliqueSetServiceListRevisionsRequest(name="demo")
    revisions = (await rpc.sets.ListRevisions(ask, timeout=TIMEOUT_S)).revisions
    assert [(r.number, r.is_current) for r in revisions] == [(1, False), (2, True)]
    assert set(revisions[1].images.values()) == {"image:2"}
    undo = pb.PodCliqueSetServiceUndoRolloutRequest(name="demo")
    assert (await rpc.sets.UndoRollout(undo, timeout=TIMEOUT_S)).changed
    assert stored(rpc).revision.hash == first
    undo = pb.PodCliqueSetServiceUndoRolloutRequest(name="demo", to_revision=1)
    assert not (await rpc.sets.UndoRollout(undo, timeout=TIMEOUT_S)).changed
    undo = pb.PodCliqueSetServiceUndoRolloutRequest(name="demo", to_revision=7)
    assert (await refused(rpc.sets.UndoRollout(undo, timeout=TIMEOUT_S))).reason == "NOT_FOUND"
    undo = pb.PodCliqueSetServiceUndoRolloutRequest(name="demo", to_revision=-1)
    assert (await refused(rpc.sets.UndoRollout(undo, timeout=TIMEOUT_S))).reason == "INVALID_REQUEST"


async def test_restart(rpc: Harness) -> None:
    """A restart is a new revision with the time of the call."""
    await rpc.apply()
    before = stored(rpc).revision.hash
    request = pb.PodCliqueSetServiceRestartRolloutRequest(name="demo")
    await rpc.sets.RestartRollout(request, timeout=TIMEOUT_S)
    owner = stored(rpc)
    assert owner.revision.hash != before
    assert owner.spec.template.cliques[0].annotations["kubectl.kubernetes.io/restartedAt"].startswith("2027-")


async def test_budgets_come_back_as_they_were_written(rpc: Harness) -> None:
    """Whole numbers stay whole, shares stay text, and what is printed can be applied again."""
    request = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set())
    strategy = request.pod_clique_set.spec.update_strategy
    strategy.rolling_update.max_unavailable.number_value = 3
    strategy.rolling_update.max_surge.string_value = "25%"
    strategy.rolling_update.progress_deadline = "10m"
    answer = await rpc.sets.Apply(request, timeout=TIMEOUT_S)
    spec = stored(rpc).spec.update_strategy
    assert spec is not None
    assert spec.rolling_update == RollingUpdate(max_unavailable=3, max_surge="25%", progress_deadline="10m")
    again = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=answer.pod_clique_set)
    assert (await rpc.sets.Apply(again, timeout=TIMEOUT_S)).action == "unchanged"


async def test_steering_what_is_not_there(rpc: Harness) -> None:
    """Each call refuses a set that does not exist."""
    for call in (
        rpc.sets.PauseRollout(pb.PodCliqueSetServicePauseRolloutRequest(name="none"), timeout=TIMEOUT_S),
        rpc.sets.ResumeRollout(pb.PodCliqueSetServiceResumeRolloutRequest(name="none"), timeout=TIMEOUT_S),
        rpc.sets.UndoRollout(pb.PodCliqueSetServiceUndoRolloutRequest(name="none"), timeout=TIMEOUT_S),
        rpc.sets.RestartRollout(pb.PodCliqueSetServiceRestartRolloutRequest(name="none"), timeout=TIMEOUT_S),
        rpc.sets.ListRevisions(pb.PodCliqueSetServiceListRevisionsRequest(name="none"), timeout=TIMEOUT_S),
    ):
        assert (await refused(call)).reason == "NOT_FOUND"
