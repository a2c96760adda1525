"""The ports at work on the plant: which metric of which role they are given, and with which targets.

Each policy is what its users write down: two HPAs that know nothing of each other, two ScaledObjects with one or two
Prometheus triggers each, two Knative revisions. Metrics come from the same scrapes as ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from autoscaler.replay import hpa, keda, kpa
from autoscaler.replay.readings import PodReading, Reading, RoleSizes, Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.running import PERIOD_S, SCRAPE_S

_ROLES: Final = (Role.PREFILL, Role.DECODE)
_HISTORY_S: Final = 180.0


def _pods(reading: Reading, role: Role) -> tuple[PodReading, ...]:
    return reading.prefill if role is Role.PREFILL else reading.decode


class _History:
    """The scrapes of the last minutes, as a query sees them; a scrape that failed is not among them."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()

    def add(self, now_s: float, reading: Reading | None) -> None:
        if reading is not None:
            self._readings.append(reading)
        while self._readings and self._readings[0].at_s < now_s - _HISTORY_S:
            self._readings.popleft()

    def since(self, now_s: float, window_s: float) -> list[Reading]:
        return [reading for reading in self._readings if reading.at_s >= now_s - window_s]

    def rate(self, now_s: float, window_s: float, counter: Callable[[Reading], float]) -> float | None:
        """Return a counter's growth a second over a window, as `rate()` has it; None without two samples."""
        readings = self.since(now_s, window_s)
        if len(readings) < 2:  # noqa: PLR2004 -- a rate needs two samples
            return None
        past_s = readings[-1].at_s - readings[0].at_s
        return (counter(readings[-1]) - counter(readings[0])) / past_s

    def pod_rates(self, now_s: float, window_s: float, role: Role, *, of_busy: bool) -> dict[int, float]:
        """Return a counter's growth a second for each pod that has two samples in a window."""
        first: dict[int, tuple[float, PodReading]] = {}
        rates: dict[int, float] = {}
        for reading in self.since(now_s, window_s):
            for pod in _pods(reading, role):
                at_s, was = first.setdefault(pod.pod, (reading.at_s, pod))
                if reading.at_s > at_s:
                    grown = pod.busy_s - was.busy_s if of_busy else pod.tokens - was.tokens
                    rates[pod.pod] = grown / (reading.at_s - at_s)
        return rates


# -- HPA ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaSettings:
    """GPU utilisation to aim at, 0 to 1, by role; and the window before it shrinks."""

    prefill: float = 0.6
    decode: float = 0.6
    down_window_s: float = hpa.DOWN_WINDOW_S


class HpaPolicy:
    """Two HPAs on GPU utilisation as DCGM exports it: averaged over its 30 s, and up to a scrape old."""

    scrape_s = SCRAPE_S
    period_s = PERIOD_S

    def __init__(self, settings: HpaSettings, least: Sizes, most: Sizes) -> None:
        behavior = hpa.Behavior(down=replace(hpa.DOWN, window_s=settings.down_window_s))
        self._targets = {Role.PREFILL: settings.prefill, Role.DECODE: settings.decode}
        self._controllers = {
            Role.PREFILL: hpa.Controller(behavior=behavior, replicas_min=least.prefill, replicas_max=most.prefill),
            Role.DECODE: hpa.Controller(behavior=behavior, replicas_min=least.decode, replicas_max=most.decode),
        }
        self._history = _History()

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Keep a scrape."""
        self._history.add(now_s, reading)

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:
        """Return what both HPAs set."""
        sizes = [self._decide(now_s, role, seen) for role, seen in zip(_ROLES, (prefill, decode), strict=True)]
        return Sizes(prefill=sizes[0], decode=sizes[1])

    def _decide(self, now_s: float, role: Role, seen: RoleSizes) -> int:
        rates = self._history.pod_rates(now_s, 40.0, role, of_busy=True)
        values = {str(index): rates[index] for index in seen.ready if index in rates}
        missing = [str(index) for index in seen.ready if index not in rates]
        unready = [f"starting-{number}" for number in range(seen.starting + seen.pending)]
        try:
            desired = hpa.pods_metric(values, self._targets[role], seen.wanted, unready=unready, missing=missing)
        except ValueError:
            return seen.wanted
        return self._controllers[role].decide(now_s, seen.wanted, desired)


# -- KEDA --------------------------------------------------------------------------------------------------------------

# What a trigger's query returns for a role; None when it has no samples.
_Query = Callable[[_History, float, Role], float | None]


def _latest(history: _History, now_s: float, of: Callable[[Reading], float]) -> float | None:
    """Return an instant query's answer: the last sample of five minutes' look-back, gone with a scrape that failed."""
    readings = history.since(now_s, SCRAPE_S + 1.0)
    return of(readings[-1]) if readings else None


def _average(history: _History, now_s: float, of: Callable[[Reading], float]) -> float | None:
    readings = history.since(now_s, 60.0)
    return sum(map(of, readings)) / len(readings) if readings else None


def _in_flight(reading: Reading, role: Role) -> float:
    waiting = reading.prefill_waiting if role is Role.PREFILL else reading.decode_waiting
    return waiting + sum(pod.running for pod in _pods(reading, role))


def _arrived(reading: Reading) -> float:
    return reading.arrived_tokens


def _generated_rate(history: _History, now_s: float, role: Role) -> float | None:
    rates = history.pod_rates(now_s, 120.0, role, of_busy=False)
    return sum(rates.values()) if rates else None


QUERIES: Final[Mapping[str, _Query]] = {
    "in_flight": lambda history, now_s, role: _latest(history, now_s, lambda reading: _in_flight(reading, role)),
    "in_flight_1m": lambda history, now_s, role: _average(history, now_s, lambda reading: _in_flight(reading, role)),
    "waiting": lambda history, now_s, role: _latest(
        history, now_s, lambda reading: reading.prefill_waiting if role is Role.PREFILL else reading.decode_waiting
    ),
    "backlog_tokens": lambda history, now_s, _: _average(
        history, now_s, lambda reading: reading.prefill_waiting_tokens + 1_000 * _in_flight(reading, Role.PREFILL)
    ),
    "kv_used": lambda history, now_s, _: _average(
        history, now_s, lambda reading: sum(pod.kv_used for pod in reading.decode)
    ),
    "arriving_tokens": lambda history, now_s, _: history.rate(now_s, 120.0, _arrived),
    "generated_tokens": _generated_rate,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaSettings:
    """Triggers by role, each a query and its target per pod; `ignores_null` as KEDA has it by default.

    The defaults are the leanest of 120 settings that kept 99.8 % on the tuning slices of `make replay-table`.
    """

    prefill: tuple[tuple[str, float], ...] = (("arriving_tokens", 4_400.0),)
    decode: tuple[tuple[str, float], ...] = (("in_flight_1m", 53.0), ("kv_used", 0.1))
    down_window_s: float = 900.0
    ignores_null: bool = True


class KedaPolicy:
    """Two ScaledObjects with Prometheus triggers; never to zero, as the others."""

    scrape_s = SCRAPE_S
    period_s = PERIOD_S

    def __init__(self, settings: KedaSettings, least: Sizes, most: Sizes) -> None:
        behavior = hpa.Behavior(down=replace(hpa.DOWN, window_s=settings.down_window_s))
        self._triggers = {
            role: [
                (QUERIES[query], keda.Trigger(target=target, ignores_null=settings.ignores_null))
                for query, target in triggers
            ]
            for role, triggers in ((Role.PREFILL, settings.prefill), (Role.DECODE, settings.decode))
        }
        self._controllers = {
            Role.PREFILL: hpa.Controller(behavior=behavior, replicas_min=least.prefill, replicas_max=most.prefill),
            Role.DECODE: hpa.Controller(behavior=behavior, replicas_min=least.decode, replicas_max=most.decode),
        }
        self._history = _History()

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Keep a scrape."""
        self._history.add(now_s, reading)

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:
        """Return what both ScaledObjects set."""
        sizes = [self._decide(now_s, role, seen) for role, seen in zip(_ROLES, (prefill, decode), strict=True)]
        return Sizes(prefill=sizes[0], decode=sizes[1])

    def _decide(self, now_s: float, role: Role, seen: RoleSizes) -> int:
        proposals = [self._proposal(now_s, role, seen, query, trigger) for query, trigger in self._triggers[role]]
        desired = hpa.combined(proposals, seen.wanted)
        return seen.wanted if desired is None else self._controllers[role].decide(now_s, seen.wanted, desired)

    def _proposal(self, now_s: float, role: Role, seen: RoleSizes, query: _Query, trigger: keda.Trigger) -> int | None:
        value = query(self._history, now_s, role)
        try:
            metric = trigger.metric([] if value is None else [value], seen.wanted)
        except keda.ScalerError:
            return None
        return hpa.average_value_metric(metric, trigger.target, seen.wanted)


# -- KPA ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KpaSettings:
    """Concurrency to aim at by role, after Knative's 70 %, and the stable window."""

    prefill: float = 0.4
    decode: float = 24.0
    stable_window_s: float = 300.0
    down_delay_s: float = 0.0


class KpaPolicy:
    """Two revisions scaled by concurrency, requests in the queue before them counted, as the activator's are."""

    scrape_s = kpa.PERIOD_S
    period_s = kpa.PERIOD_S

    def __init__(self, settings: KpaSettings, least: Sizes, most: Sizes) -> None:
        self._settings = {
            role: kpa.Settings(
                target=target,
                total=target / 0.7,
                stable_window_s=settings.stable_window_s,
                down_delay_s=settings.down_delay_s,
            )
            for role, target in ((Role.PREFILL, settings.prefill), (Role.DECODE, settings.decode))
        }
        self._bounds = {Role.PREFILL: (least.prefill, most.prefill), Role.DECODE: (least.decode, most.decode)}
        self._autoscalers: dict[Role, kpa.Autoscaler] = {}
        self._buckets: dict[Role, deque[tuple[float, float]]] = {role: deque() for role in _ROLES}

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Keep the concurrency of both roles."""
        for role, buckets in self._buckets.items():
            if reading is not None:
                buckets.append((now_s, _in_flight(reading, role)))
            while buckets and buckets[0][0] <= now_s - self._settings[role].stable_window_s:
                buckets.popleft()

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:
        """Return what both revisions get."""
        sizes = [self._decide(now_s, role, seen) for role, seen in zip(_ROLES, (prefill, decode), strict=True)]
        return Sizes(prefill=sizes[0], decode=sizes[1])

    def _decide(self, now_s: float, role: Role, seen: RoleSizes) -> int:
        settings, buckets = self._settings[role], self._buckets[role]
        autoscaler = self._autoscalers.get(role)
        if autoscaler is None:
            autoscaler = kpa.Autoscaler.started(settings, now_s, len(seen.ready))
            self._autoscalers[role] = autoscaler
        stable = panic = None
        recent = [value for at_s, value in buckets if at_s > now_s - settings.panic_window_s]
        if recent:
            stable = sum(value for _, value in buckets) / len(buckets)
            panic = sum(recent) / len(recent)
        wish = autoscaler.decide(now_s, len(seen.ready), stable, panic)
        low, high = self._bounds[role]
        return seen.wanted if wish is None else min(max(wish.pods, low), high)
