"""A port of Knative's pod autoscaler: a stable and a panic window over concurrency.

Source: knative/serving, `pkg/autoscaler/scaling/autoscaler.go`. It decides every 2 s. Here for comparison only. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

PERIOD_S: Final = 2.0
TARGET_BURST_CAPACITY: Final = 211.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The autoscaler's settings, with its defaults; `target` is what a pod should have, after utilisation."""

    target: float
    total: float
    stable_window_s: float = 60.0
    panic_window_percent: float = 10.0
    panic_threshold: float = 2.0
    up_rate_max: float = 1_000.0
    down_rate_max: float = 2.0
    down_delay_s: float = 0.0
    activation_scale: int = 0
    burst_capacity: float = TARGET_BURST_CAPACITY
    is_reachable: bool = True

    @property
    def panic_window_s(self) -> float:
        """Return the length of the panic window."""
        return self.stable_window_s * self.panic_window_percent / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the autoscaler asks for, and what is left for a burst: below 0 the activator stays in the path."""

    pods: int
    excess_burst_capacity: int


@dataclass(slots=True, kw_only=True)
class Autoscaler:
    """The memory of one revision."""

    settings: Settings
    _panic_s: float | None = None
    _panic_pods: int = 0
    _delayed: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def started(cls, settings: Settings, now_s: float, ready: int) -> Autoscaler:
        """Return an autoscaler that was just started: above one pod it panics, so that it cannot shrink at once."""
        if ready <= 1:
            return cls(settings=settings)
        return cls(settings=settings, _panic_s=now_s, _panic_pods=ready)

    def decide(self, now_s: float, ready: int, stable: float | None, panic: float | None) -> Wish | None:
        """Return the wish for averages over the two windows; None, to hold, when there is no data."""
        if stable is None or panic is None:
            return None
        settings = self.settings
        pods = max(1, ready)
        most = math.ceil(settings.up_rate_max * pods)
        least = math.floor(pods / settings.down_rate_max) if settings.is_reachable else 0
        stable_raw = math.ceil(round(stable / settings.target, 9))
        panic_raw = math.ceil(round(panic / settings.target, 9))
        stable_pods = min(max(stable_raw, least), most)
        panic_pods = min(max(panic_raw, least), most)
        if settings.activation_scale > 1:
            stable_pods = max(stable_pods, settings.activation_scale) if stable_raw > 0 else stable_pods
            panic_pods = max(panic_pods, settings.activation_scale) if panic_raw > 0 else panic_pods
        if panic_raw / pods >= settings.panic_threshold:
            self._panic_s = now_s
        elif self._panic_s is not None and now_s > self._panic_s + settings.stable_window_s:
            self._panic_s, self._panic_pods = None, 0
        wanted = stable_pods
        if self._panic_s is not None:
            # It never shrinks while it panics.
            self._panic_pods = max(self._panic_pods, stable_pods, panic_pods)
            wanted = self._panic_pods
        spare = math.floor(ready * settings.total - settings.burst_capacity - panic)
        return Wish(pods=self._held(now_s, wanted), excess_burst_capacity=spare)

    def _held(self, now_s: float, wanted: int) -> int:
        """Return the largest wish of the time that scale-down is delayed."""
        if self.settings.down_delay_s <= 0:
            return wanted
        kept = [(at_s, pods) for at_s, pods in self._delayed if at_s > now_s - self.settings.down_delay_s]
        self._delayed = [*kept, (now_s, wanted)]
        return max(pods for _, pods in self._delayed)
