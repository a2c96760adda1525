"""Which GPUs of a node a pod gets: inside one island, compact, aligned blocks first; shares on the fullest GPU.

Rules: a node's free GPUs are a bit mask (bit i = GPU i is free), its islands (GPUs that share NVLink or a NUMA node)
are masks too. Where islands are known, a pod that can be inside one is: in the one that it leaves with the fewest free
GPUs. Otherwise it spans as few as can be. Inside an island, and where none is known, aligned power-of-two blocks are
the rule, for they are the pairs and quads of the common 8-GPU boards: a pod takes the smallest aligned block that can
hold it, of several the one with the fewest free GPUs in and around it (large blocks stay whole for large pods), of
equals the lowest. A share of a GPU goes to the fullest partly used GPU that holds it, then it opens a free one.

Not here: how many pods a node fits (`counts`), what is taken (`ledger`, `shares`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from grove_server.placement.nodes import GPUS_MAX

Islands: TypeAlias = tuple[int, ...]
"""The masks of a node's islands, in their order; () if none is known."""

_SURROUNDINGS: Final = 4
"""Block sizes looked at per block, its own included: enough for a pod of one GPU in a board of eight."""


def ids_of(mask: int) -> tuple[int, ...]:
    """Return the ids in a mask, ascending."""
    ids = []
    while mask:
        low = mask & -mask
        ids.append(low.bit_length() - 1)
        mask ^= low
    return tuple(ids)


def mask_of(ids: Iterable[int]) -> int:
    """Return the mask of some ids."""
    mask = 0
    for gpu_id in ids:
        mask |= 1 << gpu_id
    return mask


@lru_cache(maxsize=16_384)
def take(free: int, gpu_count: int, islands: Islands = ()) -> tuple[tuple[int, ...], int]:
    """Return (ids for one pod that needs `gpu_count`, the mask left free); ValueError if too few are free.

    The cache is a pure table: 256 masks times 9 counts cover every 8-GPU node with the same islands.
    """
    if free.bit_count() < gpu_count:
        raise ValueError(f"{gpu_count} GPUs asked for, {free.bit_count()} are free")
    if gpu_count == 0:
        return (), free
    ids = _block(free, gpu_count) if not islands else _in_islands(free, gpu_count, islands)
    return ids, free & ~mask_of(ids)


@lru_cache(maxsize=16_384)
def take_for_pods(
    free: int, gpu_count: int, pod_count: int, islands: Islands = ()
) -> tuple[tuple[tuple[int, ...], ...], int]:
    """Return (ids for each of `pod_count` equal pods, the mask left free); ValueError if too few are free."""
    taken = []
    for _ in range(pod_count):
        ids, free = take(free, gpu_count, islands)
        taken.append(ids)
    return tuple(taken), free


def take_share(open_milli: Mapping[int, int], free: int, milli: int, islands: Islands = ()) -> int:
    """Return the GPU that a share of `milli` goes to; ValueError if none holds it.

    `open_milli` has what is free of each partly used GPU, `free` is the mask of the wholly free ones.
    """
    holding = [(left, gpu_id) for gpu_id, left in open_milli.items() if left >= milli]
    if holding:
        return min(holding)[1]
    return take(free, 1, islands)[0][0]


def _in_islands(free: int, gpu_count: int, islands: Islands) -> tuple[int, ...]:
    """Return ids inside the one island that is left with the fewest free, else over as few islands as can be."""
    parts = [free & island for island in islands]
    rest = free & ~sum(islands)
    for group in (parts, [rest]):  # GPUs in no island come last, for nothing is known of them.
        fitting = [part for part in group if part.bit_count() >= gpu_count]
        if fitting:
            return _block(min(fitting, key=_size), gpu_count)
    ids: tuple[int, ...] = ()
    for part in sorted([*parts, rest], key=_size, reverse=True):
        left = gpu_count - len(ids)
        if left == 0:
            break
        fitting = [each for each in (*parts, rest) if each.bit_count() >= left and not each & mask_of(ids)]
        ids += _block(min(fitting, key=_size), left) if fitting else ids_of(part)
    return tuple(sorted(ids))


def _size(mask: int) -> tuple[int, int]:
    return mask.bit_count(), mask


def _block(free: int, gpu_count: int) -> tuple[int, ...]:
    """Return the first ids of the best aligned block that holds them."""
    size = 1 << (gpu_count - 1).bit_length()
    while size <= 2 * GPUS_MAX:
        block = _tightest_block(free, gpu_count, size)
        if block:
            return ids_of(block)[:gpu_count]
        size *= 2
    raise AssertionError("the block of all GPUs holds them")


def _tightest_block(free: int, gpu_count: int, size: int) -> int:
    """Return the free GPUs of the best aligned block of `size` that holds the pod, or 0.

    Best is the block with the fewest free GPUs, then the one whose surroundings (the block of twice the size, and so
    on) have the fewest, then the lowest.
    """
    best = 0
    best_key: tuple[int, ...] = ()
    for start in range(0, free.bit_length(), size):
        inside = _within(free, start, size)
        if inside.bit_count() >= gpu_count:
            key = tuple(_within(free, start - start % (size << i), size << i).bit_count() for i in range(_SURROUNDINGS))
            if not best or key < best_key:
                best, best_key = inside, key
    return best


def _within(free: int, start: int, size: int) -> int:
    return free & (((1 << size) - 1) << start)
