"""How updates may go: the strategy, budgets of the set, of cliques and of groups, and the progress deadline."""

from __future__ import annotations

import re
from typing import Final

from grove_server.admission.context import INT32_MAX
from grove_server.admission.findings import Findings
from grove_server.resources.duration import DurationError, parse_duration_ns
from grove_server.resources.manifest import (
    COHERENT,
    UPDATE_STRATEGIES,
    PodCliqueSetSpec,
    RollingUpdate,
    UnitBudget,
    UpdateStrategy,
)
from grove_server.resources.violations import quoted

_STRATEGY: Final = "spec.updateStrategy"
_PERCENT: Final = re.compile(r"[0-9]{1,3}%")
_WHOLE: Final = 100


def check_updates(spec: PodCliqueSetSpec, findings: Findings) -> None:
    """Check everything about updates, after defaulting."""
    strategy = spec.update_strategy
    assert strategy is not None  # Defaulting filled it in.
    if strategy.type not in UPDATE_STRATEGIES:
        findings.not_supported(f"{_STRATEGY}.type", strategy.type, UPDATE_STRATEGIES)
    if strategy.rolling_update is not None:
        _check_rolling(strategy, strategy.rolling_update, findings)
    template = spec.template
    members = {name: group.name for group in template.pod_clique_scaling_groups for name in group.clique_names}
    for index, clique in enumerate(template.cliques):
        if clique.rolling_update is None:
            continue
        path = f"spec.template.cliques[{index}].rollingUpdate"
        if clique.name in members:
            findings.forbidden(
                path, f"may not be set on a clique of a group: group {members[clique.name]!r} is one unit"
            )
        _check_budget(clique.rolling_update, path, strategy, clique.spec.min_available, findings)
    for index, group in enumerate(template.pod_clique_scaling_groups):
        if group.rolling_update is not None:
            path = f"spec.template.podCliqueScalingGroups[{index}].rollingUpdate"
            _check_budget(group.rolling_update, path, strategy, group.min_available, findings)


def _check_rolling(strategy: UpdateStrategy, rolling: RollingUpdate, findings: Findings) -> None:
    path = f"{_STRATEGY}.rollingUpdate"
    _check_budget(rolling, path, strategy, None, findings)
    deadline = rolling.progress_deadline
    if deadline is not None:
        try:
            if parse_duration_ns(deadline) <= 0:
                findings.invalid(f"{path}.progressDeadline", f"must be more than 0, got {quoted(deadline)}")
        except DurationError as error:
            findings.invalid(f"{path}.progressDeadline", f"{error}; got {quoted(deadline)}")
    elif rolling.auto_rollback:
        findings.required(f"{path}.progressDeadline", "is required with autoRollback, which waits for it")


def _check_budget(
    budget: UnitBudget | RollingUpdate, path: str, strategy: UpdateStrategy, minimum: int | None, findings: Findings
) -> None:
    missing, added = budget.max_unavailable, budget.max_surge
    are_fine = _check_amount(missing, f"{path}.maxUnavailable", _WHOLE, findings)
    are_fine &= _check_amount(added, f"{path}.maxSurge", None, findings)
    if not are_fine:
        return
    if strategy.type == COHERENT:
        if not _is_nothing(added, default=True):
            findings.forbidden(f"{path}.maxSurge", "may not be set with Coherent, which moves units in their ratio")
        if isinstance(missing, int) and minimum is not None and missing < minimum:
            message = f"must be at least minAvailable ({minimum}) with Coherent, which moves that many at once"
            findings.invalid(f"{path}.maxUnavailable", f"{message}; got {missing}")
    elif _is_nothing(missing, default=False) and _is_nothing(added, default=True):
        findings.invalid(f"{path}.maxUnavailable", "must not be 0 while maxSurge is 0: nothing could ever move")


def _check_amount(value: int | str | None, path: str, percent_max: int | None, findings: Findings) -> bool:
    """Check a number or a share; return whether it is fine."""
    if value is None:
        return True
    if isinstance(value, int):
        if 0 <= value <= INT32_MAX:
            return True
        findings.invalid(path, f"must be between 0 and {INT32_MAX}, got {value}")
    elif _PERCENT.fullmatch(value) is None:
        findings.invalid(path, f'must be a number or a share such as "25%", got {quoted(value)}')
    elif percent_max is not None and int(value[:-1]) > percent_max:
        findings.invalid(path, f"must be at most {percent_max}%, got {quoted(value)}")
    else:
        return True
    return False


def _is_nothing(value: int | str | None, *, default: bool) -> bool:
    """Return whether an amount is zero; *default* says it of one that is left out."""
    return default if value is None else value in (0, "0%", "00%", "000%")
