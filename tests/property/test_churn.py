"""Nodes and gangs that come, go and change in thousands of events: the account is exact after every one."""

from __future__ import annotations

import pytest

from tests.churn import run

EVENTS = 2_000


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_account_is_exact_after_every_event(seed: int) -> None:
    """Amounts, GPU ids, shares and counts agree with an account of single pods; every answer keeps its promises."""
    churn = run(seed, EVENTS)
    assert churn.counts.total() == EVENTS
    happened = {"placed", "refused with proof", "promise kept", "node removed", "node back", "relabel", "resize"}
    assert happened <= churn.counts.keys()


def test_a_wrong_account_is_noticed() -> None:
    """If a pod goes without being released the next check says so."""
    churn = run(1, 50)
    name = max(churn.account.gangs, key=lambda each: len(churn.account.gangs[each]))
    known = set(churn.cluster.node_names())
    pods = churn.account.gangs[name]
    pods.remove(next(pod for pod in pods if pod.node in known))
    with pytest.raises(AssertionError, match="node"):
        churn.check()
