"""The engine's batch computes what its figures say, and holds no more than it can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.engine.batch import QUEUE_MAX, Batch, Figures, Sequence


def sequence(prompt: int, output: int, *, fetched: bool = False) -> Sequence:
    """Return a sequence that came at 0."""
    return Sequence(prompt_tokens=prompt, output_tokens=output, arrived_s=0.0, comes_from_elsewhere=fetched)


def test_a_step_takes_what_the_formula_says() -> None:
    """Two that decode and one prompt that begins: base, per sequence, per KV token, the prompt, and its base."""
    figures = Figures(
        prefill_tokens_per_second=1_000.0,
        prefill_base_s=0.25,
        step_base_s=1.0,
        step_per_sequence_s=0.1,
        step_per_kv_token_s=0.001,
    )
    batch = Batch(figures=figures)
    for each in (sequence(10, 5), sequence(20, 5)):
        batch.offer(each)
    batch.admit(0.0)
    first = batch.next_step()
    assert first is not None
    assert first.seconds == pytest.approx(30 / 1_000 + 2 * 0.25)
    assert len(batch.finish(first)) == 2
    batch.offer(sequence(100, 5))
    batch.admit(1.0)
    second = batch.next_step()
    assert second is not None
    assert second.seconds == pytest.approx(1.0 + 2 * 0.1 + (11 + 21) * 0.001 + 100 / 1_000 + 0.25)


def test_a_long_prompt_takes_several_steps() -> None:
    """A step computes at most so many tokens; who decodes comes first."""
    batch = Batch(figures=Figures(step_tokens_max=100))
    batch.offer(sequence(250, 1))
    batch.admit(0.0)
    pieces = []
    while (step := batch.next_step()) is not None:
        pieces += [tokens for _, tokens in step.prompts]
        batch.finish(step)
    assert pieces == [100, 100, 50]


def test_what_is_fetched_is_not_computed() -> None:
    """A sequence whose KV travels has its place, takes no part in steps, and decodes at once when the KV is here."""
    batch = Batch(figures=Figures())
    fetched = sequence(50, 2, fetched=True)
    batch.offer(fetched)
    batch.admit(0.0)
    assert (batch.next_step(), batch.fetching) == (None, 1)
    fetched.is_fetching, fetched.computed = False, 50
    step = batch.next_step()
    assert step is not None
    assert (step.decoding, step.prompts) == ((fetched,), ())


def test_the_queue_has_an_end() -> None:
    """More than the most that may wait are turned away."""
    batch = Batch(figures=Figures())
    assert all(batch.offer(sequence(1, 1)) for _ in range(QUEUE_MAX))
    assert not batch.offer(sequence(1, 1))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=40),
    kv=st.integers(100, 200),
    places=st.integers(1, 6),
    kept=st.integers(0, 80),
)
def test_nothing_holds_more_than_there_is_and_everybody_ends(
    *, sizes: list[tuple[int, int]], kv: int, places: int, kept: int
) -> None:
    """Places and KV are never exceeded, turns are kept, and each sequence gets exactly its tokens."""
    batch = Batch(figures=Figures(kv_tokens=kv, max_sequences=places, step_tokens_max=32))
    sequences = [sequence(prompt, output) for prompt, output in sizes]
    for each in sequences:
        batch.offer(each)
    # What others have yet to fetch holds KV for a while.
    batch.kept = kept
    admitted: list[Sequence] = []
    tokens = 0
    for _ in range(100_000):
        admitted += batch.admit(0.0)
        assert len(batch.running) <= places
        assert batch.kv_reserved <= kv
        step = batch.next_step()
        if step is None:
            if not batch.kept:
                break
            batch.kept = 0
            continue
        tokens += len(batch.finish(step))
    assert admitted == sequences
    assert tokens == sum(output for _, output in sizes)
    assert [each.generated for each in sequences] == [output for _, output in sizes]
    assert batch.kv_reserved == 0


def test_who_is_dropped_frees_its_place() -> None:
    """Sequences whose clients are gone leave the queue and the batch."""
    batch = Batch(figures=Figures(max_sequences=1))
    first, second, third = (sequence(10, 10) for _ in range(3))
    for each in (first, second, third):
        batch.offer(each)
    batch.admit(0.0)
    batch.drop(first)
    batch.drop(second)
    assert batch.admit(0.0) == [third]
    assert batch.running == [third]
