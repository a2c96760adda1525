"""What Knative's autoscaler (KPA) would propose: concurrency over a stable and a panic window. Pure.

Written from the published behaviour of knative/serving pkg/autoscaler/scaling. A panic begins when the short window
asks for ``threshold`` times what is ready, ends a stable window after it last did, and never shrinks meanwhile. With
nothing remembered and more than one pod it begins in panic, so that a restart cannot shrink what it does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from autoscaler.memory import Mark, PanicMemory

_UP_RATE: Final = 1000.0
_DOWN_RATE: Final = 2.0
SAMPLES_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """The settings: target per replica, the two windows, and how much more than what is ready is a panic."""

    target: float
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    threshold: float = 2.0


def propose(
    settings: Concurrency, memory: PanicMemory | None, value: float, ready: int, now: float
) -> tuple[int, PanicMemory]:
    """Return the proposal for *value* requests in flight now, and what to remember."""
    if memory is None:
        memory = PanicMemory(panic_at=now if ready > 1 else None, panic_pods=ready if ready > 1 else 0)
    oldest = now - settings.stable_window_s
    samples = (*(mark for mark in memory.samples if mark[0] > oldest), (now, value))[-SAMPLES_MAX:]
    ready = max(1, ready)
    most, least = math.ceil(_UP_RATE * ready), math.floor(ready / _DOWN_RATE)
    stable = math.ceil(_mean(samples, oldest) / settings.target)
    panic = math.ceil(_mean(samples, now - settings.panic_window_s) / settings.target)
    is_over = panic / ready >= settings.threshold
    stable, panic = min(max(stable, least), most), min(max(panic, least), most)
    panic_at, pods = memory.panic_at, memory.panic_pods
    if is_over:
        panic_at = now
    elif panic_at is not None and now > panic_at + settings.stable_window_s:
        panic_at, pods = None, 0
    if panic_at is None:
        return stable, PanicMemory(samples=samples)
    pods = max(pods, stable, panic)
    return pods, PanicMemory(samples=samples, panic_at=panic_at, panic_pods=pods)


def _mean(samples: tuple[Mark, ...], after: float) -> float:
    values = [value for at, value in samples if at > after]
    return sum(values) / len(values) if values else samples[-1][1]
