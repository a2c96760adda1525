"""Kept revisions: which there are, going back, starting anew, and an update that is stuck."""

from __future__ import annotations

from dataclasses import replace

from grove_server.lifecycle.rollout.deadline import goes_back, progressing
from grove_server.lifecycle.rollout.progress import advance
from grove_server.lifecycle.rollout.revisions import (
    keep_revision,
    proven_before,
    restarted,
    returned_to,
    revision_before,
)
from grove_server.resources.rollout import CHANGE_CAUSE, RESTARTED_AT, REVISIONS_KEPT, SetRevision
from grove_server.resources.workload import PodCliqueSet
from tests.lifecycle_cases import Json, World, admitted, clique, manifest


def of_image(version: int, *, replicas: int = 2, **strategy: object) -> Json:
    """Return a set of one clique; *strategy* goes into rollingUpdate."""
    spec = {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}
    document = manifest([clique("a", replicas, 1, podSpec=spec, labels={"v": str(version)})])
    document["spec"]["updateStrategy"] = {"type": "RollingRecreate", "rollingUpdate": strategy}
    return document


class Kept:
    """The revisions of one set, as a store would hold them."""

    def __init__(self) -> None:
        self.rows: dict[str, SetRevision] = {}

    def use(self, owner: PodCliqueSet, *, works: bool = True) -> None:
        """Let *owner* use its revision, and then work with it."""
        for _ in range(2):
            changes = keep_revision(owner, list(self.rows.values()), 1.0, works=works)
            for revision in changes.deletes:
                del self.rows[revision.hash]
            if changes.put is not None:
                self.rows[changes.put.hash] = changes.put

    def numbers(self) -> list[int]:
        """Return the numbers kept."""
        return sorted(revision.number for revision in self.rows.values())


def test_ten_revisions_are_kept() -> None:
    """Numbers grow; beyond ten the oldest go; a revision that comes back gets the next number."""
    kept = Kept()
    owner = None
    for version in range(1, REVISIONS_KEPT + 3):
        owner = admitted(of_image(version), owner)
        kept.use(owner)
    assert kept.numbers() == list(range(3, REVISIONS_KEPT + 3))
    kept.use(admitted(of_image(5), owner))
    assert kept.numbers()[-1] == REVISIONS_KEPT + 3
    assert len(kept.rows) == REVISIONS_KEPT


def test_the_last_that_worked_is_kept() -> None:
    """However many edits never worked, the revision that did stays."""
    kept = Kept()
    owner = admitted(of_image(1))
    kept.use(owner)
    good = owner.revision.hash
    for version in range(2, 2 * REVISIONS_KEPT):
        owner = admitted(of_image(version), owner)
        kept.use(owner, works=False)
    assert good in kept.rows
    assert len(kept.rows) == REVISIONS_KEPT
    found = proven_before(owner, list(kept.rows.values()))
    assert found is not None
    assert found.hash == good


def test_undo_takes_the_revision_and_leaves_sizes() -> None:
    """Going back restores labels and pod specs, keeps the live sizes, and has the hash of the revision."""
    kept = Kept()
    first = admitted(of_image(1))
    kept.use(first)
    second = admitted(of_image(2, replicas=5), first)
    kept.use(second)
    revision = revision_before(second, list(kept.rows.values()))
    assert revision is not None
    back = returned_to(second, revision, 9.0)
    assert back.revision == first.revision
    assert back.spec.template.cliques[0].spec.replicas == 5
    assert back.spec.template.cliques[0].labels == {"v": "1"}
    assert back.metadata.generation == second.metadata.generation + 1
    assert returned_to(back, revision, 9.0) is back


def test_a_revision_that_comes_back_keeps_its_cause() -> None:
    """Going back takes the cause of that revision along, or takes it away, for the set and in the history."""
    for cause in ("first", ""):
        kept = Kept()
        documents = [of_image(1), of_image(2)]
        for document, said in zip(documents, (cause, "second"), strict=True):
            document["metadata"]["annotations"] = {"x": "y"} | ({CHANGE_CAUSE: said} if said else {})
        first = admitted(documents[0])
        kept.use(first)
        second = admitted(documents[1], first)
        kept.use(second)
        back = returned_to(second, kept.rows[first.revision.hash], 9.0, is_automatic=True)
        assert back.metadata.annotations == first.metadata.annotations
        kept.use(back)
        assert {row.hash: row.change_cause for row in kept.rows.values()} == {
            first.revision.hash: cause,
            second.revision.hash: "second",
        }


def test_a_restart_is_not_undone_by_applying_the_manifest_again() -> None:
    """A manifest that says nothing of restarts leaves the last one as it is; one that does has its way."""
    owner = admitted(of_image(1))
    again = restarted(owner, "2027-01-15T08:00:00Z", 5.0)
    assert admitted(of_image(1), again) == again
    edited = admitted(of_image(2), again).spec.template.cliques[0]
    assert edited.annotations == {RESTARTED_AT: "2027-01-15T08:00:00Z"}
    document = of_image(1)
    document["spec"]["template"]["cliques"][0]["annotations"] = {RESTARTED_AT: "mine"}
    assert admitted(document, again).spec.template.cliques[0].annotations == {RESTARTED_AT: "mine"}


def test_a_restart_changes_every_revision() -> None:
    """A restart changes the hash of every clique by an annotation."""
    owner = admitted(of_image(1))
    again = restarted(owner, "2027-01-15T08:00:00Z", 5.0)
    assert again.revision.hash != owner.revision.hash
    assert again.spec.template.cliques[0].annotations["kubectl.kubernetes.io/restartedAt"] == "2027-01-15T08:00:00Z"


def test_a_stuck_update_says_so_and_goes_back_once() -> None:
    """After the deadline without progress the condition is False; the set goes back, and not a second time."""
    made = World(owner=admitted(of_image(1, progressDeadline="60s", autoRollback=True)))
    made.settle()
    made.run()
    made.settle()
    made.apply(of_image(2, progressDeadline="60s", autoRollback=True))
    made.settle()
    assert condition_of(made.owner, made.now) == ("True", "UpdateInProgress")
    made.now += 61
    progress = made.owner.status.update_progress
    assert condition_of(made.owner, made.now) == ("False", "ProgressDeadlineExceeded")
    assert goes_back(made.owner, progress, made.now)
    assert not goes_back(replace(made.owner, rolled_back_from="x"), progress, made.now)
    assert not goes_back(replace(made.owner, paused_at=made.now), progress, made.now)
    assert not goes_back(replace(made.owner, resumed_at=made.now), progress, made.now)
    made.reap()
    made.run()
    made.settle()
    assert not goes_back(made.owner, advance(made.owner, made.totals, now=made.now).progress, made.now)


def condition_of(owner: PodCliqueSet, now: float) -> tuple[str, str]:
    """Return status and reason of Progressing."""
    found = progressing(owner, owner.status.update_progress, 0, now)
    assert found is not None
    return found.status, found.reason
