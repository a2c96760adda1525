"""What cliques and groups say of their update: from the turn of their copy on, unit by unit, to the new hashes."""

from __future__ import annotations

from dataclasses import replace

from grove_server.resources.rollout import CliqueUpdate, GroupUpdate
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup
from tests.lifecycle_cases import Json, World, admitted, clique, group, manifest


def served(version: int, *, copies: int = 1, strategy: str = "RollingRecreate") -> Json:
    """Return a set whose clique ``a`` and group have a version, and whose clique ``b`` has none."""
    spec: Json = {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}
    cliques = [clique("a", 2, 2, podSpec=spec), clique("b", 1), clique("m", 1, podSpec=spec)]
    document = manifest(cliques, [group("g", ["m"], 2, 2)], replicas=copies)
    document["spec"]["updateStrategy"] = {"type": strategy}
    return document


def running(document: Json) -> World:
    """Return a set that runs."""
    made = World(owner=admitted(document))
    made.settle()
    made.run()
    made.settle()
    return made


def of_clique(made: World, name: str = "s-0-a") -> tuple[CliqueUpdate | None, str, str]:
    """Return the progress and the hashes of a clique."""
    status = made.one(PodClique, name).status
    return status.update_progress, status.current_set_hash, status.current_pod_template_hash


def of_group(made: World, name: str = "s-0-g") -> tuple[GroupUpdate | None, str]:
    """Return the progress and the hash of a group."""
    status = made.one(PodCliqueScalingGroup, name).status
    return status.update_progress, status.current_set_hash


def one_round(made: World) -> None:
    """Let the runtime stop and start pods once and look again, a second later."""
    made.now += 1.0
    made.reap()
    made.run()
    made.settle()


def test_a_new_set_is_at_its_revision_without_an_update() -> None:
    """Hashes are there at once, progress is not."""
    made = running(served(1))
    revision = made.owner.revision
    assert of_clique(made) == (None, revision.hash, revision.clique_hashes["a"])
    assert of_clique(made, "s-0-g-1-m") == (None, revision.hash, revision.clique_hashes["m"])
    assert of_group(made) == (None, revision.hash)


def test_a_clique_selects_one_pod_after_the_other() -> None:
    """The ready pod that goes is current until its successor serves; the hashes follow at the end."""
    made = running(served(1))
    before = made.owner.revision
    first, second = (pod.metadata.name for pod in made.pods("s-0-a"))
    made.apply(served(2))
    made.settle()
    progress, set_hash, template_hash = of_clique(made)
    assert progress is not None
    assert (progress.selected, progress.completed, progress.update_ended_at) == ((first,), (), None)
    assert (progress.set_hash, progress.template_hash) == (
        made.owner.revision.hash,
        made.owner.revision.clique_hashes["a"],
    )
    assert (set_hash, template_hash) == (before.hash, before.clique_hashes["a"])
    one_round(made)
    progress, set_hash, _ = of_clique(made)
    assert progress is not None
    assert (progress.selected, progress.completed, set_hash) == ((second,), (first,), before.hash)
    one_round(made)
    progress, set_hash, template_hash = of_clique(made)
    assert progress is not None
    assert (progress.selected, progress.completed) == ((), (first, second))
    assert progress.update_ended_at == made.now
    assert (set_hash, template_hash) == (made.owner.revision.hash, made.owner.revision.clique_hashes["a"])


def test_a_group_selects_one_replica_after_the_other() -> None:
    """A group counts its cliques, names the replica that goes, and is at the revision when all are back."""
    made = running(served(1))
    before = made.owner.revision.hash
    made.apply(served(2))
    made.settle()
    progress, set_hash = of_group(made)
    assert progress is not None
    assert (progress.selected, progress.completed, set_hash) == ((0,), (), before)
    assert (progress.updated_cliques, progress.total_cliques) == (1, 2)
    one_round(made)
    progress, _ = of_group(made)
    assert progress is not None
    assert (progress.selected, progress.completed) == ((1,), (0,))
    one_round(made)
    progress, set_hash = of_group(made)
    assert progress is not None
    assert (progress.selected, progress.completed, progress.updated_cliques) == ((), (0, 1), 2)
    assert (progress.update_ended_at, set_hash) == (made.now, made.owner.revision.hash)


def test_what_does_not_change_begins_and_ends_at_once_in_its_turn() -> None:
    """An unchanged clique is at the new revision with its copy's turn; a copy that waits is at the old one."""
    made = running(served(1, copies=2))
    before = made.owner.revision.hash
    made.apply(served(2, copies=2))
    made.settle()
    progress, set_hash, _ = of_clique(made, "s-0-b")
    assert progress is not None
    assert progress.update_started_at == progress.update_ended_at
    assert set_hash == made.owner.revision.hash
    assert of_clique(made, "s-1-b")[:2] == of_clique(made, "s-1-a")[:2] == (None, before)
    assert of_group(made, "s-1-g") == (None, before)


def test_another_edit_begins_anew() -> None:
    """An edit during an update starts the progress over, towards the newest hashes."""
    made = running(served(1))
    made.apply(served(2))
    made.settle()
    one_round(made)
    made.apply(served(3))
    made.settle()
    progress, _, _ = of_clique(made)
    assert progress is not None
    assert (progress.update_started_at, progress.completed_count) == (made.now, 0)
    assert progress.set_hash == made.owner.revision.hash
    for _ in range(4):
        one_round(made)
    assert of_clique(made)[1] == of_group(made)[1] == made.owner.revision.hash


def test_under_on_delete_it_is_over_at_once_and_the_hash_follows() -> None:
    """Nothing is stopped, so there is nothing to wait for; the clique is at the revision with its last new pod."""
    made = running(served(1, strategy="OnDelete"))
    before = made.owner.revision.hash
    made.apply(served(2, strategy="OnDelete"))
    made.settle()
    progress, set_hash, _ = of_clique(made)
    assert progress is not None
    assert (progress.update_started_at, set_hash) == (progress.update_ended_at, before)
    made.change_pods(lambda _: None, made.pods("s-0-a"))
    made.settle()
    assert of_clique(made)[1] == made.owner.revision.hash
    assert of_group(made)[1] == before


def test_the_cliques_of_a_group_are_counted_anew_when_it_is_scaled() -> None:
    """An update that is over counts what there is, after a scale-out and after a scale-in."""
    made = running(served(1))
    made.apply(served(2))
    made.settle()
    for _ in range(4):
        one_round(made)
    progress, _ = of_group(made)
    assert progress is not None
    assert (progress.updated_cliques, progress.total_cliques, progress.update_ended_at is None) == (2, 2, False)
    for size in (5, 3):
        made.scale_group("s-0-g", size)
        made.settle()
        one_round(made)
        scaled, _ = of_group(made)
        assert scaled == replace(progress, updated_cliques=size, total_cliques=size)
