"""Rates that Prometheus kept become requests that add up to them; answers that say nothing are refused."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from autoscaler.replay.__main__ import main
from autoscaler.replay.history import read_history
from autoscaler.replay.traces import TraceError
from tests.unit.autoscaler.replay.test_program import POLICY


def answer(*values: float | str) -> dict[str, object]:
    """Return an answer with a value a minute."""
    pairs = [[1_700_000_000 + 60 * number, str(value)] for number, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": pairs}]}}


def written(folder: Path, **answers: object) -> Path:
    """Write a history: ten minutes at 10 requests/s, then ten at 40 with twice as long prompts."""
    usual = {
        "requests": answer(*[10] * 10, *[40] * 10),
        "prompt_tokens": answer(*[10_000] * 10, *[80_000] * 10),
        "output_tokens": answer(*[1_000] * 10, *[4_000] * 10),
    }
    path = folder / "history.json"
    path.write_bytes(orjson.dumps({**usual, **answers}))
    return path


def test_requests_add_up_to_the_rates(tmp_path: Path) -> None:
    """Rates and mean lengths are those of each half."""
    trace = read_history(written(tmp_path))
    assert trace.duration_s == 1_200.0
    assert (np.diff(trace.arrival_s) >= 0).all()
    for start_s, per_s, prompt in ((0.0, 10, 1_000), (600.0, 40, 2_000)):
        part = trace.between(start_s, start_s + 600.0)
        assert len(part) == pytest.approx(600 * per_s, rel=0.05)
        assert part.prompt_tokens.mean() == pytest.approx(prompt, rel=0.06)
        assert part.output_tokens.mean() == pytest.approx(100, rel=0.06)


def test_what_is_not_known_has_no_requests(tmp_path: Path) -> None:
    """NaN and missing steps make nothing up."""
    trace = read_history(written(tmp_path, requests=answer(10, "NaN", 10)))
    assert len(trace.between(60.0, 120.0)) == 0
    assert len(trace) == pytest.approx(1_200, rel=0.1)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"requests": {"status": "error", "error": "query timed out"}}, "query timed out"),
        ({"prompt_tokens": {"status": "success", "data": {"result": []}}}, "prompt_tokens: 0 series"),
        ({"output_tokens": {"status": "success", "data": {"result": [{}, {}]}}}, "2 series"),
        ({"requests": {"status": "success", "data": {"result": [{"values": 3}]}}}, "not a matrix"),
        ({"requests": {"status": "success", "data": {"result": [{"values": [[1, "x"]]}]}}}, "not a matrix"),
        ({"requests": answer(1)}, "fewer than two"),
        ({"requests": answer(1e9, 1e9)}, "more than"),
        ({"requests": [1]}, "no object"),
    ],
)
def test_wrong_histories_are_refused(tmp_path: Path, answers: dict[str, object], told: str) -> None:
    """An HTTP 200 with an error body, several series, none, or too much: each is told."""
    with pytest.raises(TraceError, match=told):
        read_history(written(tmp_path, **answers))


def test_the_program_replays_a_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that ends with .json is a history."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    assert main(["--policy", str(policy), "--trace", str(written(tmp_path))]) == 0
    assert "ours" in capsys.readouterr().out
