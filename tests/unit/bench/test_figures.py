"""Figures compare with their baseline and their target, and the report has the promised form."""

import json
from pathlib import Path

import pytest

from tests.bench.figures import Better, Figure, Target, figure, table, write


@pytest.mark.parametrize(
    ("value", "better", "target", "text", "met"),
    [
        pytest.param(80.0, "higher", Target(bound=0.75, of="ratio"), "ratio >= 0.75", True, id="ratio-met"),
        pytest.param(70.0, "higher", Target(bound=0.75, of="ratio"), "ratio >= 0.75", False, id="ratio-missed"),
        pytest.param(5.0, "lower", Target(bound=5), "value <= 5", True, id="bound-is-included"),
        pytest.param(5.1, "lower", Target(bound=5), "value <= 5", False, id="too-slow"),
        pytest.param(5.0, "lower", None, None, None, id="no-target"),
    ],
)
def test_a_figure_knows_whether_it_meets_its_target(
    value: float, better: Better, target: Target | None, text: str | None, met: bool | None
) -> None:
    """The direction of the target follows from what is better."""
    found = figure("x", value, "ms", better=better, baseline=100.0, target=target)
    assert (found.ratio, found.target, found.met) == (value / 100, text, met)


def test_a_ratio_needs_a_baseline() -> None:
    """A target for the ratio without a baseline is a mistake in the benchmark."""
    with pytest.raises(ValueError, match="needs a baseline"):
        figure("x", 1.0, "ms", better="lower", target=Target(bound=1, of="ratio"))


def test_the_report_has_the_form_of_the_contract(tmp_path: Path) -> None:
    """The report has commit, machine and results with the promised keys."""
    path = tmp_path / "build" / "bench.json"
    write([figure("rpc.get", 4000.0, "calls/s", better="higher", baseline=5000.0)], path)
    report = json.loads(path.read_text())
    assert report.keys() == {"commit", "machine", "results"}
    assert report["results"] == [
        {
            "name": "rpc.get",
            "value": 4000.0,
            "unit": "calls/s",
            "better": "higher",
            "baseline": 5000.0,
            "ratio": 0.8,
            "target": None,
            "met": None,
        }
    ]


def test_the_table_shows_a_missed_target() -> None:
    """A missed target stands out; absent numbers leave their cells empty."""
    found = Figure(name="loop.lag", value=31.25, unit="ms", better="lower", target="value <= 20", met=False)
    assert table([found]).splitlines()[2].split("|")[1:-1] == [
        " loop.lag ",
        " 31.2  ",
        " ms   ",
        "          ",
        "       ",
        " value <= 20 ",
        " NO  ",
    ]
