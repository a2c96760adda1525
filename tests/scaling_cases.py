"""Policies, snapshots and a small world for tests of the autoscaler's core.

Figures of the profile are those of a 70B model on four H100 (prefill 9,300 tokens/s, decode step 28.6 ms + 0.281 ms a
sequence + 123 ns a KV token), requests those of a chat: prompts of 1,155 tokens, answers of 211.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import TypeAdapter

from autoscaler import observation as seen
from autoscaler.deciding import decide
from autoscaler.decision import Decision, RoleDecision
from autoscaler.memory import Memory
from autoscaler.observation import Override, Pause, Reading, RoleState, ScopeState, Snapshot
from autoscaler.policy import Policy, Tuning, compile_policy
from grove_server.resources.scaling_policy import ScalingPolicySpec

START: Final = 1_700_000_000.0
TICK_S: Final = 15.0
PROMPT: Final = 1155.0
ANSWER: Final = 211.0
# Pinned, so that what replay finds out about the defaults does not change what is expected here.
TUNING: Final = Tuning(
    prefill_utilization=0.7,
    prefill_scale_in_utilization=0.6,
    decode_utilization=0.8,
    decode_scale_in_utilization=0.7,
    itl_margin=0.1,
)
_SPEC: Final = TypeAdapter(ScalingPolicySpec)

PREFILL_ROLE: Final[Mapping[str, Any]] = {
    "name": "prefill",
    "role": "prefill",
    "podClique": "prefill",
    "maxReplicas": 40,
    "gpusPerReplica": 4,
    "profile": {"prefillTokensPerSecond": 9300, "prefillBase": "8ms"},
}
DECODE_ROLE: Final[Mapping[str, Any]] = {
    "name": "decode",
    "role": "decode",
    "podClique": "decode",
    "maxReplicas": 40,
    "gpusPerReplica": 4,
    "profile": {"decodeStep": {"base": "28.6ms", "perSequence": "0.281ms", "perKvToken": "123ns"}, "kvTokens": 450_000},
}


def spec(**changes: Any) -> ScalingPolicySpec:  # noqa: ANN401 -- manifest JSON
    """Return a spec of both roles with some fields of its manifest changed."""
    manifest = {
        "podCliqueSet": "chat",
        "mode": "apply",
        "slo": {"ttft": "2s", "itl": "60ms"},
        "roles": [PREFILL_ROLE, DECODE_ROLE],
        **changes,
    }
    return _SPEC.validate_json(json.dumps(manifest), by_alias=True, by_name=False)


def policy(name: str = "chat", generation: int = 1, **changes: Any) -> Policy:  # noqa: ANN401 -- manifest JSON
    """Return a compiled policy of the namespace "ns"."""
    return compile_policy("ns", name, generation, spec(**changes), TUNING)


def role(base: Mapping[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 -- manifest JSON
    """Return a role's manifest with some fields changed."""
    return {**base, **changes}


def chat_readings(requests_per_s: float) -> dict[str, Reading]:
    """Return what is measured of a whole scope with so many requests per second."""
    return {
        seen.ARRIVAL_REQUESTS: Reading(value=requests_per_s),
        seen.ARRIVAL_TOKENS: Reading(value=requests_per_s * PROMPT),
        seen.PROMPT_TOKENS: Reading(value=PROMPT),
        seen.OUTPUT_TOKENS: Reading(value=ANSWER),
    }


@dataclass(slots=True, kw_only=True)
class World:
    """One scope and its core over many ticks; sizes follow decisions at once unless ``obeys`` is false."""

    policy: Policy = field(default_factory=policy)
    sizes: dict[str, int] = field(default_factory=lambda: {"prefill": 4, "decode": 5})
    at: float = START
    memory: Memory = field(default_factory=Memory)
    obeys: bool = True
    last: Decision | None = None
    history: list[Decision] = field(default_factory=list)

    def role_state(self, name: str, requests_per_s: float | None, **changes: Any) -> RoleState:  # noqa: ANN401 -- fields
        """Return a role that is wholly ready; without a rate nothing of it is known."""
        size = self.sizes[name]
        readings: dict[str, Reading] = {}
        value = requests_per_s
        if name == "prefill":
            names = {seen.QUEUED_REQUESTS: 0.0, seen.PREFILL_TOKENS: (value or 0.0) * PROMPT}
        else:
            names = {
                seen.RUNNING_REQUESTS: (value or 0.0) * 8,
                seen.TRANSFER_QUEUE: 0.0,
                seen.DECODE_TOKENS: (value or 0.0) * ANSWER,
            }
        for signal, number in names.items():
            readings[signal] = Reading(
                value=None if value is None else number, reporting=size, expected=size, is_sum=True
            )
        defaults: dict[str, Any] = {"ready": size, "gpus_per_replica": 4.0, "readings": readings}
        return RoleState(name=name, current=size, **{**defaults, **changes})

    def tick(
        self,
        requests_per_s: float | None,
        *,
        roles: Sequence[RoleState] | None = None,
        readings: Mapping[str, Reading] | None = None,
        pauses: tuple[Pause, ...] = (),
        overrides: tuple[Override, ...] = (),
    ) -> dict[str, RoleDecision]:
        """Decide once, 15 s later; return the roles' decisions by name. None: nothing is known."""
        self.at += TICK_S
        if readings is None:
            known = chat_readings(requests_per_s or 0.0)
            readings = known if requests_per_s is not None else {k: replace(v, value=None) for k, v in known.items()}
        states = tuple(roles or (self.role_state(name, requests_per_s) for name in self.sizes))
        scope = ScopeState(
            key=self.policy.key, copy=0, roles=states, readings=readings, pauses=pauses, overrides=overrides
        )
        snapshot = Snapshot(at=self.at, tick_s=TICK_S, scopes=(scope,))
        (self.last,), self.memory = decide({self.policy.key: self.policy}, snapshot, self.memory)
        self.history.append(self.last)
        decided = {each.name: each for each in self.last.roles}
        if self.obeys:
            self.sizes = {
                name: decided[name].replicas if name in decided else size for name, size in self.sizes.items()
            }
        return decided

    @property
    def latest(self) -> dict[str, RoleDecision]:
        """The roles' last decisions by name."""
        assert self.last is not None
        return {each.name: each for each in self.last.roles}

    def run(self, requests_per_s: float | None, ticks: int) -> dict[str, RoleDecision]:
        """Decide so many times at one load; return the last decisions."""
        for _ in range(ticks - 1):
            self.tick(requests_per_s)
        return self.tick(requests_per_s)
