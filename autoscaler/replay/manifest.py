"""A replay's policy file: the ScalingPolicy manifest that users apply, and the setting of a plant that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson
import yaml
from pydantic import TypeAdapter, ValidationError

from autoscaler.policy import Policy, PolicyError, compile_policy
from autoscaler.replay.comparing import profile_times
from autoscaler.replay.oracle import needs
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.service_times import Slo
from autoscaler.replay.traces import Trace
from grove_server.resources.scaling_policy import DECODE, PREFILL, ScalingPolicyManifest

_START_S: Final = 600.0
_START_UTILIZATION: Final = 0.7


class ManifestError(ValueError):
    """A policy file cannot be used; the message names the field."""


def read_policy(path: Path) -> Policy:
    """Return the policy of a file with one ScalingPolicy. OSError, or ManifestError with what is wrong."""
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from None
    policies = [each for each in documents if isinstance(each, dict) and each.get("kind") == "ScalingPolicy"]
    if len(policies) != 1:
        raise ManifestError(f"{path}: {len(policies)} ScalingPolicies where one is expected")
    try:
        # The schema is strict, and tells tuples from lists; of JSON it takes what manifests have.
        manifest = TypeAdapter(ScalingPolicyManifest).validate_json(orjson.dumps(policies[0]))
        policy = compile_policy(
            manifest.metadata.namespace or "default", manifest.metadata.name or "", 1, manifest.spec
        )
    except orjson.JSONEncodeError as error:
        raise ManifestError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ManifestError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except PolicyError as error:
        raise ManifestError(f"{path}: {error}") from None
    if sorted(role.role for role in policy.roles) != [DECODE, PREFILL]:
        raise ManifestError(f"{path}: spec.roles: a replay takes one prefill and one decode role")
    return policy


def setting_of(policy: Policy, trace: Trace, *, cold_start_s: float, gpus_per_replica: int) -> Setting:
    """Return the setting of a plant with the bounds, the budget and the profile of a policy.

    It starts with what the trace's first ten minutes need. Roles with GPUs `auto` have `gpus_per_replica`.
    """
    roles = {role.role: role for role in policy.roles}
    prefill, decode = roles[PREFILL], roles[DECODE]
    least = Sizes(prefill=prefill.min_replicas, decode=decode.min_replicas)
    most = Sizes(prefill=prefill.max_replicas, decode=decode.max_replicas)
    slo = Slo()
    slo = Slo(
        ttft_s=policy.slo.ttft_s or slo.ttft_s,
        ttft_per_1k_tokens_s=1_000 * policy.slo.ttft_per_token_s,
        itl_s=policy.slo.itl_s or slo.itl_s,
    )
    times = profile_times(policy)
    first = needs(trace.between(0.0, _START_S), times, slo, _START_UTILIZATION).at(1.0)
    gpus = int(prefill.gpus_per_replica or decode.gpus_per_replica or gpus_per_replica)
    return Setting(
        truth=times,
        slo=slo,
        cold_start_s=cold_start_s,
        drain_timeout_s=max(prefill.drain_timeout_s, decode.drain_timeout_s),
        gpus_per_replica=gpus,
        gpus=policy.budget_gpus or gpus * (most.prefill + most.decode),
        sizes_min=least,
        sizes_max=most,
        start=Sizes(
            prefill=min(max(first.prefill, least.prefill), most.prefill),
            decode=min(max(first.decode, least.decode), most.decode),
        ),
    )
