"""What goes wrong in a replay: metrics that stop, lie or jump, and replicas and calls that fail.

A window is (from, to) in seconds of the trace, its end not included.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from autoscaler.replay.readings import PodReading, Reading
from autoscaler.replay.replicas import Role

Window = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The faults of one run; none by default."""

    # No scrape answers.
    gaps: tuple[Window, ...] = ()
    # Half of the pods do not answer.
    half: tuple[Window, ...] = ()
    # Each sample inside shows queues and arrivals ten times as large as they are.
    spikes: tuple[Window, ...] = ()
    # The last values of pods that went in the window stay.
    frozen: tuple[Window, ...] = ()
    # New replicas of a role find no node, though there are GPUs.
    unschedulable: tuple[tuple[Role, Window], ...] = ()
    # Calls to scale a role are refused.
    refused: tuple[tuple[Role, Window], ...] = ()

    def schedules(self, role: Role, now_s: float) -> bool:
        """Return whether replicas of a role find nodes."""
        return not any(role is which and _inside(window, now_s) for which, window in self.unschedulable)

    def accepts(self, role: Role, now_s: float) -> bool:
        """Return whether calls to scale a role succeed."""
        return not any(role is which and _inside(window, now_s) for which, window in self.refused)


@dataclass(slots=True)
class Scraper:
    """Carries readings to policies as faults leave them."""

    faults: Faults
    _ghosts: dict[tuple[Role, int], PodReading] = field(default_factory=dict)

    def seen(self, reading: Reading) -> Reading | None:
        """Return what of a reading arrives; None in a gap."""
        faults, now_s = self.faults, reading.at_s
        if any(_inside(window, now_s) for window in faults.gaps):
            return None
        if any(_inside(window, now_s) for window in faults.half):
            reading = replace(reading, prefill=reading.prefill[::2], decode=reading.decode[::2])
        if any(_inside(window, now_s) for window in faults.spikes):
            reading = replace(
                reading,
                arrived=reading.arrived + 9 * reading.prefill_waiting + 900,
                arrived_tokens=reading.arrived_tokens + 9 * reading.prefill_waiting_tokens + 900_000,
                prefill_waiting=10 * reading.prefill_waiting + 100,
                prefill_waiting_tokens=10 * reading.prefill_waiting_tokens + 100_000,
                decode_waiting=10 * reading.decode_waiting + 100,
                decode_waiting_tokens=10 * reading.decode_waiting_tokens + 100_000,
            )
        if faults.frozen:
            reading = self._with_ghosts(reading, is_frozen=any(_inside(window, now_s) for window in faults.frozen))
        return reading

    def _with_ghosts(self, reading: Reading, *, is_frozen: bool) -> Reading:
        alive = {(Role.PREFILL, pod.pod): pod for pod in reading.prefill}
        alive |= {(Role.DECODE, pod.pod): pod for pod in reading.decode}
        self._ghosts = {**self._ghosts, **alive} if is_frozen else alive
        shown = sorted(self._ghosts.items())
        return replace(
            reading,
            prefill=tuple(pod for (role, _), pod in shown if role is Role.PREFILL),
            decode=tuple(pod for (role, _), pod in shown if role is Role.DECODE),
        )


def _inside(window: Window, now_s: float) -> bool:
    return window[0] <= now_s < window[1]
