"""What would change a role's size next, in sentences. Pure."""

from __future__ import annotations

from autoscaler.sizing.inputs import Inputs

# In proportion to what is asked: growth needs more, shrinking needs less, than this.
_SHOWN_MAX = 4


def would_change(inputs: Inputs, size: int) -> tuple[str, ...]:
    """Return what would make the role one replica larger or smaller than *size*."""
    found: list[str] = []
    role = inputs.role
    prefill = inputs.prefill.prefill_tokens_per_s if inputs.prefill is not None else None
    decode = inputs.decode.decode_tokens_per_s if inputs.decode is not None else None
    for name, rate in (("prompt", prefill), ("answer", decode)):
        if rate is None or (prefill is not None and decode is not None):
            continue
        if size < role.max_replicas:
            found.append(f"+1 above {size * rate * role.utilization:,.0f} expected {name} tokens/s")
        if size > max(1, role.min_replicas):
            limit = (size - 1) * rate * role.scale_in_utilization
            found.append(f"-1 below {limit:,.0f} expected {name} tokens/s for {role.down.window_s:g}s")
    if inputs.decode is not None and inputs.decode.batch is not None and size < role.max_replicas:
        found.append(f"+1 above {size * inputs.decode.batch * role.utilization:,.0f} sequences")
    return tuple(found[:_SHOWN_MAX])
