"""Names: validity, and the names of children exactly as Grove forms them."""

from __future__ import annotations

import pytest

from grove_server.resources import names


def test_names_children_as_grove() -> None:
    """Each child is called as in Grove's own examples."""
    assert names.headless_service("simple1", 0) == "simple1-0"
    assert names.service_address("simple1", 0, "default") == "simple1-0.default.svc.cluster.local"
    assert names.standalone_clique("simple1", 0, "pca") == "simple1-0-pca"
    assert names.scaling_group("simple1", 0, "sga") == "simple1-0-sga"
    assert names.member_clique("simple1-0-sga", 1, "pcb") == "simple1-0-sga-1-pcb"
    assert names.base_gang("simple1", 0) == "simple1-0"
    assert names.scaled_gang("simple1-0-sga", 1, 1) == "simple1-0-sga-0"
    assert names.topology_group("simple1-0-sga", 1) == "simple1-0-sga-1"
    assert names.hostname("simple1-0-pca", 2) == "simple1-0-pca-2"


def test_pod_names_never_repeat_within_a_clique() -> None:
    """Pods of one clique have different names, which depend on the clique's uid and on nothing else."""
    made = [names.pod_name("a-0-b", "uid-1", serial) for serial in range(20_000)]
    assert len(set(made)) == len(made)
    assert made[7] == names.pod_name("a-0-b", "uid-1", 7)
    assert made[7] != names.pod_name("a-0-b", "uid-2", 7)
    suffix = made[7].removeprefix("a-0-b-")
    assert len(suffix) == names.POD_SUFFIX_LENGTH
    assert set(suffix) <= set(names.SAFE_ALPHABET)


@pytest.mark.parametrize("name", ["a", "a-b", "0a", "a" * 63])
def test_accepts_dns_labels(name: str) -> None:
    """Lower case letters, digits and inner hyphens make a label."""
    assert names.dns_label_problem(name) is None
    assert names.dns_subdomain_problem(name) is None


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a\n", "a" * 64, "ä"])
def test_refuses_other_labels(name: str) -> None:
    """Anything else is no label, not even with a line break at its end."""
    assert names.dns_label_problem(name) is not None


@pytest.mark.parametrize(
    ("name", "valid"), [("a.b", True), ("a..b", False), (".a", False), ("a.-b", False), ("a" * 254, False)]
)
def test_subdomains_are_labels_with_dots(name: str, valid: bool) -> None:
    """A subdomain is labels joined by single dots."""
    assert (names.dns_subdomain_problem(name) is None) == valid
