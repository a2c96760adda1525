"""One tick of the autoscaler's core: 1,000 roles with 10,000 pods, decided from readings that are already joined.

The processor's time of the core alone, warm: the queries and their joining are measured where they are. The baseline is
the least that any core does: to go over the same readings once.
"""

import time
from collections.abc import Iterator
from typing import Final

from autoscaler import observation as seen
from autoscaler.deciding import decide
from autoscaler.memory import Memory
from autoscaler.observation import Reading, RoleState, ScopeState, Snapshot
from tests.bench.figures import Figure, Target, figure
from tests.scaling_cases import ANSWER, PROMPT, START, TICK_S, chat_readings, policy

SCOPES: Final = 500
PODS: Final = 10
TICKS: Final = 12
TARGET_MS: Final = 250.0


def snapshot(tick: int) -> Snapshot:
    """Return 500 copies of a chat service of two roles with 10 pods each, at a load that rises."""
    load = 20.0 + tick
    scopes = []
    for index in range(SCOPES):
        readings = {
            **chat_readings(load),
            seen.TTFT_ATTAINMENT: Reading(value=0.99),
            seen.ITL_ATTAINMENT: Reading(value=0.99),
        }
        prefill = {
            seen.QUEUED_REQUESTS: _sum(3.0),
            seen.PREFILL_TOKENS: _sum(load * PROMPT),
            seen.PREFILL_SECONDS: Reading(value=0.13),
        }
        decode = {
            seen.RUNNING_REQUESTS: _sum(load * 8),
            seen.TRANSFER_QUEUE: _sum(0.0),
            seen.KV_USAGE: Reading(value=0.2),
            seen.DECODE_TOKENS: _sum(load * ANSWER),
            seen.ITL_SECONDS: Reading(value=0.04),
        }
        roles = tuple(
            RoleState(name=name, current=PODS, ready=PODS, gpus_per_replica=4.0, readings=of_role)
            for name, of_role in (("prefill", prefill), ("decode", decode))
        )
        scopes.append(ScopeState(key=f"ns/chat-{index}", copy=0, roles=roles, readings=readings))
    return Snapshot(at=START + tick * TICK_S, tick_s=TICK_S, scopes=tuple(scopes))


def _sum(value: float) -> Reading:
    return Reading(value=value, reporting=PODS, expected=PODS, is_sum=True)


def run() -> Iterator[Figure]:
    """Measure the median tick."""
    policies = {each.key: each for each in (policy(f"chat-{index}") for index in range(SCOPES))}
    memory = Memory()
    ticks_ms, read_ms = [], []
    for tick in range(TICKS):
        now = snapshot(tick)
        started = time.process_time()
        _, memory = decide(policies, now, memory)
        ticks_ms.append((time.process_time() - started) * 1000)
        started = time.process_time()
        _read(now)
        read_ms.append((time.process_time() - started) * 1000)
    yield figure(
        "scale.tick1000.core",
        sorted(ticks_ms)[TICKS // 2],
        "ms",
        better="lower",
        baseline=sorted(read_ms)[TICKS // 2],
        target=Target(bound=TARGET_MS),
    )


def _read(now: Snapshot) -> float:
    total = 0.0
    for scope in now.scopes:
        for readings in (scope.readings, *(role.readings for role in scope.roles)):
            for reading in readings.values():
                total += (reading.value or 0.0) * reading.expected
    return total
