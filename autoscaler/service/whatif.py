"""Simulate: a replay of a trace in a process of its own, so that it holds nobody and can be given up.

One at a time, with bounds on the trace and on the time. Not here: the replay itself (``autoscaler.replay``).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import orjson

from grove.v1 import autoscaler_pb2 as pb
from grove_client import to_object

TRACE_BYTES_MAX: Final = 16 << 20
SECONDS_MAX: Final = 300.0
_SUFFIXES: Final = {"azure": ".csv", "mooncake": ".jsonl"}
_MESSAGE_LENGTH_MAX: Final = 300

_busy = asyncio.Lock()


class QuestionError(ValueError):
    """What is to be replayed cannot be; the text says why."""


class BusyError(Exception):
    """Another replay runs, or this one took too long."""


async def simulate(request: pb.AutoscalerServiceSimulateRequest) -> pb.AutoscalerServiceSimulateResponse:
    """Return how the policy, and if asked others, would have done with a trace. QuestionError, BusyError."""
    if not request.trace:
        raise QuestionError("trace: is required; what Prometheus remembers cannot be replayed yet")
    if request.trace_format not in _SUFFIXES:
        raise QuestionError(f"trace_format: one of {', '.join(_SUFFIXES)}")
    if len(request.trace) > TRACE_BYTES_MAX:
        raise QuestionError(f"trace: at most {TRACE_BYTES_MAX} bytes")
    if _busy.locked():
        raise BusyError("another replay runs; call again")
    async with _busy:
        return await _replay(request)


async def _replay(request: pb.AutoscalerServiceSimulateRequest) -> pb.AutoscalerServiceSimulateResponse:
    with tempfile.TemporaryDirectory(prefix="grove-autoscaler-") as folder:
        place = Path(folder)
        trace = place / f"trace{_SUFFIXES[request.trace_format]}"
        document = to_object(request.policy)
        document.setdefault("apiVersion", "grove.io/v1alpha1")
        document.setdefault("kind", "ScalingPolicy")
        await asyncio.to_thread(trace.write_text, request.trace, encoding="utf-8")
        # JSON is YAML.
        await asyncio.to_thread((place / "policy.yaml").write_bytes, orjson.dumps(document))
        arguments = ["--policy", str(place / "policy.yaml"), "--trace", str(trace), "--json", str(place / "out.json")]
        if request.with_baselines:
            arguments.append("--baselines")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "autoscaler.replay",
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SECONDS_MAX):
                _, errors = await process.communicate()
        except TimeoutError:
            raise BusyError(f"the replay took longer than {SECONDS_MAX:g}s; give it a shorter trace") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            told = errors.decode("utf-8", "replace").replace(f"{folder}/", "").strip().splitlines()
            raise QuestionError(told[-1][:_MESSAGE_LENGTH_MAX] if told else "the replay failed")
        return _answer(await asyncio.to_thread((place / "out.json").read_bytes))


def _answer(data: bytes) -> pb.AutoscalerServiceSimulateResponse:
    policies = orjson.loads(data)["policies"]
    return pb.AutoscalerServiceSimulateResponse(
        outcomes=[
            pb.ScalingOutcome(
                policy=name,
                slo_attainment=means["slo_attainment"],
                ttft_attainment=means["ttft_attainment"],
                tpot_attainment=means["tpot_attainment"],
                gpu_hours=means["gpu_hours"],
                scale_actions=round(means["scale_actions"]),
                reversals=round(means["reversals"]),
                aborted_requests=round(means["aborted_requests"]),
            )
            for name, means in policies.items()
        ]
    )
