"""The solver's process: answers come, and a worker that is killed, stuck or broken costs one answer and no more."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from grove_server.control import solver_pool
from grove_server.control.solver_pool import WAITING_MAX, SolverPool, open_solver
from grove_server.placement import CliqueRequest, Cluster, GangRequest, GroupRequest, Placement
from grove_server.placement.solver_model import SolverModel, solved_placement, solver_model
from grove_server.placement.solver_program import Program, SolverAnswer, SolverOutcome, SolverQuestion
from tests.placement_cases import BLOCK, RACK, TOPOLOGY, gpu_node, gpus
from tests.waiting import until


@asynccontextmanager
async def _pool(*, seconds_max: float = 10.0) -> AsyncIterator[SolverPool]:
    pool = SolverPool(seconds_max=seconds_max)
    try:
        yield pool
    finally:
        await pool.close()


def _cluster() -> Cluster:
    return Cluster(gpu_node(f"n{i}", zone="z", block="b", rack=f"r{i // 2}") for i in range(4))


def _model(cluster: Cluster, *pods: int) -> SolverModel:
    groups = tuple(
        GroupRequest(
            name=f"g{i}",
            members=(
                CliqueRequest(name=f"g{i}-a", shape=gpus(4), minimum=count),
                CliqueRequest(name=f"g{i}-b", shape=gpus(2), minimum=2),
            ),
            required=RACK,
        )
        for i, count in enumerate(pods)
    )
    model = solver_model(cluster, GangRequest(name="gang", members=groups, topology=TOPOLOGY, required=BLOCK))
    assert model is not None
    return model


def _hard_question() -> SolverQuestion:
    """Return a question that takes hours: a market split (Cornuejols and Dawande, 1998) of six rows."""
    chance = random.Random(7)
    program = Program()
    columns = [program.column(1) for _ in range(50)]
    for _ in range(6):
        values = {column: chance.randint(0, 99) for column in columns}
        half = sum(values.values()) // 2
        program.row(half, values, half)
    return SolverQuestion(programs=(program,), covers_all=True)


async def test_a_question_is_answered_by_another_process() -> None:
    """What the worker answers is a place that can be reserved; the worker stays for the next question."""
    cluster = _cluster()
    model = _model(cluster, 3, 3)
    async with _pool() as pool:
        answer = await pool.ask(model.question)
        assert answer.outcome == SolverOutcome.FOUND
        pid = pool.pid
        assert pid not in {None, os.getpid()}
        placement = solved_placement(cluster, model, answer)
        assert isinstance(placement, Placement)
        cluster.reserve(placement)
        assert (await pool.ask(model.question)).outcome == SolverOutcome.FOUND
        assert (pool.pid, pool.starts) == (pid, 1)


async def test_an_answer_to_an_older_state_is_checked() -> None:
    """An answer whose nodes were taken meanwhile is no placement; nor is one whose node is gone."""
    cluster = _cluster()
    model = _model(cluster, 3, 3)
    async with _pool() as pool:
        answer = await pool.ask(model.question)
    full = cluster.fork()
    full.bind_pod("n0", gpus(8))
    assert solved_placement(full, model, answer) is None
    cluster.remove_node("n1")
    assert solved_placement(cluster, model, answer) is None


async def test_impossible_is_a_proof_over_all_regions() -> None:
    """Two groups that pass every test and do not fit together are called impossible."""
    cluster = _cluster()
    cluster.bind_pod("n0", gpus(2))
    cluster.bind_pod("n1", gpus(2))
    async with _pool() as pool:
        assert (await pool.ask(_model(cluster, 2, 3).question)).outcome == SolverOutcome.FOUND
        cluster.bind_pod("n2", gpus(1))
        cluster.bind_pod("n3", gpus(3))
        assert (await pool.ask(_model(cluster, 2, 2).question)).outcome == SolverOutcome.IMPOSSIBLE


async def test_a_worker_killed_in_mid_search_costs_one_answer() -> None:
    """SIGKILL while it searches is answered LOST at once, and the next question has a new worker."""
    model = _model(_cluster(), 3, 3)
    async with _pool(seconds_max=60.0) as pool:
        assert (await pool.ask(model.question)).outcome == SolverOutcome.FOUND
        pid = pool.pid
        assert pid is not None
        asked = asyncio.ensure_future(pool.ask(_hard_question()))
        await until(lambda: _is_busy(pid), "the worker searches")
        os.kill(pid, signal.SIGKILL)
        assert (await asked) == SolverAnswer(outcome=SolverOutcome.LOST)
        assert (await pool.ask(model.question)).outcome == SolverOutcome.FOUND
        assert pool.starts == 2
        assert pool.pid != pid


async def test_time_is_bounded() -> None:
    """A question that takes too long is answered BUDGET, by a worker that is still there."""
    async with _pool(seconds_max=0.3) as pool:
        assert (await pool.ask(_hard_question())).outcome == SolverOutcome.BUDGET
        assert pool.starts == 1


async def test_a_cancelled_question_leaves_no_answer_behind() -> None:
    """After a question was given up the next one gets its own answer."""
    model = _model(_cluster(), 3, 3)
    async with _pool(seconds_max=60.0) as pool:
        await pool.ask(model.question)
        asked = asyncio.ensure_future(pool.ask(_hard_question()))
        pid = pool.pid
        assert pid is not None
        await until(lambda: _is_busy(pid), "the worker searches")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await pool.ask(model.question)).outcome == SolverOutcome.FOUND


async def test_few_may_wait_and_none_after_the_end() -> None:
    """Questions beyond the bound are answered BUDGET at once; so are those that wait when the pool is closed."""
    async with _pool(seconds_max=60.0) as pool:
        asked = [asyncio.ensure_future(pool.ask(_hard_question())) for _ in range(WAITING_MAX)]
        await asyncio.sleep(0)
        assert (await pool.ask(_hard_question())).outcome == SolverOutcome.BUDGET
        await until(lambda: pool.pid is not None, "the worker has started")
        await pool.close()
        assert {answer.outcome for answer in await asyncio.gather(*asked)} == {SolverOutcome.BUDGET}
        assert (await pool.ask(_hard_question())).outcome == SolverOutcome.BUDGET
        assert pool.pid is None


async def test_an_interpreter_that_cannot_start_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a worker there is no error, only no answer."""
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    async with _pool() as pool:
        assert (await pool.ask(_hard_question())).outcome == SolverOutcome.LOST


def test_the_setting_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off is off; auto is on where the extra is installed."""
    assert open_solver("off") is None
    assert isinstance(open_solver("auto"), SolverPool)
    monkeypatch.setattr(solver_pool, "find_spec", lambda _: None)
    assert open_solver("auto") is None


def _is_busy(pid: int) -> bool:
    """Return whether a process computes: its state is R in /proc."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "R"
