"""Our autoscaler on the plant: the core that the service runs, `deciding.decide`, fed from the plant's scrapes.

What the service's signals make of Prometheus is made here of counters and gauges: rates over a minute, attainment
over two, gauges as they are. A scrape that failed leaves nothing to read, as Prometheus has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from autoscaler import observation as seen
from autoscaler.deciding import decide
from autoscaler.decision import Decision
from autoscaler.memory import Memory
from autoscaler.observation import RoleState, ScopeState, Snapshot
from autoscaler.policy import Policy
from autoscaler.replay.readings import PodReading, Reading, RoleSizes, Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.running import PERIOD_S, SCRAPE_S
from grove_server.resources.scaling_policy import DECODE, PREFILL

# A Wednesday's midnight, UTC: where a trace's time 0 is, for schedules and seasons.
EPOCH_S: Final = 1_780_444_800.0
_RATE_S: Final = 60.0
_ATTAINMENT_S: Final = 120.0
_LOOK_BACK_S: Final = 20.0


class CorePolicy:
    """One policy of two roles, one prefill and one decode, on the plant. ValueError for other roles."""

    scrape_s = SCRAPE_S
    period_s = PERIOD_S

    def __init__(self, policy: Policy, gpus_per_replica: int) -> None:
        roles = [role.role for role in policy.roles]
        if sorted(roles) != [DECODE, PREFILL]:
            raise ValueError(f"{policy.key}: replay takes one prefill and one decode role, not {roles}")
        self._policy = policy
        self._gpus = float(gpus_per_replica)
        self._memory = Memory()
        self._readings: deque[Reading] = deque()
        self.decision: Decision | None = None

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Keep a scrape for as long as a rate may need it."""
        if reading is not None:
            self._readings.append(reading)
        while self._readings and self._readings[0].at_s < now_s - _ATTAINMENT_S - SCRAPE_S:
            self._readings.popleft()

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:
        """Return what the core decides."""
        roles = []
        for role in self._policy.roles:
            is_prefill = role.role == PREFILL
            sizes = prefill if is_prefill else decode
            signals = _Signals(now_s, self._readings, sizes)
            roles.append(self._state(role.name, sizes, signals.of_prefill() if is_prefill else signals.of_decode()))
        scope = ScopeState(
            key=self._policy.key,
            copy=0,
            roles=tuple(roles),
            readings=_Signals(now_s, self._readings, prefill).of_scope(),
        )
        snapshot = Snapshot(at=EPOCH_S + now_s, tick_s=self.period_s, scopes=(scope,))
        decisions, self._memory = decide({self._policy.key: self._policy}, snapshot, self._memory)
        wanted = {PREFILL: prefill.wanted, DECODE: decode.wanted}
        for decision in decisions:
            self.decision = decision
            wanted |= {role.role: role.replicas for role in decision.roles}
        return Sizes(prefill=wanted[PREFILL], decode=wanted[DECODE])

    def _state(self, name: str, sizes: RoleSizes, readings: dict[str, seen.Reading]) -> RoleState:
        since_s = sizes.pending_since_s
        return RoleState(
            name=name,
            current=sizes.wanted,
            ready=len(sizes.ready),
            starting=sizes.starting,
            pending=sizes.pending,
            draining=sizes.draining,
            gpus_per_replica=self._gpus,
            pending_since=None if since_s is None else EPOCH_S + since_s,
            cold_starts_s=sizes.cold_starts_s,
            readings=readings,
        )


class _Signals:
    """The signals of a scope or a role at one time, out of scrapes."""

    def __init__(self, now_s: float, readings: deque[Reading], sizes: RoleSizes) -> None:
        self._now_s = now_s
        self._readings = readings
        is_recent = bool(readings) and readings[-1].at_s >= now_s - _LOOK_BACK_S
        self._last = readings[-1] if is_recent else None
        self._ready = frozenset(sizes.ready)
        self._expected = len(sizes.ready)

    def of_scope(self) -> dict[str, seen.Reading]:
        """Return the signals of arrivals and outcomes."""
        squares = self._mean(lambda one: one.arrived_squares, lambda one: one.arrived, _RATE_S)
        tokens = self._mean(lambda one: one.arrived_tokens, lambda one: one.arrived, _RATE_S)
        spread = squares / tokens**2 - 1 if squares is not None and tokens else None
        values: dict[str, tuple[float | None, str]] = {
            seen.ARRIVAL_REQUESTS: (self._rate(lambda one: one.arrived, _RATE_S), "req/s"),
            seen.ARRIVAL_TOKENS: (self._rate(lambda one: one.arrived_tokens, _RATE_S), "tokens/s"),
            seen.PROMPT_TOKENS: (tokens, "tokens"),
            seen.PROMPT_CV2: (None if spread is None else max(spread, 0.0), "ratio"),
            seen.OUTPUT_TOKENS: (
                self._mean(lambda one: one.finished_output_tokens, lambda one: one.finished, _RATE_S),
                "tokens",
            ),
            seen.TTFT_ATTAINMENT: (
                self._mean(lambda one: one.firsts_good, lambda one: one.firsts, _ATTAINMENT_S),
                "ratio",
            ),
            seen.ITL_ATTAINMENT: (
                self._mean(lambda one: one.finished_good, lambda one: one.finished, _ATTAINMENT_S),
                "ratio",
            ),
        }
        return {name: self._reading(value, unit) for name, (value, unit) in values.items()}

    def of_prefill(self) -> dict[str, seen.Reading]:
        """Return the signals of the prefill role."""
        last, pods = self._last, Role.PREFILL
        running = self._sum(pods, lambda pod: pod.running)
        return {
            seen.QUEUED_REQUESTS: self._reading(None if last is None else float(last.prefill_waiting), "requests"),
            seen.QUEUED_TOKENS: self._reading(None if last is None else float(last.prefill_waiting_tokens), "tokens"),
            seen.RUNNING_REQUESTS: self._pod_reading(pods, running, "requests", is_sum=True),
            seen.PREFILL_TOKENS: self._pod_reading(
                pods, self._pods_rate(pods, lambda pod: pod.tokens), "tokens/s", is_sum=True
            ),
            seen.PREFILL_SECONDS: self._reading(
                self._mean(lambda one: sum(pod.busy_s for pod in one.prefill), lambda one: one.started, _RATE_S),
                "seconds",
            ),
            seen.GPU_ACTIVITY: self._activity(pods),
        }

    def of_decode(self) -> dict[str, seen.Reading]:
        """Return the signals of the decode role."""
        last, pods = self._last, Role.DECODE
        used = self._sum(pods, lambda pod: pod.kv_used)
        reporting = self._reporting(pods)
        tokens = self._pods_rate(pods, lambda pod: pod.tokens)
        resident = self._pods_rate(pods, lambda pod: pod.resident_s)
        return {
            seen.RUNNING_REQUESTS: self._pod_reading(
                pods, self._sum(pods, lambda pod: pod.running), "requests", is_sum=True
            ),
            seen.DECODE_TOKENS: self._pod_reading(pods, tokens, "tokens/s", is_sum=True),
            seen.KV_USAGE: self._pod_reading(
                pods, used / reporting if used is not None and reporting else None, "ratio", is_sum=False
            ),
            seen.TRANSFER_QUEUE: self._reading(None if last is None else float(last.decode_waiting), "requests"),
            seen.QUEUED_REQUESTS: self._reading(None if last is None else float(last.decode_waiting), "requests"),
            seen.QUEUED_TOKENS: self._reading(None if last is None else float(last.decode_waiting_tokens), "tokens"),
            seen.ITL_SECONDS: self._reading(resident / tokens if resident is not None and tokens else None, "seconds"),
            seen.GPU_ACTIVITY: self._activity(pods),
        }

    # -- queries -------------------------------------------------------------------------------------------------------

    def _window(self, window_s: float) -> tuple[Reading, Reading] | None:
        """Return the first and last scrape of a window, if there are two and the last is not old."""
        inside = [reading for reading in self._readings if reading.at_s >= self._now_s - window_s - SCRAPE_S / 2]
        if self._last is None or len(inside) < 2:  # noqa: PLR2004 -- a rate needs two samples
            return None
        return inside[0], inside[-1]

    def _rate(self, counter: Callable[[Reading], float], window_s: float) -> float | None:
        ends = self._window(window_s)
        if ends is None:
            return None
        return (counter(ends[1]) - counter(ends[0])) / (ends[1].at_s - ends[0].at_s)

    def _mean(
        self, total: Callable[[Reading], float], count: Callable[[Reading], float], window_s: float
    ) -> float | None:
        """Return the growth of one counter by that of another; None where the other did not grow."""
        ends = self._window(window_s)
        if ends is None or count(ends[1]) <= count(ends[0]):
            return None
        return (total(ends[1]) - total(ends[0])) / (count(ends[1]) - count(ends[0]))

    def _ready_pods(self, reading: Reading, role: Role) -> list[PodReading]:
        pods = reading.prefill if role is Role.PREFILL else reading.decode
        return [pod for pod in pods if pod.pod in self._ready]

    def _reporting(self, role: Role) -> int:
        return len(self._ready_pods(self._last, role)) if self._last is not None else 0

    def _sum(self, role: Role, gauge: Callable[[PodReading], float]) -> float | None:
        pods = self._ready_pods(self._last, role) if self._last is not None else []
        return float(sum(map(gauge, pods))) if pods else None

    def _pods_rate(self, role: Role, counter: Callable[[PodReading], float]) -> float | None:
        """Return the summed rate of the ready pods, each over what of a minute it has."""
        if self._last is None:
            return None
        first: dict[int, tuple[float, float]] = {}
        total: float | None = None
        for reading in self._readings:
            if reading.at_s >= self._now_s - _RATE_S - SCRAPE_S / 2:
                for pod in self._ready_pods(reading, role):
                    first.setdefault(pod.pod, (reading.at_s, counter(pod)))
        for pod in self._ready_pods(self._last, role):
            at_s, was = first.get(pod.pod, (self._last.at_s, 0.0))
            if self._last.at_s > at_s:
                total = (total or 0.0) + (counter(pod) - was) / (self._last.at_s - at_s)
        return total

    def _activity(self, role: Role) -> seen.Reading:
        busy = self._pods_rate(role, lambda pod: pod.busy_s)
        reporting = self._reporting(role)
        value = min(busy / reporting, 1.0) if busy is not None and reporting else None
        return self._pod_reading(role, value, "ratio", is_sum=False)

    def _reading(self, value: float | None, unit: str) -> seen.Reading:
        age_s = self._now_s - self._last.at_s if self._last is not None else 0.0
        return seen.Reading(value=value, age_s=age_s, unit=unit, source="replay")

    def _pod_reading(self, role: Role, value: float | None, unit: str, *, is_sum: bool) -> seen.Reading:
        age_s = self._now_s - self._last.at_s if self._last is not None else 0.0
        return seen.Reading(
            value=value,
            age_s=age_s,
            reporting=self._reporting(role),
            expected=self._expected,
            is_sum=is_sum,
            unit=unit,
            source="replay",
        )
