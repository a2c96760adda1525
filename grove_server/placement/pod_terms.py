"""Pod affinity and anti-affinity as manifests write them: whom a template's pods want to be near, or far from.

Rules: the meaning is Kubernetes'. A term selects pods by labels, of the pod's own namespace unless it names others; an
empty namespaceSelector means all of them. A term without a labelSelector selects no pod, one with an empty selector
every pod. Admission has refused what cannot be judged here.

Not here: which pods there are (`peers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grove_server.placement.requests import RuleKind
from grove_server.resources.selector import Operator, Requirement, Selector

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_FIELDS: Final = (("podAffinity", RuleKind.TOGETHER), ("podAntiAffinity", RuleKind.APART))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTerm:
    """One term. `selector` None selects nothing; `namespaces` None are all; `weight` 0 is a must."""

    kind: RuleKind
    key: str
    selector: Selector | None
    namespaces: tuple[str, ...] | None
    weight: int = 0

    def selects(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Return whether the term is about pods with these labels."""
        if self.selector is None or (self.namespaces is not None and namespace not in self.namespaces):
            return False
        return self.selector.matches(labels)

    def about(self) -> str:
        """Return which pods it is about, for people."""
        return f"pods of {self.selector}" if self.selector is not None and self.selector.requirements else "any pods"


def pod_terms(pod_spec: Mapping[str, Any], namespace: str) -> tuple[PodTerm, ...]:
    """Return the terms of an (admitted) pod spec in a namespace, each once."""
    affinity = pod_spec.get("affinity") or {}
    return tuple(dict.fromkeys(_terms(affinity, namespace)))


def _terms(affinity: Mapping[str, Any], namespace: str) -> Iterator[PodTerm]:
    for field, kind in _FIELDS:
        rules = affinity.get(field) or {}
        for term in rules.get(_REQUIRED) or ():
            yield _term(kind, term, 0, namespace)
        for weighted in rules.get(_PREFERRED) or ():
            yield _term(kind, weighted["podAffinityTerm"], weighted["weight"], namespace)


def _term(kind: RuleKind, term: Mapping[str, Any], weight: int, namespace: str) -> PodTerm:
    named = tuple(sorted(term.get("namespaces") or ()))
    is_everywhere = term.get("namespaceSelector") is not None
    return PodTerm(
        kind=kind,
        key=term["topologyKey"],
        selector=_selector(term.get("labelSelector")),
        namespaces=None if is_everywhere else named or (namespace,),
        weight=weight,
    )


def _selector(selector: Mapping[str, Any] | None) -> Selector | None:
    if selector is None:
        return None
    equal = [
        Requirement(key=key, operator=Operator.IN, values=frozenset({value}))
        for key, value in sorted((selector.get("matchLabels") or {}).items())
    ]
    others = [
        Requirement(key=each["key"], operator=Operator(each["operator"]), values=frozenset(each.get("values") or ()))
        for each in selector.get("matchExpressions") or ()
    ]
    return Selector(requirements=(*equal, *others))
