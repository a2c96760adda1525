"""Whatever is edited and whatever pods do: pods of one revision are of one version, and in the end there is one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grove_server.resources.labels import SET_REVISION
from grove_server.resources.revision import restart_hash
from tests.lifecycle_cases import Json, World, admitted, clique, group, manifest

PARTS = ("a", "b", "c")
SIZES = {"a": 3, "b": 1, "c": 2}
EDITS = st.tuples(st.sampled_from(PARTS), st.sampled_from(["image", "labels"]), st.integers(0, 2))
STEPS = st.one_of(
    st.tuples(st.just("edit"), st.lists(EDITS, min_size=1, max_size=3)),
    st.tuples(st.just("run"), st.integers(1, 6)),
    st.tuples(st.just("lose"), st.integers(0, 20)),
    st.tuples(st.just("reap"), st.just(0)),
)


def document(strategy: str, chosen: dict[tuple[str, str], int]) -> Json:
    """Return a set with a clique and a group, at the versions *chosen*."""
    cliques = [
        clique(
            name,
            SIZES[name],
            1,
            labels={"v": str(chosen.get((name, "labels"), 0))},
            podSpec={"containers": [{"name": "main", "image": f"app:{chosen.get((name, 'image'), 0)}"}]},
        )
        for name in PARTS
    ]
    made = manifest(cliques, [group("g", ["b", "c"], 3, 1)], replicas=1)
    made["spec"]["updateStrategy"] = {"type": strategy}
    return made


class Published:
    """Remembers what each revision of the set runs, and holds pods to what they say."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._versions: dict[tuple[str, str], str] = {}
        self.learn()

    def learn(self) -> None:
        """Note the present revision."""
        owner = self._world.owner
        for drawn in owner.spec.template.cliques:
            self._versions[owner.revision.hash, drawn.name] = restart_hash(drawn, None)

    def check(self) -> None:
        """Every pod runs what the revision on its label ran."""
        for pod in self._world.pods():
            said = pod.metadata.labels[SET_REVISION]
            assert pod.template.restart_hash == self._versions[said, pod.identity.clique], pod.metadata.name


@given(st.sampled_from(["RollingRecreate", "OnDelete", "Coherent"]), st.lists(STEPS, max_size=12))
def test_pods_of_one_revision_are_of_one_version(strategy: str, steps: list[tuple[str, object]]) -> None:
    """After every pass each pod's label names a revision that runs just that; at the end all are at the last one."""
    chosen: dict[tuple[str, str], int] = {}
    world = World(owner=admitted(document(strategy, chosen)))
    world.settle()
    world.run()
    world.settle()
    published = Published(world)
    for what, detail in steps:
        if what == "edit":
            assert isinstance(detail, list)
            chosen.update({(name, part): version for name, part, version in detail})
            world.apply(document(strategy, chosen))
            published.learn()
        elif what == "run":
            assert isinstance(detail, int)
            world.run([pod for pod in world.pods() if not pod.is_ready][:detail])
        elif what == "lose":
            assert isinstance(detail, int)
            world.change_pods(lambda _: None, world.pods()[detail : detail + 1])
        else:
            world.reap()
        world.settle()
        published.check()
    for _ in range(60):
        if {pod.metadata.labels[SET_REVISION] for pod in world.pods()} == {world.owner.revision.hash}:
            break
        if strategy == "OnDelete":
            old = [pod for pod in world.pods() if pod.metadata.labels[SET_REVISION] != world.owner.revision.hash]
            world.change_pods(lambda _: None, old[:2])
            world.settle()
            published.check()
        world.reap()
        world.run()
        world.settle()
        published.check()
    assert {pod.metadata.labels[SET_REVISION] for pod in world.pods()} == {world.owner.revision.hash}
