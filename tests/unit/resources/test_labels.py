"""Labels: validity, and what each child carries."""

from __future__ import annotations

import pytest

from grove_server.resources import labels
from grove_server.resources.workload import CliqueIdentity

STANDALONE = CliqueIdentity(
    set_name="s", set_uid="u", copy=0, clique="a", name="s-0-a", gang="s-0", headless_service="s-0"
)
SCALED = CliqueIdentity(
    set_name="s",
    set_uid="u",
    copy=0,
    group="g",
    group_name="s-0-g",
    group_replica=2,
    clique="b",
    name="s-0-g-2-b",
    gang="s-0-g-1",
    base_gang="s-0",
    headless_service="s-0",
)


@pytest.mark.parametrize("key", ["a", "a.b/c", "app.kubernetes.io/name", "A_b.c-d", "x/" + "a" * 63])
def test_accepts_keys(key: str) -> None:
    """A key is a name, with a DNS subdomain before it where it has a prefix."""
    assert labels.label_key_problem(key) is None


@pytest.mark.parametrize("key", ["", "/a", "a/", "a/b/c", "-a", "a b", "A.B/c", "x/" + "a" * 64, "a" * 1000, "a\n"])
def test_refuses_keys(key: str) -> None:
    """Other keys are refused."""
    assert labels.label_key_problem(key) is not None


@pytest.mark.parametrize(
    ("value", "valid"), [("", True), ("a", True), ("A.b_c-1", True), ("-", False), ("a" * 64, False), ("a b", False)]
)
def test_values(value: str, valid: bool) -> None:
    """A value is empty, or up to 63 letters, digits, '-', '_' and '.'."""
    assert (labels.label_value_problem(value) is None) == valid


def test_standalone_clique_and_its_pods() -> None:
    """A standalone clique has no group labels; its pods inherit all it has."""
    of_clique = labels.clique_labels(STANDALONE, {"team": "x", labels.PART_OF: "mine"}, "hash", "revision")
    assert of_clique == {
        "team": "x",
        "app.kubernetes.io/managed-by": "grove-operator",
        "app.kubernetes.io/part-of": "s",
        "app.kubernetes.io/name": "s-0-a",
        "app.kubernetes.io/component": "pcs-podclique",
        "grove.io/podcliqueset-replica-index": "0",
        "grove.io/podgang": "s-0",
        "grove.io/pod-template-hash": "hash",
        "grove.io/pod-clique-set-revision": "revision",
    }
    assert labels.pod_labels(of_clique, "s-0-a", 3) == {
        **of_clique,
        "grove.io/podclique": "s-0-a",
        "grove.io/podclique-pod-index": "3",
    }


def test_member_of_a_scaled_gang() -> None:
    """A member says its group and index, and in a scaled gang the base gang it waits for."""
    of_clique = labels.clique_labels(SCALED, {}, "hash", "")
    assert of_clique["app.kubernetes.io/component"] == "pcsg-podclique"
    assert of_clique["grove.io/podcliquescalinggroup"] == "s-0-g"
    assert of_clique["grove.io/podcliquescalinggroup-replica-index"] == "2"
    assert of_clique["grove.io/base-podgang"] == "s-0"


def test_gangs_mirror_the_set() -> None:
    """A gang carries the set's labels and annotations, except Grove's own."""
    of_gang = labels.gang_labels("s", "s-0", "grove-scheduler", {"queue": "q", "grove.io/x": "y", labels.NAME: "mine"})
    assert of_gang["queue"] == "q"
    assert of_gang[labels.NAME] == "s-0"
    assert of_gang["grove.io/scheduler-name"] == "grove-scheduler"
    assert "grove.io/x" not in of_gang
    assert labels.gang_annotations("", {"grove.io/mnnvl-group": "a", "b": "c"}) == {"b": "c"}
    assert labels.gang_annotations("t", {}) == {"grove.io/topology-name": "t"}


def test_groups_and_services() -> None:
    """Groups and headless services say what they are and whose."""
    assert labels.scaling_group_labels("s", 1, "s-1-g")["app.kubernetes.io/component"] == "pcs-podcliquescalinggroup"
    assert labels.headless_service_labels("s", "s-1")["app.kubernetes.io/component"] == "pcs-headless-service"
    assert labels.selector_of_set("s") == "app.kubernetes.io/managed-by=grove-operator,app.kubernetes.io/part-of=s"
    assert labels.selector_of_group("s", "s-0-g").endswith(",grove.io/podcliquescalinggroup=s-0-g")
    assert labels.selector_of_clique("s", "s-0-a").endswith(",grove.io/podclique=s-0-a")
