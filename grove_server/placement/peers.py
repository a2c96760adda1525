"""The pods that have nodes, by what rules between pods ask of them: labels, terms of their own, and where they are.

Rules: the pods of a clique that share a template are one entry with their nodes counted, so that a rule looks at
cliques and not at pods. Numbers of pods in a clique are no label here: admission refuses selectors that use them. The
rules of a request come from the terms of its own pods and, for those who keep apart, from the terms of pods that are
there. Places that are kept for a gang count as if its pods were there for all others that keep apart, and for those
that have to be together with their own kind; nobody is sent to be near pods that may not come. Where nobody has terms
and no set spreads its copies, there are none, and asking costs a look per clique.

Not here: what rules mean for places (`pod_rules`), who tells the book (control).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from grove_server.placement.pod_terms import PodTerm, pod_terms
from grove_server.placement.requests import Counted, PodRule, RuleKind
from grove_server.resources.workload import Pod

_TERMS_MAX: Final = 10_000
"""Templates whose terms are remembered; past this many the memory starts anew."""

NodeLabels: TypeAlias = Callable[[str], Mapping[str, str] | None]
"""Returns a node's labels; None if there is no such node."""

_EntryKey: TypeAlias = tuple[str, str, str]

_KEPT: Final = "~"
"""Stands in the names of places that are only kept; in no name of a pod."""


class Spread(NamedTuple):
    """A set's wish, or with `is_required` its must, that copies are in different domains of a node label."""

    key: str
    is_required: bool


class _Origin(NamedTuple):
    """What a rule was made of: a term of the gang's own pods or (`is_theirs`) of others, or, without one, spreading."""

    gang: str
    term: PodTerm | None
    is_theirs: bool = False
    with_kept: bool = True
    set_uid: str = ""
    copy: int = -1


class Alike(NamedTuple):
    """What pods of one entry have in common; `set_uid` is "" and `copy` -1 for pods of no set."""

    key: tuple[str, str, str]
    labels: Mapping[str, str]
    terms: tuple[PodTerm, ...]
    set_uid: str = ""
    copy: int = -1


@dataclass(slots=True, eq=False)
class _Entry:
    """The pods of one clique and template that have nodes; `kept_for` names the gang for which these are only kept."""

    namespace: str
    set_uid: str
    copy: int
    labels: Mapping[str, str]
    terms: tuple[PodTerm, ...]
    kept_for: str = ""
    nodes: dict[str, int] = field(default_factory=dict)
    pods: dict[tuple[str, str], str] = field(default_factory=dict)


class PeerBook:
    """All pods that have nodes. `arrivals` counts how often one came to a node."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._entries: dict[_EntryKey, _Entry] = {}
        self._at: dict[tuple[str, str], _EntryKey] = {}
        self._kept: dict[str, list[tuple[str, str]]] = {}
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
        if alike.key not in self._entries:
            self._open(namespace, alike, "")
        self._put(namespace, name, node, alike.key)

    def keep(self, gang: str, places: Iterable[tuple[Pod, str]]) -> None:
        """Enter places that are kept for a gang (by full name): a pod whose like comes there, and a node; once each."""
        self.keep_no_more(gang)
        mine = self._kept[gang] = []
        for number, (pod, node) in enumerate(places):
            namespace, identity = pod.metadata.namespace, pod.identity
            key = (namespace, identity.name, f"{pod.template.metadata.uid}{_KEPT}{gang}")
            if key not in self._entries:
                alike = Alike(key, pod.metadata.labels, self.terms_of(pod), identity.set_uid, identity.copy)
                self._open(namespace, alike, gang)
            name = f"{_KEPT}{gang}{_KEPT}{number}"
            mine.append((namespace, name))
            self._put(namespace, name, node, key)

    def keep_no_more(self, gang: str) -> None:
        """Drop the places that are kept for a gang; none if there are none."""
        for namespace, name in self._kept.pop(gang, ()):
            self.release(namespace, name)

    def _open(self, namespace: str, alike: Alike, kept_for: str) -> None:
        key = alike.key
        self._entries[key] = _Entry(namespace, alike.set_uid, alike.copy, alike.labels, alike.terms, kept_for)
        self._of_set.setdefault(alike.set_uid, {})[key] = None
        if any(term.kind == RuleKind.APART and not term.weight for term in alike.terms):
            self._excluding[key] = None

    def _put(self, namespace: str, name: str, node: str, key: _EntryKey) -> None:
        entry = self._entries[key]
        entry.nodes[node] = entry.nodes.get(node, 0) + 1
        # Only now may it leave where it was: an entry without pods is dropped.
        self.release(namespace, name)
        at = (namespace, name)
        entry.pods[at] = node
        self._at[at] = key
        self.arrivals += 1

    def release(self, namespace: str, name: str) -> None:
        """Drop a pod; one that is not in the book changes nothing."""
        key = self._at.pop((namespace, name), None)
        if key is None:
            return
        entry = self._entries[key]
        node = entry.pods.pop((namespace, name))
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
        if not asked:
            return ()
        first = next(iter(asked.values()))
        gang = f"{first.metadata.namespace}/{first.identity.gang}"
        terms: dict[PodTerm, list[str]] = {}
        for name, pod in asked.items():
            for term in self.terms_of(pod):
                terms.setdefault(term, []).append(name)
        found = [self._rule(gang, term, cliques, asked, labels_of) for term, cliques in terms.items()]
        if self._excluding:
            found += self._against(gang, asked, labels_of)
        if spread is not None:
            rule = self._spread_rule(gang, spread, asked, labels_of)
            found += [rule] if rule.counts or spread.is_required else []
        return tuple(found)

    def counted(self, rule: PodRule, labels_of: NodeLabels) -> dict[str, Counted]:
        """Return the pods, by namespace/name, that a rule of this book counts: O(cliques + pods counted)."""
        origin = rule.origin
        found: dict[str, Counted] = {}
        if not isinstance(origin, _Origin):
            return found
        domains: dict[str, str | None] = {}
        for entry in self._entries_of(origin):
            for (namespace, name), node in entry.pods.items():
                if node not in domains:
                    domains[node] = (labels_of(node) or {}).get(rule.key)
                value = domains[node]
                if value is not None:
                    full = f"{namespace}/{name}"
                    found[full] = Counted(value, entry.copy if origin.term is None else full)
        return found

    def _entries_of(self, origin: _Origin) -> Iterator[_Entry]:
        """Yield the entries that rules of an origin are about; places kept for the gang itself are not there for it."""
        term = origin.term
        keys = self._of_set.get(origin.set_uid, {}) if term is None else self._excluding
        entries = self._entries.values() if term is not None and not origin.is_theirs else map(self._entries.get, keys)
        for entry in entries:
            if entry is None or (entry.kept_for and (entry.kept_for == origin.gang or not origin.with_kept)):
                continue
            if term is None:
                is_meant = entry.copy != origin.copy
            elif origin.is_theirs:
                is_meant = term in entry.terms
            else:
                is_meant = term.selects(entry.namespace, entry.labels)
            if is_meant:
                yield entry

    def _rule(
        self, gang: str, term: PodTerm, cliques: list[str], asked: Mapping[str, Pod], labels_of: NodeLabels
    ) -> PodRule:
        selected = [name for name, pod in asked.items() if term.selects(pod.metadata.namespace, pod.metadata.labels)]
        with_kept = term.kind == RuleKind.APART or any(name in selected for name in cliques)
        origin = _Origin(gang, term, with_kept=with_kept)
        counts: dict[str, int] = {}
        for entry in self._entries_of(origin):
            _add(counts, entry.nodes, term.key, labels_of)
        return PodRule(
            kind=term.kind,
            key=term.key,
            cliques=tuple(cliques),
            others=tuple(selected),
            counts=tuple(sorted(counts.items())),
            weight=term.weight,
            text=term.about(),
            origin=origin,
        )

    def _against(self, gang: str, asked: Mapping[str, Pod], labels_of: NodeLabels) -> Iterator[PodRule]:
        """Yield the rules of pods that are there and keep apart from some that are asked for."""
        counts: dict[tuple[PodTerm, tuple[str, ...]], dict[str, int]] = {}
        for key in self._excluding:
            entry = self._entries[key]
            for term in entry.terms:
                if term.kind != RuleKind.APART or term.weight or entry.kept_for == gang:
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
                origin=_Origin(gang, term, is_theirs=True),
            )

    def _spread_rule(self, gang: str, spread: Spread, asked: Mapping[str, Pod], labels_of: NodeLabels) -> PodRule:
        """Return the rule that keeps a copy apart from the others of its set, counted in copies per domain."""
        identity = next(iter(asked.values())).identity
        origin = _Origin(gang, None, set_uid=identity.set_uid, copy=identity.copy)
        copies: dict[str, set[int]] = {}
        for entry in self._entries_of(origin):
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
            origin=origin,
        )


def _add(counts: dict[str, int], nodes: Mapping[str, int], key: str, labels_of: NodeLabels) -> None:
    for node, pods in nodes.items():
        value = (labels_of(node) or {}).get(key)
        if value is not None:
            counts[value] = counts.get(value, 0) + pods
