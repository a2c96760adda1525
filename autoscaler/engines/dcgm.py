"""NVIDIA's DCGM exporter: how busy GPUs are, as a guard and for reports; it cannot size decode.

The exporter speaks of other pods: with ``honorLabels: false`` Prometheus keeps the exporter's own pod in ``pod`` and
calls the workload's ``exported_pod``. Both are known. Nothing is joined on the host's name, which was renamed from
``Hostname`` to ``hostname``. A GPU that pods share is said once for each of them. Samples are up to 45 s old.

GR_ENGINE_ACTIVE is a ratio and defined for MIG slices too; GPU_UTIL is a percentage and only of whole GPUs.
"""

from __future__ import annotations

from typing import Final

from autoscaler.engines import dialect as d

DCGM: Final = d.Dialect(
    name="dcgm",
    heartbeat=("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_UTIL"),
    pod_labels=d.EXPORTED_POD_LABELS,
    page="",
    port=9400,
    hint="the exporter names pods only where it reaches the kubelet's socket of pod resources",
    measures={
        d.GPU_ACTIVITY: d.gauge(
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
            d.Source(names=("DCGM_FI_DEV_GPU_UTIL",), scale=0.01),
            within=d.Within.MEAN,
            high=1.0,
        )
    },
)
