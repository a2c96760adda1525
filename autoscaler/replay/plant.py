"""The plant: what a policy controls. Requests, replicas of prefill and decode, GPUs; the same for all policies.

A replica holds GPUs from the time it is scheduled until it has drained. It is ready after its cold start. One that is
scaled in takes nothing new, finishes what it has, and is stopped with what is left at the drain timeout. A scale call
that wants more than the GPUs allow leaves replicas pending; they are scheduled as GPUs become free. Who leaves: pending
replicas first, then those that start, then the ones with the least to do, as the server chooses.

The seed decides cold starts and noise alone: the same trace with the same seed meets every policy in the same way.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from autoscaler.replay.decode import DecodePool
from autoscaler.replay.faults import Faults
from autoscaler.replay.prefill import Join, PrefillPool
from autoscaler.replay.readings import PodReading, Reading, RoleSizes, Sizes
from autoscaler.replay.replicas import Replica, Role
from autoscaler.replay.service_times import ServiceTimes, Slo
from autoscaler.replay.traces import Trace

_NOISE_SIGMA: Final = 0.08
_STARTS_KEPT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run is about, besides the trace and the policy."""

    truth: ServiceTimes
    slo: Slo = field(default_factory=Slo)
    seed: int = 0
    cold_start_s: float = 120.0
    cold_start_sigma: float = 0.1
    drain_timeout_s: float = 600.0
    gpus_per_replica: int = 4
    gpus: int = 320
    sizes_max: Sizes = field(default_factory=lambda: Sizes(prefill=40, decode=40))
    sizes_min: Sizes = field(default_factory=lambda: Sizes(prefill=1, decode=1))
    start: Sizes = field(default_factory=lambda: Sizes(prefill=4, decode=4))
    faults: Faults = field(default_factory=Faults)


class Plant:
    """Replicas and requests of one run, from time 0."""

    def __init__(self, trace: Trace, setting: Setting) -> None:
        chance = np.random.default_rng((setting.seed, 11))
        noise = chance.lognormal(0.0, _NOISE_SIGMA, len(trace))
        self.trace = trace
        self.setting = setting
        self.now_s = 0.0
        self.replicas: list[Replica] = []
        self.decode = DecodePool(len(trace), setting.truth)
        self.prefill = PrefillPool(trace, setting.truth, noise)
        self._cold_starts = chance.lognormal(0.0, setting.cold_start_sigma, 4_096) * setting.cold_start_s
        self._joins: list[Join] = []
        self._wanted = {Role.PREFILL: 0, Role.DECODE: 0}
        self._alive: list[Replica] = []
        self._started: dict[Role, deque[float]] = {role: deque(maxlen=_STARTS_KEPT) for role in Role}
        self._firsts = self._firsts_good = self._finished = self._finished_good = 0
        self._prompt_tokens = self._output_tokens = 0
        self._ttft_s = setting.slo.ttft_s + setting.slo.ttft_per_1k_tokens_s * trace.prompt_tokens / 1_000
        for role, size in ((Role.PREFILL, setting.start.prefill), (Role.DECODE, setting.start.decode)):
            self._wanted[role] = size
            for _ in range(size):
                replica = self._new(role)
                replica.scheduled_s = replica.ready_s = 0.0
                self._serve(replica)

    # -- time ----------------------------------------------------------------------------------------------------------

    def advance(self, until_s: float) -> None:
        """Let time pass, with everything that comes before `until_s`."""
        while self.now_s < until_s:
            step_s = min([until_s, *(at_s for at_s in self._changes() if at_s > self.now_s)])
            self._pass(step_s)
            self.now_s = step_s
            self._turn()

    def _changes(self) -> list[float]:
        """Return when replicas get ready, or are stopped whether they have drained or not."""
        changes = [replica.ready_s for replica in self._alive if not replica.is_draining]
        changes += [replica.drain_deadline_s for replica in self._alive if replica.is_draining]
        return changes

    def _pass(self, until_s: float) -> None:
        self._joins += self.prefill.advance(until_s)
        self._joins.sort()
        taken = self.decode.advance(until_s, self._joins, 0)
        del self._joins[:taken]

    def _turn(self) -> None:
        """See to replicas that became ready, have drained, ran out of time to drain, or find GPUs now."""
        now_s = self.now_s
        for replica in self._alive:
            if replica.is_draining:
                self._drain(replica)
            elif not replica.is_serving and replica.ready_s <= now_s:
                self._started[replica.role].append(replica.ready_s - replica.scheduled_s)
                self._serve(replica)
        self._alive = [replica for replica in self._alive if replica.gone_s == math.inf]
        for replica in self._alive:
            if not replica.is_scheduled and self._schedules(replica):
                replica.scheduled_s = now_s
                replica.ready_s = now_s + float(self._cold_starts[replica.index % len(self._cold_starts)])

    def _schedules(self, replica: Replica) -> bool:
        used = sum(each.is_scheduled for each in self._alive)
        has_room = (used + 1) * self.setting.gpus_per_replica <= self.setting.gpus
        return has_room and self.setting.faults.schedules(replica.role, self.now_s)

    def _serve(self, replica: Replica) -> None:
        replica.is_serving = True
        if replica.role is Role.PREFILL:
            self.prefill.admit(replica, self.now_s)
        else:
            self.decode.admit(replica, self.now_s)

    def _drain(self, replica: Replica) -> None:
        if replica.role is Role.PREFILL:
            # A prompt takes seconds at most: it is always waited for.
            if replica.free_s <= self.now_s:
                replica.gone_s = replica.free_s
        elif not replica.residents:
            replica.gone_s = min(max(replica.updated_s, replica.scheduled_s), self.now_s)
        elif self.now_s >= replica.drain_deadline_s:
            self.decode.abort(replica)
            replica.gone_s = self.now_s

    # -- scaling -------------------------------------------------------------------------------------------------------

    def scale(self, role: Role, size: int) -> bool:
        """Ask for a size, inside the role's bounds; return whether the call succeeded."""
        least, most = self.setting.sizes_min, self.setting.sizes_max
        low, high = (least.prefill, most.prefill) if role is Role.PREFILL else (least.decode, most.decode)
        size = min(max(size, low), high)
        if size != self._wanted[role] and not self.setting.faults.accepts(role, self.now_s):
            return False
        self._wanted[role] = size
        members = self._members(role)
        for _ in range(size - len(members)):
            self._new(role)
        for replica in self._leaving(members)[: max(len(members) - size, 0)]:
            self._retire(replica)
        self._turn()
        return True

    def _members(self, role: Role) -> list[Replica]:
        return [replica for replica in self._alive if replica.role is role and not replica.is_draining]

    def _new(self, role: Role) -> Replica:
        replica = Replica(len(self.replicas), role, self.now_s)
        self.replicas.append(replica)
        self._alive.append(replica)
        return replica

    def _leaving(self, members: list[Replica]) -> list[Replica]:
        """Return members, those first that leave first."""
        now_s = self.now_s

        def cost(replica: Replica) -> tuple[float, ...]:
            if not replica.is_ready(now_s):
                return (replica.is_scheduled, -replica.ordered_s, -replica.index)
            return (2, replica.residents, max(replica.free_s - now_s, 0.0), -replica.index)

        return sorted(members, key=cost)

    def _retire(self, replica: Replica) -> None:
        replica.is_draining = True
        if not replica.is_serving:
            replica.gone_s = self.now_s
            return
        replica.drain_deadline_s = self.now_s + self.setting.drain_timeout_s
        if replica.role is Role.PREFILL:
            self.prefill.release(replica)
        else:
            self.decode.settle(replica, self.now_s)
            self.decode.release(replica)

    # -- looking -------------------------------------------------------------------------------------------------------

    def sizes(self, role: Role) -> RoleSizes:
        """Return a role as the API shows it."""
        of_role = [replica for replica in self._alive if replica.role is role]
        members = [replica for replica in of_role if not replica.is_draining]
        ready = tuple(replica.index for replica in members if replica.is_ready(self.now_s))
        pending = [replica.ordered_s for replica in members if not replica.is_scheduled]
        return RoleSizes(
            wanted=self._wanted[role],
            ready=ready,
            starting=len(members) - len(ready) - len(pending),
            pending=len(pending),
            pending_since_s=min(pending, default=None),
            cold_starts_s=tuple(self._started[role]),
            draining=len(of_role) - len(members),
        )

    def read(self) -> Reading:
        """Return what a scrape would see now."""
        self._count()
        now_s = self.now_s
        arrived, arrived_tokens, arrived_squares = self.prefill.arrived(now_s)
        waiting, waiting_tokens = self.prefill.waiting(now_s)
        decode_waiting, decode_waiting_tokens = self.decode.waiting
        serving = [replica for replica in self._alive if replica.ready_s <= now_s]
        return Reading(
            at_s=now_s,
            arrived=arrived,
            arrived_tokens=arrived_tokens,
            arrived_squares=arrived_squares,
            started=self.prefill.started,
            prefill_waiting=waiting,
            prefill_waiting_tokens=waiting_tokens,
            decode_waiting=decode_waiting,
            decode_waiting_tokens=decode_waiting_tokens,
            firsts=self._firsts,
            firsts_good=self._firsts_good,
            finished=self._finished,
            finished_good=self._finished_good,
            finished_prompt_tokens=self._prompt_tokens,
            finished_output_tokens=self._output_tokens,
            prefill=tuple(self._prefill_pod(each) for each in serving if each.role is Role.PREFILL),
            decode=tuple(self._decode_pod(each) for each in serving if each.role is Role.DECODE),
        )

    def _prefill_pod(self, replica: Replica) -> PodReading:
        busy_s = self.prefill.busy_s(replica, self.now_s)
        return PodReading(replica.index, int(replica.free_s > self.now_s), 0.0, replica.tokens, busy_s, 0.0)

    def _decode_pod(self, replica: Replica) -> PodReading:
        self.decode.settle(replica, self.now_s)
        kv_used = replica.kv_tokens / self.setting.truth.kv_tokens
        busy_s = self.decode.busy_s(replica, self.now_s)
        return PodReading(replica.index, replica.residents, kv_used, replica.generated, busy_s, replica.resident_s)

    def _count(self) -> None:
        """Add up what got its first token or its last since the last look."""
        firsts = np.array(self.decode.firsts, dtype=np.int64)
        finished = np.array(self.decode.finished, dtype=np.int64)
        self.decode.firsts.clear()
        self.decode.finished.clear()
        first_s = np.frombuffer(self.decode.first_s)
        finish_s = np.frombuffer(self.decode.finish_s)
        self._firsts += len(firsts)
        ttft_s = first_s[firsts] - self.trace.arrival_s[firsts]
        self._firsts_good += int((ttft_s <= self._ttft_s[firsts]).sum())
        outputs = self.trace.output_tokens[finished]
        per_token_s = (finish_s[finished] - first_s[finished]) / np.maximum(outputs - 1, 1)
        self._finished += len(finished)
        self._finished_good += int((per_token_s <= self.setting.slo.itl_s).sum())
        self._prompt_tokens += int(self.trace.prompt_tokens[finished].sum())
        self._output_tokens += int(outputs.sum())
