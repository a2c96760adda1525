"""The pods that have nodes, by what rules between pods ask of them: labels, terms of their own, and where they are.

Rules: the pods of a clique that share a template are one entry with their nodes counted, so that a rule looks at
cliques and not at pods. Numbers of pods in a clique are no label here: admission refuses selectors that use them. The
rules of a request come from the terms of its own pods and, for those who keep apart, from the terms of pods that are
there. Where nobody has terms and no set spreads its copies, there are none, and asking costs a look per clique.

Not here: what rules mean for places (`pod_rules`), who tells the book (control).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from grove_server.placement.pod_terms import PodTerm, pod_terms
from grove_server.placement.requests import PodRule, RuleKind
from grove_server.resources.workload import Pod

_TERMS_MAX: Final = 10_000
"""Templates whose terms are remembered; past this many the memory starts anew."""

NodeLabels: TypeAlias = Callable[[str], Mapping[str, str] | None]
"""Returns a node's labels; None if there is no such node."""

_EntryKey: TypeAlias = tuple[str, str, str]


class Spread(NamedTuple):
    """A set's wish, or with `is_required` its must, that copies are in different domains of a node label."""

    key: str
    is_required: bool


class Alike(NamedTuple):
    """What pods of one entry have in common; `set_uid` is "" and `copy` -1 for pods of no set."""

    key: tuple[str, str, str]
    labels: Mapping[str, str]
    terms: tuple[PodTerm, ...]
    set_uid: str = ""
    copy: int = -1


@dataclass(slots=True, eq=False)
class _Entry:
    """The pods of one clique and template that have nodes."""

    namespace: str
    set_uid: str
    copy: int
    labels: Mapping[str, str]
    terms: tuple[PodTerm, ...]
    nodes: dict[str, int] = field(default_factory=dict)


class PeerBook:
    """All pods that have nodes. `arrivals` counts how often one came to a node."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._entries: dict[_EntryKey, _Entry] = {}
        self._at: dict[tuple[str, str], tuple[_EntryKey, str]] = {}
        self._excluding: dict[_EntryKey, None] = {}
        self._of_set: dict[str, dict[_EntryKey, None]] = {}
        self._terms: dict[str, tuple[PodTerm, ...]] = {}

    def note(self, pod: Pod) -> None:
        """Enter a pod that has a node, or move it."""
        key = (pod.metadata.namespace, pod.identity.name, pod.template.metadata.uid)
        entry = self._entries.get(key)
        if entry is None:
            identity = pod.identity
            alike = Alike(key, pod.metadata.labels, self.terms_of(pod), identity.set_uid, identity.copy)
            self.enter(pod.metadata.namespace, pod.metadata.name, pod.node, alike)
        else:
            self._put(pod.metadata.namespace, pod.metadata.name, pod.node, key)

    def enter(self, namespace: str, name: str, node: str, alike: Alike) -> None:
        """Enter a pod that has a node, or move it; the first of its like says what they have in common."""
        key = alike.key
        if key not in self._entries:
            self._entries[key] = _Entry(namespace, alike.set_uid, alike.copy, alike.labels, alike.terms)
            self._of_set.setdefault(alike.set_uid, {})[key] = None
            if any(term.kind == RuleKind.APART and not term.weight for term in alike.terms):
                self._excluding[key] = None
        self._put(namespace, name, node, key)

    def _put(self, namespace: str, name: str, node: str, key: _EntryKey) -> None:
        entry = self._entries[key]
        entry.nodes[node] = entry.nodes.get(node, 0) + 1
        # Only now may it leave where it was: an entry without pods is dropped.
        self.release(namespace, name)
        self._at[namespace, name] = (key, node)
        self.arrivals += 1

    def release(self, namespace: str, name: str) -> None:
        """Drop a pod; one that is not in the book changes nothing."""
        found = self._at.pop((namespace, name), None)
        if found is None:
            return
        key, node = found
        entry = self._entries[key]
        entry.nodes[node] -= 1
        if not entry.nodes[node]:
            del entry.nodes[node]
        if not entry.nodes:
            del self._entries[key]
            self._excluding.pop(key, None)
            keys = self._of_set[entry.set_uid]
            del keys[key]
            if not keys:
                del self._of_set[entry.set_uid]

    def terms_of(self, pod: Pod) -> tuple[PodTerm, ...]:
        """Return the terms of a pod's template, remembered."""
        uid = pod.template.metadata.uid
        terms = self._terms.get(uid)
        if terms is None:
            if len(self._terms) >= _TERMS_MAX:
                self._terms.clear()
            terms = self._terms[uid] = pod_terms(pod.template.pod_spec, pod.metadata.namespace)
        return terms

    def rules(self, asked: Mapping[str, Pod], labels_of: NodeLabels, spread: Spread | None) -> tuple[PodRule, ...]:
        """Return the rules for pods that are asked for: by clique name, one pod each, whose like they all are."""
        terms: dict[PodTerm, list[str]] = {}
        for name, pod in asked.items():
            for term in self.terms_of(pod):
                terms.setdefault(term, []).append(name)
        found = [self._rule(term, cliques, asked, labels_of) for term, cliques in terms.items()]
        if self._excluding:
            found += self._against(asked, labels_of)
        if spread is not None and asked:
            rule = self._spread_rule(spread, asked, labels_of)
            found += [rule] if rule.counts or spread.is_required else []
        return tuple(found)

    def _rule(self, term: PodTerm, cliques: list[str], asked: Mapping[str, Pod], labels_of: NodeLabels) -> PodRule:
        counts: dict[str, int] = {}
        for entry in self._entries.values():
            if term.selects(entry.namespace, entry.labels):
                _add(counts, entry.nodes, term.key, labels_of)
        selected = [name for name, pod in asked.items() if term.selects(pod.metadata.namespace, pod.metadata.labels)]
        return PodRule(
            kind=term.kind,
            key=term.key,
            cliques=tuple(cliques),
            others=tuple(selected),
            counts=tuple(sorted(counts.items())),
            weight=term.weight,
            text=term.about(),
        )

    def _against(self, asked: Mapping[str, Pod], labels_of: NodeLabels) -> Iterator[PodRule]:
        """Yield the rules of pods that are there and keep apart from some that are asked for."""
        counts: dict[tuple[PodTerm, tuple[str, ...]], dict[str, int]] = {}
        for key in self._excluding:
            entry = self._entries[key]
            for term in entry.terms:
                if term.kind != RuleKind.APART or term.weight:
                    continue
                unwanted = tuple(
                    name for name, pod in asked.items() if term.selects(pod.metadata.namespace, pod.metadata.labels)
                )
                if unwanted:
                    _add(counts.setdefault((term, unwanted), {}), entry.nodes, term.key, labels_of)
        for (term, unwanted), found in counts.items():
            yield PodRule(
                kind=RuleKind.APART,
                key=term.key,
                cliques=unwanted,
                counts=tuple(sorted(found.items())),
                text=f"pods that keep apart from {term.about()}",
            )

    def _spread_rule(self, spread: Spread, asked: Mapping[str, Pod], labels_of: NodeLabels) -> PodRule:
        """Return the rule that keeps a copy apart from the others of its set, counted in copies per domain."""
        identity = next(iter(asked.values())).identity
        copies: dict[str, set[int]] = {}
        for key in self._of_set.get(identity.set_uid, ()):
            entry = self._entries[key]
            if entry.copy != identity.copy:
                for node in entry.nodes:
                    value = (labels_of(node) or {}).get(spread.key)
                    if value is not None:
                        copies.setdefault(value, set()).add(entry.copy)
        return PodRule(
            kind=RuleKind.APART,
            key=spread.key,
            cliques=tuple(asked),
            counts=tuple(sorted((value, len(found)) for value, found in copies.items())),
            weight=0 if spread.is_required else 1,
            needs_key=spread.is_required,
            text="other copies of the set",
        )


def _add(counts: dict[str, int], nodes: Mapping[str, int], key: str, labels_of: NodeLabels) -> None:
    for node, pods in nodes.items():
        value = (labels_of(node) or {}).get(key)
        if value is not None:
            counts[value] = counts.get(value, 0) + pods
