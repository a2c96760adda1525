"""Rules for a share of one GPU, which a clique asks for by an annotation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from grove_server.admission.findings import Findings
from grove_server.resources.gpu_annotations import GpuAnnotationError, parse_gpu_fraction
from grove_server.resources.labels import GPU_FRACTION

_WHOLE_GPUS: Final = "nvidia.com/gpu"
_NOTHING: Final = ("0", "None")


def check_gpu_share(annotations: Mapping[str, str], pod_spec: Mapping[str, Any], path: str, findings: Findings) -> None:
    """Check a clique's share of one GPU: readable, and not beside whole GPUs. *path* is the clique's."""
    text = annotations.get(GPU_FRACTION)
    if text is None:
        return
    at = f"{path}.annotations[{GPU_FRACTION}]"
    try:
        parse_gpu_fraction(text)
    except GpuAnnotationError as error:
        findings.invalid(at, str(error))
    whole = next(_whole_gpus(pod_spec, f"{path}.spec.podSpec"), None)
    if whole is not None:
        findings.forbidden(at, f"may not be set beside whole GPUs: {whole} asks for {_WHOLE_GPUS}")


def warn_of_gpu_share(annotations: Mapping[str, str], path: str, findings: Findings) -> None:
    """Say that the annotation has no effect on anything but a clique."""
    if GPU_FRACTION in annotations:
        findings.warn(f"{path}[{GPU_FRACTION}] has no effect: it belongs to the annotations of a clique")


def _whole_gpus(pod_spec: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the paths at which whole GPUs are asked for; what is malformed is for other rules."""
    for key in ("initContainers", "containers"):
        containers = pod_spec.get(key)
        for index, container in enumerate(containers if isinstance(containers, list) else ()):
            resources = container.get("resources") if isinstance(container, dict) else None
            for kind in ("limits", "requests"):
                amounts = resources.get(kind) if isinstance(resources, dict) else None
                if isinstance(amounts, dict) and str(amounts.get(_WHOLE_GPUS)) not in _NOTHING:
                    yield f"{path}.{key}[{index}].resources.{kind}"
    overhead = pod_spec.get("overhead")
    if isinstance(overhead, dict) and str(overhead.get(_WHOLE_GPUS)) not in _NOTHING:
        yield f"{path}.overhead"
