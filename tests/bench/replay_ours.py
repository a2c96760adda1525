"""Our line in the replay table: the policy that a user writes with a profile and nothing else, and its tuning."""

from __future__ import annotations

from autoscaler.policy import Tuning, compile_policy
from autoscaler.replay.lines import CoreSettings
from grove_server.resources.scaling_policy import (
    DECODE,
    MODE_APPLY,
    PREFILL,
    DecodeStepSpec,
    ProfileSpec,
    RoleSpec,
    ScalingPolicySpec,
    SloSpec,
)

# The figures of `ServiceTimes` and `Slo`, as a manifest has them.
_PROFILE = ProfileSpec(
    prefill_tokens_per_second=9_346.0,
    prefill_base="8ms",
    decode_step=DecodeStepSpec(base="28.6ms", per_sequence="281us", per_kv_token="123ns"),
    kv_tokens=450_000,
    max_sequences=256,
    transfer="20ms",
)


def spec() -> ScalingPolicySpec:
    """Return the policy's spec: objectives, bounds and profile; everything else as it is by default."""
    return ScalingPolicySpec(
        pod_clique_set="chat",
        mode=MODE_APPLY,
        slo=SloSpec(ttft="2s", itl="60ms", ttft_per_1k_tokens="150ms"),
        roles=(
            RoleSpec(
                name="prefill",
                role=PREFILL,
                pod_clique="prefill",
                max_replicas=40,
                gpus_per_replica=4,
                profile=_PROFILE,
            ),
            RoleSpec(
                name="decode", role=DECODE, pod_clique="decode", max_replicas=40, gpus_per_replica=4, profile=_PROFILE
            ),
        ),
    )


def ours(tuning: Tuning | None = None) -> CoreSettings:
    """Return our line with some tuning; by default the one that ships."""
    return CoreSettings(policy=compile_policy("default", "chat", 1, spec(), tuning))
