"""The decode half of the plant: continuous batching, a clock of tokens per replica.

All residents of a replica get a token in each step, and a step takes `a + b * residents + c * KV tokens`. Between a
join and an end the number of residents stands still and KV grows by their number with each token, so the time of `n`
more tokens is a quadratic with a closed form; residents are kept by the reading of the clock at which they end. A
request costs a few heap operations, however long its answer is.

Approximations: tokens are continuous, so a request joins in the middle of a step. The router gives a request to the
replica with the fewest residents. A request is admitted when its whole context at its end has room: that stands for
preemption, which engines do instead, later and at a cost. Those without room wait in one queue, first come first
served. A replica's KV is what residents have now, not what is pledged to them.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from heapq import heappop, heappush

from autoscaler.replay.prefill import Join
from autoscaler.replay.replicas import Replica
from autoscaler.replay.service_times import ServiceTimes


class DecodePool:
    """Decode replicas and the queue before them; `first_s` and `finish_s` have an entry a request, inf until then."""

    def __init__(self, requests: int, truth: ServiceTimes) -> None:
        self._truth = truth
        self._active: list[Replica] = []
        self._loads: list[int] = []
        self._events: list[tuple[float, int, int, Replica]] = []
        self._queue: deque[Join] = deque()
        self._queue_tokens = 0
        self.first_s = array("d", [math.inf]) * requests
        self.finish_s = array("d", [math.inf]) * requests
        # Requests with a first token, and with their last, since somebody looked.
        self.firsts: list[int] = []
        self.finished: list[int] = []
        self.aborted = 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Return the requests that wait for room, and their prompt tokens."""
        return len(self._queue), self._queue_tokens

    def admit(self, replica: Replica, now_s: float) -> None:
        """Let a ready replica take requests, first of those that wait."""
        replica.updated_s = now_s
        replica.slot = len(self._active)
        self._active.append(replica)
        self._loads.append(0)
        self._take_waiting(replica, now_s)

    def release(self, replica: Replica) -> None:
        """Give a replica no more requests; its residents go on."""
        if replica.slot >= 0:
            del self._active[replica.slot], self._loads[replica.slot]
            for slot, each in enumerate(self._active):
                each.slot = slot
            replica.slot = -1

    def abort(self, replica: Replica) -> None:
        """End a replica at once, with all its residents."""
        self.aborted += len(replica.finishes)
        replica.finishes.clear()
        replica.residents = 0
        replica.version += 1

    def advance(self, until_s: float, joins: list[Join], start: int) -> int:
        """Carry out everything before `until_s`: ends, and joins in order of time from `joins[start]` on.

        Return how many of the joins were taken, counted from the list's start.
        """
        events, count = self._events, len(joins)
        join_s = joins[start][0] if start < count else math.inf
        while True:
            while events and events[0][2] != events[0][3].version:
                heappop(events)
            finish_s = events[0][0] if events else math.inf
            if finish_s <= join_s:
                if finish_s >= until_s:
                    return start
                self._finish(heappop(events)[3], finish_s)
                continue
            if join_s >= until_s:
                return start
            self._join(joins[start])
            start += 1
            join_s = joins[start][0] if start < count else math.inf

    def _join(self, join: Join) -> None:
        at_s, request, prompt, output = join
        if output <= 1:
            # The first token is the whole answer, and prefill made it.
            self.first_s[request] = self.finish_s[request] = at_s
            self.firsts.append(request)
            self.finished.append(request)
            return
        loads = self._loads
        if loads and not self._queue:
            replica = self._active[loads.index(min(loads))]
            if self._fits(replica, prompt + output):
                self._place(replica, at_s, request, prompt, output)
                return
            for other in self._active:
                if self._fits(other, prompt + output):
                    self._place(other, at_s, request, prompt, output)
                    return
        self._queue.append(join)
        self._queue_tokens += prompt

    def _fits(self, replica: Replica, tokens: int) -> bool:
        residents = replica.residents
        if not residents:
            return True
        truth = self._truth
        return residents < truth.sequences_max and replica.reserved_tokens + tokens <= truth.kv_tokens

    def _place(self, replica: Replica, at_s: float, request: int, prompt: int, output: int) -> None:
        """Make a request a resident."""
        if at_s > replica.updated_s:
            self.settle(replica, at_s)
        if not replica.residents:
            replica.busy_from_s = at_s
        replica.residents += 1
        replica.kv_tokens += prompt
        replica.reserved_tokens += prompt + output
        self._loads[replica.slot] += 1
        # The first token came with the prompt; each further one is a step.
        heappush(replica.finishes, (replica.token_clock + output - 1, request, prompt + output))
        self.first_s[request] = at_s
        self.firsts.append(request)
        self._expect(replica)

    def _finish(self, replica: Replica, at_s: float) -> None:
        """End the resident whose last token has come, and let others in."""
        reading, request, tokens = heappop(replica.finishes)
        ran = reading - replica.token_clock
        replica.generated += replica.residents * ran
        replica.kv_tokens += replica.residents * ran - (tokens - 1)
        replica.resident_s += replica.residents * (at_s - replica.updated_s)
        replica.token_clock = reading
        replica.updated_s = at_s
        replica.residents -= 1
        replica.reserved_tokens -= tokens
        if not replica.residents:
            replica.kv_tokens = 0.0
            replica.busy_s += at_s - replica.busy_from_s
        self.finish_s[request] = at_s
        self.finished.append(request)
        if replica.slot >= 0:
            self._loads[replica.slot] -= 1
            if self._queue:
                self._take_waiting(replica, at_s)
        self._expect(replica)

    def _take_waiting(self, replica: Replica, at_s: float) -> None:
        while self._queue and self._fits(replica, self._queue[0][2] + self._queue[0][3]):
            _, request, prompt, output = self._queue.popleft()
            self._queue_tokens -= prompt
            self._place(replica, at_s, request, prompt, output)

    def _expect(self, replica: Replica) -> None:
        """Put down when the next resident ends, as things stand."""
        replica.version += 1
        if not replica.finishes:
            return
        truth = self._truth
        ran = replica.finishes[0][0] - replica.token_clock
        residents = replica.residents
        step_s = (
            truth.step_base_s + truth.step_per_sequence_s * residents + truth.step_per_kv_token_s * replica.kv_tokens
        )
        needed_s = (step_s + 0.5 * truth.step_per_kv_token_s * residents * ran) * ran
        heappush(self._events, (replica.updated_s + needed_s, replica.index, replica.version, replica))

    def settle(self, replica: Replica, now_s: float) -> None:
        """Bring a replica's clock and KV to now; when its next resident ends does not change by that."""
        residents = replica.residents
        past_s = now_s - replica.updated_s
        if residents and past_s > 0:
            truth = self._truth
            half = 0.5 * truth.step_per_kv_token_s * residents
            step_s = (
                truth.step_base_s
                + truth.step_per_sequence_s * residents
                + truth.step_per_kv_token_s * replica.kv_tokens
            )
            # half * n^2 + step * n = past, solved so that a tiny half loses no digits.
            ran = 2 * past_s / (step_s + math.sqrt(step_s * step_s + 4 * half * past_s))
            ran = min(ran, replica.finishes[0][0] - replica.token_clock)
            replica.token_clock += ran
            replica.kv_tokens += residents * ran
            replica.generated += residents * ran
            replica.resident_s += residents * past_s
        replica.updated_s = max(now_s, replica.updated_s)

    @staticmethod
    def busy_s(replica: Replica, now_s: float) -> float:
        """Return how long a replica has decoded anything until now."""
        return replica.busy_s + (now_s - replica.busy_from_s if replica.residents else 0.0)
