"""Which GPUs of a node a pod gets."""

from __future__ import annotations

import pytest

from grove_server.placement import gpus


@pytest.mark.parametrize(
    ("free", "count", "ids"),
    [
        (range(8), 1, (0,)),
        (range(8), 2, (0, 1)),
        (range(8), 4, (0, 1, 2, 3)),
        (range(8), 8, (0, 1, 2, 3, 4, 5, 6, 7)),
        ([1, 2, 3, 4, 5, 6, 7], 1, (1,)),  # The broken pair first, whole pairs stay whole.
        ([1, 2, 3, 4, 5, 6, 7], 2, (2, 3)),
        ([0, 1, 2, 3, 5, 6, 7], 2, (6, 7)),  # The quad that is broken already gives its pair.
        ([1, 2, 4, 5, 6, 7], 4, (4, 5, 6, 7)),
        ([1, 2, 5, 6], 2, (1, 2)),  # No whole pair is left: the tightest quad.
        ([0, 1, 2, 4, 5, 6, 7], 3, (0, 1, 2)),
        ([0, 3, 4, 7], 3, (0, 3, 4)),
        ([8, 9, 70], 2, (8, 9)),
    ],
)
def test_pods_get_the_smallest_aligned_block(free: list[int], count: int, ids: tuple[int, ...]) -> None:
    """Small pods use up broken blocks, so that aligned pairs and quads stay for larger pods."""
    mask = gpus.mask_of(tuple(free))
    taken, left = gpus.take(mask, count)
    assert taken == ids
    assert left == mask & ~gpus.mask_of(ids)


def test_every_mask_of_an_eight_gpu_node_serves_every_count_it_holds() -> None:
    """All 256 masks and all counts: exactly the wanted number of free ids, or a refusal."""
    for mask in range(256):
        for count in range(9):
            if count > mask.bit_count():
                with pytest.raises(ValueError, match="are free"):
                    gpus.take(mask, count)
            else:
                ids, left = gpus.take(mask, count)
                assert len(ids) == count
                assert gpus.mask_of(ids) | left == mask
                assert gpus.mask_of(ids) & left == 0


def test_pods_of_one_node_share_nothing() -> None:
    """Several pods taken at once get different GPUs."""
    taken, left = gpus.take_for_pods(0xFF, 2, 3)
    assert taken == ((0, 1), (2, 3), (4, 5))
    assert gpus.ids_of(left) == (6, 7)
