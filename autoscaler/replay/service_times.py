"""How fast a replica serves: the plant's truth, and the profile with its hidden error that a policy may know.

Figures: medians measured for llama2-70b on four H100 with tensor parallelism (Splitwise, ISCA 2024, the published
`perf_model.csv`): prefill 8 ms + 0.107 ms a token; a decode step 28.6 ms + 0.281 ms a sequence + 0.123 us a token of
context. KV room of such a replica: about 450,000 tokens. A token's KV (320 KiB) is transferred in 6.5 us at 50 GB/s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTimes:
    """Service times of one prefill and one decode replica, in seconds and tokens."""

    prefill_base_s: float = 0.008
    prefill_per_token_s: float = 0.107e-3
    transfer_base_s: float = 0.010
    transfer_per_token_s: float = 6.5e-6
    step_base_s: float = 28.6e-3
    step_per_sequence_s: float = 0.281e-3
    step_per_kv_token_s: float = 0.123e-6
    kv_tokens: int = 450_000
    sequences_max: int = 256

    def step_s(self, sequences: float, kv_tokens: float) -> float:
        """Return the time of one decode step."""
        return self.step_base_s + self.step_per_sequence_s * sequences + self.step_per_kv_token_s * kv_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What a request must meet: a first token in `ttft_s` and a part by its length, then `itl_s` a token on average."""

    ttft_s: float = 2.0
    ttft_per_1k_tokens_s: float = 0.15
    itl_s: float = 0.060


def drawn(profile: ServiceTimes, *, seed: int, error: float = 0.2) -> ServiceTimes:
    """Return the truth behind a profile: prefill and decode are each off by up to `error`, evenly, either way."""
    chance = np.random.default_rng((seed, 7))
    # Python numbers: the plant's loops are several times slower with numpy's.
    prefill, decode = (1 + chance.uniform(-error, error, 2)).tolist()
    return replace(
        profile,
        prefill_base_s=profile.prefill_base_s * prefill,
        prefill_per_token_s=profile.prefill_per_token_s * prefill,
        step_base_s=profile.step_base_s * decode,
        step_per_sequence_s=profile.step_per_sequence_s * decode,
        step_per_kv_token_s=profile.step_per_kv_token_s * decode,
    )
