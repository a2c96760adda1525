"""The names that sets may give their children, remembered per spec.

Collisions are looked up by normal form for each set that is applied, and working out a set's patterns costs about as
much as the rest of its admission, so they are kept as long as the spec is the very same object.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from grove_server.admission.naming import name_patterns, normalised
from grove_server.resources.workload import PodCliqueSet

_REMEMBERED_MAX: Final = 4_096


class NameForms:
    """Pairs of (pattern, normal form) by the uid of their set."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[str, tuple[object, tuple[tuple[str, str], ...]]] = OrderedDict()

    def of(self, resource: PodCliqueSet) -> tuple[tuple[str, str], ...]:
        """Return each name pattern of *resource* with its normal form."""
        uid = resource.metadata.uid
        known = self._remembered.get(uid)
        if known is not None and known[0] is resource.spec:
            return known[1]
        pairs = tuple((pattern, normalised(pattern)) for pattern in name_patterns(resource))
        self._remembered[uid] = (resource.spec, pairs)
        if len(self._remembered) > _REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return pairs
