"""Which GPUs of a node a pod gets: compact, aligned blocks first.

Rules: a node's free GPUs are a bit mask (bit i = GPU i is free). NVLink pairs, quads and NUMA islands of the common
8-GPU boards are aligned power-of-two blocks, so a pod takes the smallest aligned block that can hold it, of several
the one with the fewest free GPUs in and around it (large blocks stay whole for large pods), of equals the lowest.

Not here: how many pods a node fits (`counts`); fractions of a GPU come with a later design.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from grove_server.placement.nodes import GPUS_MAX

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


def mask_of(ids: tuple[int, ...] | frozenset[int]) -> int:
    """Return the mask of some ids."""
    mask = 0
    for gpu_id in ids:
        mask |= 1 << gpu_id
    return mask


@lru_cache(maxsize=16_384)
def take(free: int, gpu_count: int) -> tuple[tuple[int, ...], int]:
    """Return (ids for one pod that needs `gpu_count`, the mask left free); ValueError if too few are free.

    The cache is a pure table: 256 masks times 9 counts cover every 8-GPU node.
    """
    if free.bit_count() < gpu_count:
        raise ValueError(f"{gpu_count} GPUs asked for, {free.bit_count()} are free")
    if gpu_count == 0:
        return (), free
    size = 1 << (gpu_count - 1).bit_length()
    while size <= 2 * GPUS_MAX:
        block = _tightest_block(free, gpu_count, size)
        if block:
            ids = ids_of(block)[:gpu_count]
            return ids, free & ~mask_of(ids)
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


@lru_cache(maxsize=16_384)
def take_for_pods(free: int, gpu_count: int, pod_count: int) -> tuple[tuple[tuple[int, ...], ...], int]:
    """Return (ids for each of `pod_count` equal pods, the mask left free); ValueError if too few are free."""
    taken = []
    for _ in range(pod_count):
        ids, free = take(free, gpu_count)
        taken.append(ids)
    return tuple(taken), free
