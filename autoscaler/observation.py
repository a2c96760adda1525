"""What is known at one moment: the inventory of every role, and readings of signals. Pure; the core's input.

A *scope* is one policy applied to one copy of its set. Readings are facts (a value, its age, how many pods it covers,
what is wrong with it); whether they are good enough is judged by the core with the policy's limits. A reading that is
not there, or has no value, is unknown, and never zero.

Not here: where readings come from (``signals``), and how they are judged (``validating``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Signals of a whole scope, as the core knows them. All are of now, rates over the last minute or so.
ARRIVAL_REQUESTS: Final = "arrival_requests"  # req/s that came in, not that were finished
ARRIVAL_TOKENS: Final = "arrival_tokens"  # tokens/s of prompts that came in and are not cached
PROMPT_TOKENS: Final = "prompt_tokens"  # mean tokens of a prompt, cached ones included
PROMPT_CV2: Final = "prompt_cv2"  # squared coefficient of variation of uncached prompt lengths
OUTPUT_TOKENS: Final = "output_tokens"  # mean tokens of an answer, of requests that finished
TTFT_ATTAINMENT: Final = "ttft_attainment"  # ratio of requests within the time to first token
ITL_ATTAINMENT: Final = "itl_attainment"  # ratio of tokens (or requests) within the inter-token time
ROUTER_QUEUE: Final = "router_queue"  # requests that no pod has yet, e.g. because there is none
# Signals of a role.
QUEUED_REQUESTS: Final = "queued_requests"  # requests that wait in the role's pods, sum
QUEUED_TOKENS: Final = "queued_tokens"  # prompt tokens that wait, sum
RUNNING_REQUESTS: Final = "running_requests"  # requests being worked on, sum
PREFILL_TOKENS: Final = "prefill_tokens"  # tokens/s computed in prefill, sum
DECODE_TOKENS: Final = "decode_tokens"  # tokens/s generated, sum
KV_USAGE: Final = "kv_usage"  # ratio of the KV cache in use, mean over pods
TRANSFER_QUEUE: Final = "transfer_queue"  # requests whose prompt is done and that no decode batch has, sum
PREFILL_SECONDS: Final = "prefill_seconds"  # mean seconds that a prefill took, waiting excluded
ITL_SECONDS: Final = "itl_seconds"  # mean seconds between two tokens
QUEUE_SECONDS: Final = "queue_seconds"  # mean seconds that a request waited
GPU_ACTIVITY: Final = "gpu_activity"  # ratio, DCGM's GR_ENGINE_ACTIVE, mean over GPUs
SCOPE_SIGNALS: Final = (
    ARRIVAL_REQUESTS,
    ARRIVAL_TOKENS,
    PROMPT_TOKENS,
    PROMPT_CV2,
    OUTPUT_TOKENS,
    TTFT_ATTAINMENT,
    ITL_ATTAINMENT,
    ROUTER_QUEUE,
)
ROLE_SIGNALS: Final = (
    QUEUED_REQUESTS,
    QUEUED_TOKENS,
    RUNNING_REQUESTS,
    PREFILL_TOKENS,
    DECODE_TOKENS,
    KV_USAGE,
    TRANSFER_QUEUE,
    PREFILL_SECONDS,
    ITL_SECONDS,
    QUEUE_SECONDS,
    GPU_ACTIVITY,
)
MISSING_PODS_SHOWN_MAX: Final = 8


class Fault(enum.StrEnum):
    """What is wrong with a reading, as its source found it."""

    NONE = ""
    ERROR = "error"
    NOT_FINITE = "not-finite"
    OUT_OF_RANGE = "out-of-range"
    FROZEN = "frozen"
    AMBIGUOUS = "ambiguous"


class Freshness(enum.StrEnum):
    """How far a reading can be trusted. SUSPECT: it may ask for more, within limits, and for nothing less."""

    FRESH = "FRESH"
    STALE = "STALE"
    MISSING = "MISSING"
    SUSPECT = "SUSPECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One signal's value for a scope or a role, aggregated over pods as its definition says.

    ``value`` is None if nothing is known. ``age_s`` is that of the oldest sample in it. Of a signal per pod,
    ``reporting`` of ``expected`` ready pods are in it (and ``missing`` names a few that are not); else both are 1.
    ``is_sum`` says that the value grows with the number of pods, so that missing ones are to be made up for.
    """

    value: float | None
    age_s: float = 0.0
    reporting: int = 1
    expected: int = 1
    is_sum: bool = False
    unit: str = ""
    fault: Fault = Fault.NONE
    message: str = ""
    source: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """The inventory of one role of one copy, in replicas (pods of a clique, replicas of a group).

    ``current`` is the size asked for; it divides into ``ready``, ``starting`` (placed, not ready yet) and ``pending``
    (no place yet); what leaves is in ``draining`` and counts no more. ``pending_since`` is since when the oldest
    pending one waits. ``sick`` ready replicas do no work although there is some. ``cold_starts_s`` are the last
    measured times from asking to ready. ``conflict`` says who else sets the size, ``failing`` why the last scale call
    failed; empty if there is nothing to say.
    """

    name: str
    current: int
    ready: int
    starting: int = 0
    pending: int = 0
    draining: int = 0
    failed: int = 0
    sick: int = 0
    min_available: int = 1
    gpus_per_replica: float = 1.0
    pending_since: float | None = None
    cold_starts_s: tuple[float, ...] = ()
    conflict: str = ""
    failing: str = ""
    target_kind: str = ""
    target_name: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of one direction ("in", "out" or "both") that somebody asked for, until a time."""

    direction: str
    until: float
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A size that somebody asked for, until a time."""

    role: str
    replicas: int
    until: float
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeState:
    """One copy of a policy's set. ``key`` is the policy's ("namespace/name"); ``roles`` in the policy's order."""

    key: str
    copy: int
    roles: tuple[RoleState, ...]
    readings: Mapping[str, Reading] = field(default_factory=dict)
    pauses: tuple[Pause, ...] = ()
    overrides: tuple[Override, ...] = ()

    @property
    def id(self) -> str:
        """What names the scope in memory and in decisions: "namespace/name#copy"."""
        return f"{self.key}#{self.copy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All scopes at one moment (``at``, epoch seconds); ``tick_s`` is how long until the next one."""

    at: float
    tick_s: float
    scopes: tuple[ScopeState, ...]
