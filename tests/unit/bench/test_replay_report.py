"""The replay table's report: means over seeds, fronts over settings, gaps told both ways."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from autoscaler.replay.outcome import Outcome
from tests.bench.replay_report import ALL, Run, document, lines_of_text, plots, points

BASE = Outcome(
    requests=100,
    slo_attainment=1.0,
    ttft_attainment=1.0,
    tpot_attainment=1.0,
    worst_5min_attainment=1.0,
    ttft_p50_s=0.1,
    ttft_p95_s=0.5,
    ttft_p99_s=1.0,
    gpu_hours=100.0,
    scale_actions=4,
    reversals=1,
    aborted_requests=0,
)
# By line and setting: attainment and GPU-hours in the first case; in the second all need twice as many GPUs.
SETTINGS = {
    ("ours", ""): (0.99, 100.0),
    ("ours", "x0.8"): (0.999, 140.0),
    ("keda", ""): (0.999, 200.0),
    ("keda", "keda-3"): (0.95, 110.0),
    ("hpa", ""): (0.9, 150.0),
    ("oracle", ""): (0.99, 80.0),
}


def runs() -> Iterator[Run]:
    """Yield runs of two cases and two seeds, whose attainment differs by 0.002."""
    for case, factor in (("a", 1.0), ("b", 2.0)):
        for seed in (101, 102):
            for (line, label), (attainment, gpu_hours) in SETTINGS.items():
                reached = attainment + (0.001 if seed == 101 else -0.001)
                outcome = replace(BASE, slo_attainment=reached, gpu_hours=gpu_hours * factor)
                yield Run(line=line, label=label, case=case, seed=seed, outcome=outcome)


RUNS = list(runs())


def test_points_are_means_over_seeds_and_sums_over_cases() -> None:
    """Of all cases, attainment is a mean and GPU-hours are a sum."""
    shipped = next(point for point in points(RUNS, "ours", "a") if not point.label)
    assert shipped.gpu_hours == 100.0
    assert shipped.attainment == pytest.approx(0.99)
    over_all = next(point for point in points(RUNS, "ours", ALL) if not point.label)
    assert over_all.gpu_hours == 300.0
    assert over_all.attainment == pytest.approx(0.99)


def test_gaps_are_told_both_ways() -> None:
    """Our front reaches KEDA's attainment at 140 of its 200; KEDA's front needs more than 100 for what we have."""
    gaps = document(RUNS, {})["cases"]["a"]
    assert isinstance(gaps, dict)
    told = gaps["gaps"]
    assert told["our_front_to_keda_gpu_ratio"] == pytest.approx(0.7)
    assert told["our_front_to_keda_points"] == pytest.approx(0.0)
    # KEDA's front goes from 95 % at 110 to 99.9 % at 200: 99 % cost 183.5.
    assert told["keda_front_to_ours_gpu_ratio"] == pytest.approx(1.8347, abs=1e-3)
    assert told["keda_front_to_ours_points"] is None
    assert told["gpu_ratio_ours_to_oracle"] == pytest.approx(1.25)


def test_the_document_has_the_published_names() -> None:
    """Each case and the whole have each line with what the issue of the autoscaler names."""
    made = document(RUNS, {"keda": "x"})
    names = {"slo_attainment", "ttft_attainment", "tpot_attainment", "gpu_hours", "scale_actions", "reversals"}
    for part in (made["cases"]["a"], made["all"]):
        assert isinstance(part, dict)
        assert list(part["policies"]) == ["ours", "hpa", "keda", "oracle"]
        for means in part["policies"].values():
            assert names | {"aborted_requests"} <= set(means)


def test_text_and_plots_have_every_line() -> None:
    """A row for each line in each case and in all, gaps below; a plot for each case and one for all."""
    text = "\n".join(lines_of_text(RUNS))
    for row in ("| a | ours | 99.00 ", "| b | oracle | 99.00 ", "| all | keda | 99.90 ", "not reached"):
        assert row in text
    drawn = plots(RUNS)
    assert set(drawn) == {"a", "b", ALL}
    assert drawn["a"].count("<circle") == len(SETTINGS) + 4
