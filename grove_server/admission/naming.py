"""Whether the names a set will give its children fit, and whether two of them can ever be the same.

Lengths are real lengths: of each pod name and hostname, with as many digits as the declared maximum of each index has.
Grove instead bounds the sum of the template's names by 45 and forgets about digits.

Collisions are decided on patterns. A pattern is a name with ``#`` for each index; cut at the hyphens, two patterns can
meet if they have equally many pieces and each pair is equal, or one is ``#`` and the other an index (an integer without
leading zeros). Indices are taken as unbounded: a set that collides only after scaling would be a trap.
Normalising a pattern turns pieces that look like an index into ``#``; patterns that can meet have the same normal form,
which is what a store keeps an index of. The piece before ``/`` says which names share a space: ``gang`` (gangs and
headless services) and ``tree`` (cliques and groups, whose autoscalers carry their names).
"""

from __future__ import annotations

import re
from typing import Final

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Findings
from grove_server.resources.manifest import CliqueTemplate, PodCliqueSetSpec, ScalingGroupTemplate
from grove_server.resources.names import (
    LABEL_LENGTH_MAX,
    POD_SUFFIX_LENGTH,
    member_clique,
    scaling_group,
    standalone_clique,
)
from grove_server.resources.violations import Reason, quoted
from grove_server.resources.workload import PodCliqueSet

# Stands for an index in a pattern; no name contains it.
INDEX_MARK: Final = "#"

_INDEX: Final = re.compile(r"0|[1-9][0-9]*")


def check_lengths(set_name: str, spec: PodCliqueSetSpec, findings: Findings) -> None:
    """Check the longest name each clique and group can lead to, at the declared maximum of every index."""
    copy = last_index(spec.replicas)
    template = spec.template
    groups: dict[str, ScalingGroupTemplate] = {}
    for index, group in enumerate(template.pod_clique_scaling_groups):
        groups.update(dict.fromkeys(group.clique_names, group))
        # Its gangs and group replicas are called <group>-<index>.
        longest = f"{scaling_group(set_name, copy, group.name)}-{_last_group_replica(group)}"
        path = f"spec.template.podCliqueScalingGroups[{index}].name"
        _check_length(longest, "the name of a gang", path, findings)
    for index, clique in enumerate(template.cliques):
        owner = groups.get(clique.name)
        if owner is None:
            name = standalone_clique(set_name, copy, clique.name)
        else:
            name = member_clique(scaling_group(set_name, copy, owner.name), _last_group_replica(owner), clique.name)
        check_clique_name(name, _last_pod(clique), f"spec.template.cliques[{index}].name", findings)


def check_clique_name(name: str, pod_index_max: int, path: str, findings: Findings) -> None:
    """Check that the pods of the clique called *name* get names and hostnames that fit."""
    digits = len(str(pod_index_max))
    if digits > POD_SUFFIX_LENGTH:
        _check_length(f"{name}-{pod_index_max}", "the hostname of a pod", path, findings)
    else:
        _check_length(f"{name}-{'x' * POD_SUFFIX_LENGTH}", "the name of a pod", path, findings)


def last_index(count: int | None, count_max: int | None = None) -> int:
    """Return the highest index among *count* (or, if more, *count_max*); 0 for none, which may become one."""
    return max(count or 0, count_max or 0, 1) - 1


def _last_group_replica(group: ScalingGroupTemplate) -> int:
    return last_index(group.replicas, group.scale_config.max_replicas if group.scale_config is not None else None)


def _last_pod(clique: CliqueTemplate) -> int:
    config = clique.spec.auto_scaling_config
    return last_index(clique.spec.replicas, config.max_replicas if config is not None else None)


def _check_length(longest: str, what: str, path: str, findings: Findings) -> None:
    if len(longest) > LABEL_LENGTH_MAX:
        message = (
            f"leads to names that are too long: {what}, such as {longest}, may have {LABEL_LENGTH_MAX} characters "
            f"and would have {len(longest)}"
        )
        findings.add(path, Reason.TOO_LONG, message)


def name_patterns(resource: PodCliqueSet) -> tuple[str, ...]:
    """Return the patterns of all names *resource* makes; the store indexes sets by their normal forms."""
    return tuple(pattern for pattern, _ in _patterns_with_paths(resource.metadata.name, resource.spec))


def normalised(pattern: str) -> str:
    """Return the normal form of *pattern*: each piece that looks like an index is ``#``."""
    return "-".join("#" if _INDEX.fullmatch(piece) else piece for piece in pattern.split("-"))


def can_collide(one: str, other: str) -> bool:
    """Return whether two patterns can stand for the same name."""
    pieces, others = one.split("-"), other.split("-")
    return len(pieces) == len(others) and all(map(_pieces_meet, pieces, others))


def _pieces_meet(one: str, other: str) -> bool:
    if one == other:
        return True
    if one == "#":
        return _INDEX.fullmatch(other) is not None
    return other == "#" and _INDEX.fullmatch(one) is not None


def check_collisions(set_name: str, spec: PodCliqueSetSpec, context: AdmissionContext, findings: Findings) -> None:
    """Check the names of a set against each other, and against those of the other sets of its namespace."""
    by_form: dict[str, list[tuple[str, str]]] = {}
    for pattern, path in _patterns_with_paths(set_name, spec):
        form = normalised(pattern)
        same_form = by_form.setdefault(form, [])
        for earlier, earlier_path in same_form:
            # One name listed twice in one list has a violation of its own.
            is_repeated = earlier == pattern and earlier_path.partition("[")[0] == path.partition("[")[0]
            if can_collide(earlier, pattern) and not is_repeated:
                message = f"leads to the same names as {earlier_path}: {_readable(pattern)} and {_readable(earlier)}"
                findings.add(path, Reason.DUPLICATE, message)
                break
        same_form.append((pattern, path))
        for other_set, other in context.name_patterns_taken(form):
            if other_set != set_name and can_collide(pattern, other):
                message = (
                    f"leads to names that PodCliqueSet {quoted(other_set)} may use too: "
                    f"{_readable(pattern)} and {_readable(other)}"
                )
                findings.add(path, Reason.DUPLICATE, message)
                break


def _patterns_with_paths(set_name: str, spec: PodCliqueSetSpec) -> list[tuple[str, str]]:
    template = spec.template
    patterns = [(f"gang/{set_name}-#", "metadata.name")]
    group_of: dict[str, str] = {}
    for index, group in enumerate(template.pod_clique_scaling_groups):
        path = f"spec.template.podCliqueScalingGroups[{index}].name"
        patterns.append((f"tree/{set_name}-#-{group.name}", path))
        patterns.append((f"gang/{set_name}-#-{group.name}-#", path))
        group_of.update(dict.fromkeys(group.clique_names, group.name))
    for index, clique in enumerate(template.cliques):
        owner = group_of.get(clique.name)
        middle = "" if owner is None else f"{owner}-#-"
        patterns.append((f"tree/{set_name}-#-{middle}{clique.name}", f"spec.template.cliques[{index}].name"))
    return patterns


def _readable(pattern: str) -> str:
    return pattern.partition("/")[2]
