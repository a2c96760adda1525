"""Which dialects are spoken where a policy names an engine. Data.

The order is that of preference: of each measure and pod the first dialect that says it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from autoscaler.engines.dcgm import DCGM
from autoscaler.engines.dialect import Dialect
from autoscaler.engines.dynamo import DYNAMO
from autoscaler.engines.llmd import LLMD_ENDPOINTS, LLMD_PICKER
from autoscaler.engines.sglang import SGLANG
from autoscaler.engines.trtllm import TRTLLM
from autoscaler.engines.vllm import VLLM

PRESETS: Final[Mapping[str, tuple[Dialect, ...]]] = {
    "vllm": (VLLM, DCGM),
    "sglang": (SGLANG, DCGM),
    "trtllm": (TRTLLM, DCGM),
    "dynamo": (DYNAMO, VLLM, SGLANG, TRTLLM, DCGM),
    "llm-d": (LLMD_PICKER, LLMD_ENDPOINTS, VLLM, SGLANG, DCGM),
    "custom": (DCGM,),
}
