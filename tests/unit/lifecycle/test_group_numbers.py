"""GROVE_PCSG_POD_INDEX: the template's order, and no number twice among living pods, whatever is resized."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grove_server.lifecycle.environment import GROUP_POD_INDEX, plain_variables
from tests.lifecycle_cases import Json, World, admitted, clique, group, manifest


def served(leaders: int = 1, workers: int = 2) -> Json:
    """Return a set of one group with leaders and workers."""
    cliques = [clique("l", leaders, 1), clique("w", workers, 1)]
    return manifest(cliques, [group("g", ["l", "w"], 1, 1)])


def running(document: Json) -> World:
    """Return a set that runs."""
    made = World(owner=admitted(document))
    made.settle()
    made.run()
    made.settle()
    return made


def numbers(made: World, name: str = "") -> list[int]:
    """Return what the living pods of the group replica (of one clique) find in their environment, by clique, index."""
    return [
        int(plain_variables(pod.identity, "default", pod.index, pod.group_index)[GROUP_POD_INDEX])
        for pod in made.pods(name)
    ]


def test_the_template_gives_the_numbers() -> None:
    """A leader is 0 and its workers follow."""
    assert numbers(running(served())) == [0, 1, 2]


def test_pods_beyond_the_template_are_numbered_beyond_it() -> None:
    """A leader and a worker that are added by scale calls take the numbers after those of the template."""
    made = running(served())
    made.scale_clique("s-0-g-0-l", 2)
    made.settle()
    assert (numbers(made, "s-0-g-0-l"), numbers(made, "s-0-g-0-w")) == ([0, 3], [1, 2])
    made.scale_clique("s-0-g-0-w", 3)
    made.settle()
    assert numbers(made, "s-0-g-0-w") == [1, 2, 4]
    made.scale_clique("s-0-g-0-l", 1)
    made.settle()
    made.reap()
    made.scale_clique("s-0-g-0-w", 4)
    made.settle()
    assert numbers(made, "s-0-g-0-w") == [1, 2, 4, 3]


def test_a_successor_has_the_number_of_its_predecessor() -> None:
    """Whoever is replaced leaves its number to the pod at its index."""
    made = running(served())
    made.change_pods(lambda _: None, made.pods("s-0-g-0-w")[:1])
    made.settle()
    assert numbers(made) == [0, 1, 2]


def test_an_edit_of_sizes_moves_nobody_who_lives() -> None:
    """After the template has one leader more, running workers keep their numbers; a replica made anew has the order."""
    made = running(served())
    made.apply(served(leaders=2))
    made.settle()
    assert (numbers(made, "s-0-g-0-l"), numbers(made, "s-0-g-0-w")) == ([0, 4], [1, 2])
    made.change_pods(lambda _: None)
    made.settle()
    assert numbers(made) == [0, 1, 2, 3]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["l", "w"]), st.integers(1, 4)),
        st.tuples(st.just("edit"), st.integers(0, 15)),
        st.tuples(st.just("lose"), st.integers(0, 8)),
    ),
    max_size=10,
)


@given(STEPS)
def test_no_number_twice(steps: list[tuple[str, int]]) -> None:
    """Scale calls, edits of sizes and lost pods in any order never give two living pods one number."""
    made = running(served())
    for what, detail in steps:
        if what == "edit":
            made.apply(served(detail // 4 + 1, detail % 4 + 1))
        elif what == "lose":
            made.change_pods(lambda _: None, made.pods()[detail : detail + 1])
        else:
            made.scale_clique(f"s-0-g-0-{what}", detail)
        made.settle()
        found = numbers(made)
        assert len(found) == len(set(found))
