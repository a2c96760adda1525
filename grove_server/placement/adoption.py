"""Which GPUs a pod has that runs already, as after a restart.

Rules: the pod is there, so its own ids are believed, broken GPUs included, as long as no other pod holds them; without
ids it gets what it would get today.

Not here: what pods will get (`assignment`).
"""

from __future__ import annotations

from grove_server.placement import gpus
from grove_server.placement.ledger import Ledger
from grove_server.placement.requests import GPU_RESOURCE, PodShape
from grove_server.resources.gpu_annotations import GPU_MILLI


class GpusHeldError(ValueError):
    """GPUs that other pods hold, or of which too few are free."""


def gpus_of_running(ledger: Ledger, slot: int, shape: PodShape, gpu_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the GPUs of a pod on a slot, `gpu_ids` if it says which; GpusHeldError if they cannot be its own."""
    if shape.gpu_milli:
        return (_shared(ledger, slot, shape.gpu_milli, gpu_ids),)
    wanted, free = shape.amount(GPU_RESOURCE), ledger.gpu_free[slot]
    if gpu_ids:
        held = ledger.gpu_taken[slot] | gpus.mask_of(ledger.shares.used.get(slot, ()))
        if gpus.mask_of(gpu_ids) & held:
            raise GpusHeldError(f"GPUs {list(gpu_ids)} are taken in part")
        return gpu_ids
    if free.bit_count() < wanted:
        raise GpusHeldError(f"{wanted} GPUs are wanted, {free.bit_count()} are free")
    return gpus.take(free, wanted, ledger.gpu_islands[slot])[0]


def _shared(ledger: Ledger, slot: int, milli: int, gpu_ids: tuple[int, ...]) -> int:
    if not gpu_ids:
        if not ledger.shares_fitting_at(slot, milli):
            raise GpusHeldError(f"{milli} milli of a GPU are wanted, no GPU has as much left")
        return gpus.take_share(ledger.open_of(slot), ledger.gpu_free[slot], milli, ledger.gpu_islands[slot])
    if len(gpu_ids) != 1:
        raise GpusHeldError(f"a share of one GPU is wanted, not of {list(gpu_ids)}")
    is_taken = ledger.gpu_taken[slot] >> gpu_ids[0] & 1
    used = GPU_MILLI if is_taken else ledger.shares.used.get(slot, {}).get(gpu_ids[0], 0)
    if used + milli > GPU_MILLI:
        raise GpusHeldError(f"GPU {gpu_ids[0]} has {GPU_MILLI - used} milli left, not {milli}")
    return gpu_ids[0]
