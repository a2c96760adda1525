"""Traces are read as published, wrong ones are refused with their line, and days keep their shape."""

from pathlib import Path

import numpy as np
import pytest

from autoscaler.replay.patterns import DAY_S, flat, level, shifted, spread, synthetic, week
from autoscaler.replay.traces import TraceError, read_trace, trace_of

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:18:03.9799600,110,27
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1200, "output_length": 52, "hash_ids": [0, 1, 2]}
{"timestamp": 3052, "input_length": 1300, "output_length": 26, "hash_ids": [0, 1, 3]}
"""


def test_azure_traces(tmp_path: Path) -> None:
    """Times count from the earliest request, whatever the order of lines and the digits of a second."""
    path = tmp_path / "code.csv"
    path.write_text(AZURE)
    trace = read_trace(path)
    np.testing.assert_allclose(trace.arrival_s, [0.0, 0.052, 60.0])
    assert trace.prompt_tokens.tolist() == [4808, 3180, 110]
    assert trace.output_tokens.tolist() == [10, 8, 27]


def test_azure_traces_with_a_time_zone(tmp_path: Path) -> None:
    """The week of 2024 has a zone, and seconds without a fraction."""
    path = tmp_path / "week.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n"
    )
    np.testing.assert_allclose(read_trace(path).arrival_s, [0.0, 0.99007])


@pytest.mark.parametrize(("has_cache", "cached"), [(False, [0, 0]), (True, [0, 1024])])
def test_mooncake_traces(tmp_path: Path, *, has_cache: bool, cached: list[int]) -> None:
    """Milliseconds become seconds; with a cache, leading blocks seen before need no prefill."""
    path = tmp_path / "conversation.jsonl"
    path.write_text(MOONCAKE)
    trace = read_trace(path, has_prefix_cache=has_cache)
    np.testing.assert_allclose(trace.arrival_s, [0.0, 3.052])
    assert trace.cached_tokens.tolist() == cached
    assert trace.uncached_tokens.tolist() == [1200, 1300 - cached[1]]


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.csv", AZURE + "yesterday,1,1\n", ":5:"),
        ("a.csv", AZURE + "2023-11-16 18:17:04.0,x,1\n", ":5:"),
        ("a.csv", "AT,IN,OUT\n1,2,3\n", ":2:"),
        ("a.csv", AZURE + "2023-11-16 18:17:05.0,-4,1\n", "negative"),
        ("a.csv", AZURE + "2023-11-16 18:17:05.0,4,99999999\n", "above"),
        ("a.jsonl", MOONCAKE + "{\n", ":3:"),
        ("a.jsonl", MOONCAKE + "[1]\n", ":3:"),
        ("a.jsonl", MOONCAKE + '{"timestamp": 1, "input_length": "9", "output_length": 1}\n', ":3:"),
        ("a.jsonl", MOONCAKE + '{"timestamp": 1, "input_length": 9, "output_length": 1, "hash_ids": 3}\n', ":3:"),
        ("a.parquet", "", "neither"),
    ],
)
def test_wrong_traces_are_refused(tmp_path: Path, name: str, text: str, where: str) -> None:
    """The error names the line, or what is wrong."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TraceError, match=where):
        read_trace(path)


def test_a_part_counts_from_its_start() -> None:
    """The requests of an hour, their times from the hour's beginning."""
    trace = trace_of("x", 7_200.0, [(10.0, 1, 1), (3_600.0, 2, 2), (5_000.0, 3, 3), (7_199.0, 4, 4)])
    part = trace.between(3_600.0, 7_000.0)
    assert part.duration_s == 3_400.0
    assert part.arrival_s.tolist() == [0.0, 1_400.0]
    assert part.prompt_tokens.tolist() == [2, 3]


def test_a_day_has_its_shape_and_the_traces_lengths() -> None:
    """Twice the trace on average, by hour as the level says; lengths stay those of the trace."""
    trace = synthetic(seed=1, duration_s=3_600.0, per_s=4.0, prompt_tokens=800, output_tokens=60)
    day = spread(trace, seed=1, scale=2.0)
    assert len(day) == pytest.approx(8 * DAY_S, rel=0.03)
    assert (np.diff(day.arrival_s) >= 0).all()
    assert day.arrival_s[-1] < DAY_S
    by_hour = np.histogram(day.arrival_s, bins=24, range=(0, DAY_S))[0] / (len(day) / 24)
    expected = level(np.arange(1_800.0, DAY_S, 3_600.0))
    assert np.abs(by_hour - expected).max() < 0.08
    assert set(day.prompt_tokens.tolist()) <= set(trace.prompt_tokens.tolist())


def test_days_differ_by_seed_and_only_by_seed() -> None:
    """The same seed makes the same day."""
    trace = synthetic(seed=1, duration_s=600.0, per_s=4.0, prompt_tokens=800, output_tokens=60)
    days = [spread(trace, seed=seed, scale=1.5, duration_s=7_200.0) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(days[0].arrival_s, days[1].arrival_s)
    assert len(days[0]) != len(days[2])


def test_bursts_keep_their_length() -> None:
    """A trace of ten seconds of traffic in an hour stays one: time is never compressed."""
    burst = trace_of("burst", 3_600.0, [(100.0 + number / 10, 100, 10) for number in range(100)])
    day = spread(burst, seed=3, scale=1.0, duration_s=7_200.0, shape=flat)
    assert len(day) == 200
    assert day.arrival_s[99] - day.arrival_s[0] == pytest.approx(9.9, abs=3.0)


def test_a_shift_goes_from_one_mix_to_the_other() -> None:
    """Before it all requests are of the first trace, after it all of the second, in the middle half of each."""
    before = synthetic(seed=1, duration_s=6_000.0, per_s=5.0, prompt_tokens=100, output_tokens=60)
    after = synthetic(seed=2, duration_s=6_000.0, per_s=5.0, prompt_tokens=400_000, output_tokens=60)
    mix = shifted(before, after, seed=1, from_s=2_000.0, to_s=4_000.0)
    is_after = mix.prompt_tokens > 2_500
    assert not is_after[mix.arrival_s < 2_000].any()
    assert is_after[mix.arrival_s > 4_000].all()
    middle = (mix.arrival_s > 2_800) & (mix.arrival_s < 3_200)
    assert 0.4 < is_after[middle].mean() < 0.6


def test_weekends_are_quieter() -> None:
    """Saturday noon is below Friday noon, by the factor of weekends."""
    noons = week(np.array([4.5, 5.5]) * DAY_S)
    assert noons[1] / noons[0] == pytest.approx(0.6)
