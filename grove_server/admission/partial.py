"""Rules on a manifest that is wrong in part: what they find in the rest, without follow-ups of what cannot be read.

A value that cannot be read has a violation of its own. A rule that looks at it would find something too, which the
user did not write; so what is found at it, below it, or about the whole that it is a part of is left out. The same
holds for the few rules that look at one field and complain about another: names that others refer to, topology names
that are inherited, and what must be the same in all cliques.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from grove_server.admission.findings import Findings
from grove_server.resources.mistakes import MISTAKES_MAX, in_document_order
from grove_server.resources.repair import Gaps
from grove_server.resources.schema import Rest, SchemaError
from grove_server.resources.violations import Reason, Violation

# How much there is of a whole can be said although a part of it cannot be read.
_COUNTED: Final = frozenset({Reason.TOO_MANY, Reason.TOO_LONG})

_CLIQUE: Final = r"spec\.template\.cliques\[\d+\]"
_GROUP: Final = r"spec\.template\.podCliqueScalingGroups\[\d+\]"
# A list that cannot be read, an entry of one, and all above them.
_ABOVE: Final = rf"spec|spec\.template|spec\.template\.(?:cliques|podCliqueScalingGroups)|{_CLIQUE}|{_GROUP}"

# (gaps, violations): a violation whose path the second matches is a follow-up of a gap that the first matches.
_FOLLOW_UPS: Final = tuple(
    (re.compile(gap), reason, re.compile(path))
    for gap, reason, path in (
        # Who refers to a name that cannot be read, or to one that only a member of a group may have.
        (
            rf"{_ABOVE}|(?:{_CLIQUE}|{_GROUP})\.name|{_GROUP}\.cliqueNames.*",
            Reason.NOT_FOUND,
            r".*\.(?:cliqueNames|startsAfter|childCliqueNames|childScalingGroupNames)\[\d+\]",
        ),
        # How many names a group may list is measured by the cliques.
        (_ABOVE, Reason.TOO_MANY, rf"{_GROUP}\.cliqueNames"),
        # A group without members takes no place in the names of its cliques.
        (rf"{_ABOVE}|{_GROUP}\.cliqueNames.*", Reason.DUPLICATE, rf"(?:{_CLIQUE}|{_GROUP})\.name"),
        # The name of a topology is inherited, downwards and from groups to their members.
        (
            rf"{_ABOVE}|.*\.topologyConstraint(?:\.topologyName)?|{_GROUP}\.cliqueNames.*|{_CLIQUE}\.name",
            Reason.REQUIRED,
            r".*\.topologyConstraint\.topologyName",
        ),
        # One for all cliques.
        (
            rf"{_ABOVE}|{_CLIQUE}\.spec(?:\.podSpec)?",
            Reason.INVALID,
            rf"{_CLIQUE}\.spec\.podSpec\.schedulerName",
        ),
        (r"spec\.template\.priorityClassName", Reason.FORBIDDEN, rf"{_CLIQUE}\.spec\.podSpec\.priorityClassName"),
        # Who refers to a role or a signal that cannot be read.
        (
            r"spec|spec\.roles|spec\.roles\[\d+\](?:\.name)?",
            Reason.NOT_FOUND,
            r"spec\.(?:signals\[\w+\]|schedules\[\d+\])\.role",
        ),
        (r"spec|spec\.signals(?:\[.*\])?", Reason.NOT_FOUND, r"spec\.roles\[\d+\]\.policies\[\d+\]\.signal"),
        # What budgets mean depends on the strategy.
        (r"spec\.updateStrategy(?:\.type)?", Reason.INVALID, r".*\.rollingUpdate\.maxUnavailable"),
    )
)


def with_findings(error: SchemaError, check: Callable[[Rest, Findings], None]) -> SchemaError:
    """Return *error* with what *check* finds in the rest of the document too, in the order of the document."""
    rest = error.rest
    if rest is None:
        return error
    findings = Findings(kept_max=MISTAKES_MAX)
    check(rest, findings)
    own = [violation for violation in findings.violations if not _is_follow_up(violation, rest.gaps)]
    violations = in_document_order([*error.all_violations, *own], rest.tree)
    return SchemaError(violations, rest, len(violations) + findings.count - len(findings.violations))


def _is_follow_up(violation: Violation, gaps: Gaps) -> bool:
    path, reason = violation.path, violation.reason
    if gaps.cover(path) or (reason not in _COUNTED and gaps.break_up(path)):
        return True
    return any(
        reason is of and to.fullmatch(path) is not None and any(gap.fullmatch(each) for each in gaps.paths)
        for gap, of, to in _FOLLOW_UPS
    )
