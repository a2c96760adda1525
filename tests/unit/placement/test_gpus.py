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


FOURS = (0x0F, 0xF0)
PAIRS = (0b0101, 0b1010)


@pytest.mark.parametrize(
    ("free", "count", "islands", "ids"),
    [
        (range(8), 2, FOURS, (0, 1)),
        ([0, 2, 4, 5, 6], 2, FOURS, (0, 2)),  # The island that is left with none, though 4 and 5 are a whole pair.
        ([3, 4, 5, 6, 7], 1, FOURS, (3,)),
        ([0, 4, 5, 6, 7], 4, FOURS, (4, 5, 6, 7)),
        (range(4), 2, PAIRS, (0, 2)),  # Islands need not be blocks.
        ([0, 1, 3], 2, PAIRS, (1, 3)),
        ([0, 1, 4, 5, 6], 4, FOURS, (0, 4, 5, 6)),  # No island holds it: all of the fullest, and the rest.
        ([0, 1, 4, 5], 3, FOURS, (0, 4, 5)),
        ([0, 1, 8, 9], 2, FOURS, (0, 1)),  # GPUs in no island come last.
        ([0, 8, 9], 2, FOURS, (8, 9)),
        ([0, 4, 8], 3, FOURS, (0, 4, 8)),
    ],
)
def test_pods_stay_inside_an_island(
    free: list[int], count: int, islands: tuple[int, ...], ids: tuple[int, ...]
) -> None:
    """A pod gets the GPUs of the island that it leaves with the fewest free, or else of as few as can be."""
    assert gpus.take(gpus.mask_of(free), count, islands)[0] == ids


@pytest.mark.parametrize("islands", [FOURS, PAIRS, (0x03, 0x0C, 0x30), (0x11, 0x22, 0x44, 0x88), (0xFF,)])
def test_a_pod_that_can_be_inside_one_island_is(islands: tuple[int, ...]) -> None:
    """All 256 masks and all counts: inside one island if any holds it, and always the wanted number of free ids."""
    for free in range(256):
        for count in range(1, free.bit_count() + 1):
            ids, left = gpus.take(free, count, islands)
            mask = gpus.mask_of(ids)
            assert mask.bit_count() == count == len(ids)
            assert mask | left == free
            assert mask & left == 0
            if any((free & island).bit_count() >= count for island in islands):
                assert any(mask & ~island == 0 for island in islands)


def test_shares_open_gpus_where_pods_of_one_gpu_would_go() -> None:
    """A share takes the fullest GPU with room, of equals the lowest id, and opens one in the fullest island."""
    assert gpus.take_share({5: 300, 2: 300, 1: 900}, 0, 200) == 2
    assert gpus.take_share({5: 100}, 0b1111_1000, 200, FOURS) == 3
    with pytest.raises(ValueError, match="are free"):
        gpus.take_share({5: 100}, 0, 200)
