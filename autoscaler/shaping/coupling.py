"""Prefill and decode in step: a fixed ratio, and a guard against one of them running ahead of the other. Pure.

Both are sized for the same forecast, so their wishes are in proportion. What can part them is a rate, a bound, a pause,
a missing place or the budget on one side. The guard keeps the growth of one role within the band around the proportion
of the wishes; it never shrinks anything. A size that somebody gave by hand is not held back, but what it is ahead by is
said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from autoscaler.decision import Reason
from autoscaler.policy import Policy
from autoscaler.shaping.draft import Draft
from autoscaler.shaping.moves import lost_replicas
from grove_server.resources.scaling_policy import DECODE, PREFILL

_AHEAD: Final = "; ahead of "


def pair_of(drafts: Sequence[Draft]) -> tuple[Draft, Draft] | None:
    """Return the prefill and the decode role, if there is one of each."""
    prefill = [draft for draft in drafts if draft.role.role == PREFILL]
    decode = [draft for draft in drafts if draft.role.role == DECODE]
    return (prefill[0], decode[0]) if len(prefill) == 1 and len(decode) == 1 else None


def fix_ratio(policy: Policy, drafts: Sequence[Draft]) -> None:
    """Let prefill follow decode where the policy prescribes their ratio; its own wish does not count then."""
    pair = pair_of(drafts)
    if policy.ratio_fixed is None or pair is None:
        return
    prefill, decode = pair
    prefill.wanted = math.ceil(policy.ratio_fixed * decode.wanted - 1e-9)
    prefill.is_known, prefill.is_trusted = decode.is_known, decode.is_trusted
    prefill.clamp(prefill.wanted, Reason.RATIO_GUARD, f"{policy.ratio_fixed:g} of {decode.wanted} decode")


def keep_in_step(policy: Policy, drafts: Sequence[Draft], now: float) -> None:
    """Hold back the growth of a role that would run ahead of the other."""
    pair = pair_of(drafts)
    if pair is None:
        return
    for ahead, behind in (pair, pair[::-1]):
        if ahead.size <= ahead.current or behind.wanted <= 0 or ahead.wanted <= 0:
            continue
        # What a call that fails asks for is not there, however often it is decided.
        served = (behind.current if behind.state.failing else behind.size) - lost_replicas(behind, now)
        if served >= behind.wanted:
            continue
        share = ahead.wanted / behind.wanted
        most = max(ahead.current, math.ceil(share * served * (1 + policy.ratio_band) - 1e-9))
        if most >= ahead.size:
            continue
        if ahead.is_by_hand:
            # The guard looks twice, before and after the budget; what it saw last is said.
            before = ahead.message.partition(_AHEAD)[0]
            ahead.message = f"{before}{_AHEAD}{behind.role.name}, which has {served} of {behind.wanted}"
            continue
        message = f"{behind.role.name} has {served} of {behind.wanted}; at most {policy.ratio_band:.0%} ahead"
        ahead.clamp(most, Reason.RATIO_GUARD, message)
