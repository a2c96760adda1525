"""Placement against an exact reference on hundreds of hierarchical gangs (W13 of the project's design notes).

How many the search finds is a figure (`place.oracle_found`); here stands what must never happen: a place that does not
hold, a proof that is wrong, a solver that disagrees; and a floor under the share that is found.
"""

from __future__ import annotations

import pytest

from grove_server.control.solver_worker import solve
from grove_server.placement import Budget, Placement, place
from grove_server.placement.solver_model import solved_placement, solver_model
from grove_server.placement.solver_program import SolverOutcome
from grove_server.placement.violations import violations
from tests.placement_instances import instance, planted_instance
from tests.placement_reference import is_possible

COUNT = 200
BATCH = 40


@pytest.mark.parametrize("first", range(0, COUNT, BATCH))
def test_answers_agree_with_the_exact_reference(first: int) -> None:
    """No place is claimed that is none, nothing possible is called impossible, nearly all that is possible is found."""
    found = missed = 0
    for seed in range(first, first + BATCH):
        cluster, request = instance(seed)
        result = place(cluster, request)
        if isinstance(result, Placement):
            assert violations(cluster, request, result) == [], f"seed {seed}"
            found += 1
            continue
        truth = is_possible(cluster, request)
        assert not (result.proof and truth), f"seed {seed}: {result.sentence()}"
        missed += truth
    assert found >= BATCH // 4
    assert missed <= 0.06 * (found + missed)


@pytest.mark.parametrize("first", [1_000, 1_000 + BATCH // 2])
def test_the_solver_agrees_with_the_exact_reference(first: int) -> None:
    """Asked about every gang the solver's program has a point exactly if the reference has, and it reads as a place."""
    for seed in range(first, first + BATCH // 2):
        cluster, request = instance(seed)
        model = solver_model(cluster, request)
        truth = is_possible(cluster, request)
        if model is None:
            assert not truth, f"seed {seed}: the necessary tests ruled out all regions"
            continue
        answer = solve(model.question, 60)
        assert answer.outcome == (SolverOutcome.FOUND if truth else SolverOutcome.IMPOSSIBLE), f"seed {seed}"
        if truth:
            placement = solved_placement(cluster, model, answer)
            assert placement is not None, f"seed {seed}"
            assert violations(cluster, request, placement) == []


def test_the_solver_finds_what_the_search_gives_up_on() -> None:
    """Gangs that nearly fill a block are all placed by search and solver together, none by a straight pass alone."""
    given_up = [
        (cluster, request)
        for cluster, request in (planted_instance(seed, filled=0.95) for seed in range(24))
        if not isinstance(place(cluster, request, budget=Budget(steps_max=0)), Placement)
    ]
    assert given_up
    for cluster, request in given_up:
        model = solver_model(cluster, request)
        assert model is not None
        answer = solve(model.question, 60)
        placement = solved_placement(cluster, model, answer)
        assert placement is not None
        cluster.reserve(placement)
