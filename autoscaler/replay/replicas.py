"""A replica's life in the plant: ordered, scheduled when GPUs are free, ready after its cold start, draining, gone."""

from __future__ import annotations

import math
from enum import StrEnum


class Role(StrEnum):
    """What a replica does for a request."""

    PREFILL = "prefill"
    DECODE = "decode"


class Replica:
    """One replica. Times are seconds of the trace; `inf` has not come yet."""

    __slots__ = (
        "busy_from_s",
        "busy_s",
        "drain_deadline_s",
        "finishes",
        "free_s",
        "generated",
        "gone_s",
        "index",
        "is_draining",
        "is_serving",
        "kv_tokens",
        "ordered_s",
        "ready_s",
        "reserved_tokens",
        "resident_s",
        "residents",
        "role",
        "scheduled_s",
        "slot",
        "token_clock",
        "tokens",
        "updated_s",
        "version",
    )

    def __init__(self, index: int, role: Role, ordered_s: float) -> None:
        self.index = index
        self.role = role
        self.ordered_s = ordered_s
        self.scheduled_s = math.inf
        self.ready_s = math.inf
        self.drain_deadline_s = math.inf
        self.gone_s = math.inf
        self.is_draining = False
        self.is_serving = False
        # Prefill: when it is free again, how long it was given work for, how many prompt tokens.
        self.free_s = 0.0
        self.busy_s = 0.0
        self.tokens = 0
        # Decode: since when it has had residents, or had none; `busy_s` is the time before that with residents.
        self.busy_from_s = 0.0
        # Who is resident, the clock that counts tokens of one sequence, and what is pledged to residents.
        self.residents = 0
        self.token_clock = 0.0
        self.updated_s = 0.0
        self.kv_tokens = 0.0
        self.reserved_tokens = 0
        self.generated = 0.0
        # Seconds that requests have been resident, over all of them: tokens times the time between them.
        self.resident_s = 0.0
        self.version = 0
        # Residents by the reading of the token clock at which they end: (reading, request, tokens at its end).
        self.finishes: list[tuple[float, int, int]] = []
        # Where it stands among the replicas that take requests; -1 when it takes none.
        self.slot = -1

    @property
    def is_scheduled(self) -> bool:
        """Return whether it holds GPUs."""
        return self.scheduled_s < math.inf and self.gone_s == math.inf

    def is_ready(self, now_s: float) -> bool:
        """Return whether it serves new requests."""
        return self.ready_s <= now_s and not self.is_draining and self.gone_s == math.inf
