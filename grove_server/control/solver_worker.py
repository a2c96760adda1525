"""The solver's own process: reads questions, answers them with HiGHS, knows nothing else.

Rules: one question at a time, as one JSON line on standard input; one JSON line back. A question says how long it may
take; the process that asked kills this one if that does not help, which loses nothing. It ends when its standard input
does. Whatever the solver's library prints goes to standard error. HiGHS: Huangfu and Hall, "Parallelizing the dual
revised simplex method" (2018); MIT licence; the extra `solver` installs it.

Not here: what is asked (`placement.solver_model`), the life of the process (`solver_pool`).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import numpy as np
import orjson

from grove_server.placement.solver_program import Program, SolverAnswer, SolverOutcome, SolverQuestion

_INTEGRAL: Final = 1e-6
_SECONDS_MIN: Final = 0.01


def question_line(question: SolverQuestion, seconds_max: float) -> bytes:
    """Return a question as a line."""
    return orjson.dumps({"seconds_max": seconds_max, "question": question}) + b"\n"


def answer_of(line: bytes) -> SolverAnswer:
    """Return the answer in a line; ValueError if it is none."""
    content = orjson.loads(line)
    return SolverAnswer(
        outcome=SolverOutcome(content["outcome"]), program=content["program"], values=tuple(content["values"])
    )


def solve(question: SolverQuestion, seconds_max: float) -> SolverAnswer:
    """Try the programs in order, each with what is left of the time; ModuleNotFoundError without the extra."""
    deadline = time.monotonic() + seconds_max
    is_proof = question.covers_all
    for number, program in enumerate(question.programs):
        left = deadline - time.monotonic()
        if left < _SECONDS_MIN:
            return SolverAnswer(outcome=SolverOutcome.BUDGET)
        # What the last program does not use is of no use to anybody; earlier ones leave their fair share.
        share = left / (len(question.programs) - number)
        point, is_impossible = _solve_one(program, share)
        if point is not None:
            return SolverAnswer(outcome=SolverOutcome.FOUND, program=number, values=point)
        is_proof &= is_impossible
    return SolverAnswer(outcome=SolverOutcome.IMPOSSIBLE if is_proof else SolverOutcome.BUDGET)


def _solve_one(program: Program, seconds_max: float) -> tuple[tuple[int, ...] | None, bool]:
    """Return a point of one program, or None and whether there is none."""
    import highspy  # noqa: PLC0415 -- an extra; only this process needs it

    model = highspy.HighsLp()
    columns = len(program.uppers)
    model.num_col_, model.num_row_ = columns, len(program.highs)
    model.col_cost_ = np.zeros(columns)
    model.col_lower_ = np.zeros(columns)
    model.col_upper_ = np.array(program.uppers, dtype=np.float64)
    model.row_lower_ = np.array([-highspy.kHighsInf if low is None else low for low in program.lows], dtype=np.float64)
    model.row_upper_ = np.array(program.highs, dtype=np.float64)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(program.starts, dtype=np.int32)
    model.a_matrix_.index_ = np.array(program.indices, dtype=np.int32)
    model.a_matrix_.value_ = np.array(program.values, dtype=np.float64)
    model.integrality_ = [highspy.HighsVarType.kInteger] * columns
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its __init__ lacks a type
    for option, value in {"output_flag": False, "threads": 1, "random_seed": 1, "time_limit": seconds_max}.items():
        solver.setOptionValue(option, value)
    solver.passModel(model)
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        values = np.array(solver.getSolution().col_value)
        whole = np.rint(values)
        if bool((np.abs(values - whole) <= _INTEGRAL).all()):
            return tuple(whole.astype(np.int64).tolist()), False
        return None, False
    return None, bool(status == highspy.HighsModelStatus.kInfeasible)


def _question_of(content: dict[str, Any]) -> SolverQuestion:
    programs = tuple(Program(**program) for program in content["programs"])
    return SolverQuestion(programs=programs, covers_all=content["covers_all"])


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        content = orjson.loads(line)
        answer = solve(_question_of(content["question"]), content["seconds_max"])
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
