"""The lines of a comparison that are policies: settings in, a fresh policy for one run out."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.policy import Policy
from autoscaler.replay.baselines import HpaPolicy, HpaSettings, KedaPolicy, KedaSettings, KpaPolicy, KpaSettings
from autoscaler.replay.ours import CorePolicy
from autoscaler.replay.plant import Setting
from autoscaler.replay.running import Policy as RunningPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Our core with a compiled policy."""

    policy: Policy


LineSettings = HpaSettings | KedaSettings | KpaSettings | CoreSettings


def policy_of(line: LineSettings, setting: Setting) -> RunningPolicy:
    """Return a fresh policy that keeps to the setting's bounds."""
    least, most = setting.sizes_min, setting.sizes_max
    match line:
        case HpaSettings():
            return HpaPolicy(line, least, most)
        case KedaSettings():
            return KedaPolicy(line, least, most)
        case KpaSettings():
            return KpaPolicy(line, least, most)
        case CoreSettings():
            return CorePolicy(line.policy, setting.gpus_per_replica)
