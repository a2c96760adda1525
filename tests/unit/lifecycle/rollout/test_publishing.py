"""Pods say which revision of the set they run; routers that pair equal ones never mix versions and find partners."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from grove_server.resources.labels import SET_REVISION
from grove_server.resources.workload import Pod, PodClique
from tests.lifecycle_cases import Json, World, admitted, clique, group, manifest


def image(version: int) -> Json:
    """Return a pod spec of one version."""
    return {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}


def pair(version: int, *, labels: Json | None = None, copies: int = 1) -> Json:
    """Return a set whose prefill has a version, and whose decode has none; both have four units."""
    cliques = [
        clique("p", 4, 1, podSpec=image(version)),
        clique("d", 4, 1, labels=labels or {}),
        clique("m", 1, podSpec=image(0)),
    ]
    return manifest(cliques, [group("g", ["m"], 4, 1)], replicas=copies)


def running(document: Json) -> World:
    """Return a set that runs."""
    made = World(owner=admitted(document))
    made.settle()
    made.run()
    made.settle()
    return made


def revision_of(pod: Pod) -> str:
    """Return the set's revision that a pod says it runs."""
    return pod.metadata.labels[SET_REVISION]


def shares(made: World, *, copy: int = 0) -> dict[str, int]:
    """Return, by clique template, how many pods of a copy have the present revision."""
    present = made.owner.revision.hash
    pods = [pod for pod in made.pods() if pod.identity.copy == copy]
    return dict(Counter(pod.identity.clique for pod in pods if revision_of(pod) == present))


def test_all_of_a_new_set_has_its_revision() -> None:
    """Cliques and pods of every part carry the generation hash of the set."""
    made = running(pair(1))
    present = made.owner.status.current_generation_hash
    assert {revision_of(pod) for pod in made.pods()} == {present}
    assert {c.metadata.labels[SET_REVISION] for c in made.of(PodClique)} == {present}


def test_parts_that_do_not_change_follow_in_proportion() -> None:
    """For each new prefill that serves, one decode and one group replica take the revision, without a restart."""
    made = running(pair(1))
    kept = {pod.metadata.uid for pod in made.pods() if pod.identity.clique != "p"}
    made.apply(pair(2))
    made.settle()
    assert shares(made) == {"p": 1}
    for count in (1, 2):
        made.run([pod for pod in made.pods("s-0-p") if not pod.is_ready])
        made.reap()
        made.settle()
        assert shares(made) == {"p": count + 1, "d": count, "m": count}
    made.run()
    made.reap()
    made.settle()
    # The last old one is on its way out: nobody has to be left for it.
    assert shares(made) == {"p": 4, "d": 4, "m": 4}
    assert {pod.metadata.uid for pod in made.pods() if pod.identity.clique != "p"} == kept
    assert {c.metadata.labels[SET_REVISION] for c in made.of(PodClique)} == {made.owner.revision.hash}


def test_a_copy_that_waits_keeps_its_revision() -> None:
    """As long as a copy has not had its turn, all of it belongs to the old revision, replacements too."""
    made = running(pair(1, copies=2))
    before = made.owner.revision.hash
    made.apply(pair(2, copies=2))
    made.settle()
    made.change_pods(lambda _: None, made.pods("s-1-d")[:1] + made.pods("s-1-g-3-m"))
    made.settle()
    assert {revision_of(pod) for pod in made.pods() if pod.identity.copy == 1} == {before}
    assert len(made.pods()) == 24


def test_a_change_of_labels_moves_all_at_once() -> None:
    """Without anything to replace every pod takes the new revision where it is."""
    made = running(pair(1))
    before = {pod.metadata.uid for pod in made.pods()}
    made.apply(pair(1, labels={"tier": "x"}))
    made.settle()
    assert {revision_of(pod) for pod in made.pods()} == {made.owner.revision.hash}
    assert {pod.metadata.uid for pod in made.pods()} == before


def test_labels_change_at_once_beside_an_image_and_the_revision_in_proportion() -> None:
    """A decode whose labels are edited beside the image of prefill gets them now, and the revision in its turn."""
    made = running(pair(1))
    made.apply(pair(2, labels={"tier": "x"}))
    made.settle()
    assert {pod.metadata.labels["tier"] for pod in made.pods("s-0-d")} == {"x"}
    assert shares(made) == {"p": 1}


def test_under_on_delete_the_rest_follows_whoever_is_replaced() -> None:
    """Each prefill that a person deletes takes a decode and a group replica along."""
    document = pair(2)
    document["spec"]["updateStrategy"] = {"type": "OnDelete"}
    first = pair(1)
    first["spec"]["updateStrategy"] = {"type": "OnDelete"}
    made = running(first)
    made.apply(document)
    made.settle()
    assert shares(made) == {}
    made.change_pods(lambda _: None, made.pods("s-0-p")[:2])
    made.settle()
    made.run()
    made.settle()
    assert shares(made) == {"p": 2, "d": 2, "m": 2}


def test_rows_from_before_there_was_the_label_get_it() -> None:
    """What an older server left without the label says its revision after one pass."""
    made = running(pair(1))
    rows: list[PodClique | Pod] = [*made.of(PodClique), *made.of(Pod)]
    for row in rows:
        labels = {key: value for key, value in row.metadata.labels.items() if key != SET_REVISION}
        made.put(replace(row, metadata=replace(row.metadata, labels=labels)))
    made.settle()
    assert {revision_of(pod) for pod in made.pods()} == {made.owner.revision.hash}
