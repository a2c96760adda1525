"""Censuses and vectors for tests of signals, short to write."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autoscaler.signals.census import Census, PodSeen, ScopeSeen
from autoscaler.signals.vectors import Measured, PodVector
from grove_server.resources.scaling_policy import SignalSpec

NAN = math.nan


def scope(
    *pods: str,
    namespace: str = "ns",
    engine: str = "vllm",
    ttft_s: float | None = None,
    itl_s: float | None = None,
    signals: Mapping[str, SignalSpec] | None = None,
    copy: int = 0,
) -> ScopeSeen:
    """Return a scope of pods named ROLE-NUMBER, or router-NUMBER for no role; "!" at the end: signals do not count."""
    words = [pod.split("-")[0] for pod in pods]
    roles = {word: word for word in words if word != "router"}
    return ScopeSeen(
        key=f"{namespace}/policy",
        copy=copy,
        namespace=namespace,
        engine=engine,
        roles=roles,
        pods=[
            PodSeen(name=pod.rstrip("!"), role="" if word == "router" else word, counts=not pod.endswith("!"))
            for pod, word in zip(pods, words, strict=True)
        ],
        ttft_s=ttft_s,
        itl_s=itl_s,
        signals=signals or {},
    )


def vector(values: Sequence[float], ages_s: Sequence[float] | float = 1.0, faulty: Sequence[bool] = ()) -> PodVector:
    """Return a vector over the pods of a census."""
    ages = np.full(len(values), ages_s) if isinstance(ages_s, float) else np.array(ages_s, dtype=np.float64)
    faults = np.array(faulty or [False] * len(values))
    return PodVector(values=np.array(values, dtype=np.float64), ages_s=ages, faulty=faults, source="metric")


def measured(
    census: Census,
    vectors: Mapping[str, PodVector],
    buckets: Mapping[str, Mapping[float, PodVector]] | None = None,
    *,
    at: float = 1000.0,
) -> Measured:
    """Return what was measured of a census."""
    return Measured(at=at, census=census, vectors=vectors, buckets=buckets or {})
