"""What nodes are, by slot, and which of them a pod shape may use, for the whole cluster at once.

Rules: the meaning is `matching`'s and is asked once per distinct value, not per node: nodes share readiness, cordon and
taints by signature, and each label that somebody asks for is kept as a column of codes. A log names the slots whose
rules changed; columns, like the request classes outside, catch up with it when they are asked for.

Not here: amounts (`ledger`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from grove_server.placement.ledger import ChangeLog
from grove_server.placement.matching import (
    NAME_FIELD,
    effective_taints,
    is_avoided,
    is_eligible,
    is_first_choice,
    requirement_holds,
    score_tiers,
    tier_count,
    tier_of,
    untolerated,
)
from grove_server.placement.nodes import NodeState, Taint
from grove_server.placement.requests import Operator, PodShape, Requirement, SelectorTerm
from grove_server.placement.topology import BoolArray, IntArray, LabelColumn, label_column, patched_column

_NAME_COLUMN: Final = "\0name"
_COLUMNS_MAX: Final = 64
_PATCH_MAX: Final = 16
"""Up to this many changed nodes a column is patched rather than rebuilt."""


class NodeRules:
    """Node states by slot with the columns that eligibility needs."""

    __slots__ = ("_columns", "_signature_codes", "_signature_of", "_signatures", "changes", "states")

    def __init__(self) -> None:
        self.states: list[NodeState | None] = []
        self.changes = ChangeLog()
        self._columns: dict[str, tuple[LabelColumn, int]] = {}
        self._signatures: list[NodeState | None] = [None]
        self._signature_of: dict[tuple[bool, bool, bool, tuple[Taint, ...]], int] = {}
        self._signature_codes: IntArray = np.zeros(0, dtype=np.int64)

    def fork(self) -> NodeRules:
        """Return an independent copy; columns are immutable and shared, those that lag behind are left out."""
        other = NodeRules()
        other.states = list(self.states)
        end = self.changes.end
        other._columns = {key: (column, 0) for key, (column, read) in self._columns.items() if read == end}
        other._signatures = list(self._signatures)
        other._signature_of = dict(self._signature_of)
        other._signature_codes = self._signature_codes.copy()
        return other

    def add_slot(self) -> None:
        """Add a slot without a node."""
        slot = len(self.states)
        self.states.append(None)
        if slot == len(self._signature_codes):
            self._signature_codes = np.concatenate([self._signature_codes, np.zeros(max(64, slot), dtype=np.int64)])

    def set_state(self, slot: int, state: NodeState | None) -> None:
        """Put a node (or none) into a slot, and log the slot if pods may judge it differently."""
        before = self.states[slot]
        self.states[slot] = state
        self._signature_codes[slot] = self._sign(state)
        if before is None or state is None or rules_differ(before, state):
            self.changes.add(slot)

    def column(self, key: str) -> LabelColumn:
        """Return the up-to-date column of a label over all slots."""
        known = self._columns.get(key)
        if known is not None:
            column, read = known
            if read == self.changes.end:
                return column
            slots = self.changes.since(read)
            if slots is not None and len(slots) <= _PATCH_MAX and len(column.values) <= 2 * len(self.states) + 64:
                column = patched_column(column, len(self.states), {slot: self._label(slot, key) for slot in slots})
                self._columns[key] = column, self.changes.end
                return column
        elif len(self._columns) >= _COLUMNS_MAX:
            self._columns.clear()
        column = label_column([self._label(slot, key) for slot in range(len(self.states))])
        self._columns[key] = column, self.changes.end
        return column

    def _label(self, slot: int, key: str) -> str | None:
        state = self.states[slot]
        if state is None:
            return None
        return state.name if key == _NAME_COLUMN else state.labels.get(key)

    def slots_by_name(self) -> IntArray:
        """Return the slots that hold a node, in the order of their names."""
        column = self.column(_NAME_COLUMN)
        order = np.argsort(column.codes, kind="stable")
        return order[column.codes[order] >= 0].astype(np.int64)

    def signatures(self) -> tuple[IntArray, list[NodeState | None]]:
        """Return each slot's signature code, and by code one node that has the signature (None: no node)."""
        return self._signature_codes[: len(self.states)], self._signatures

    def eligibility(self, shape: PodShape, *, all_ready: bool = False) -> tuple[BoolArray, IntArray | None]:
        """Return by slot: may the pod run there; and the node's tier, None if all eligible nodes are first choices.

        With `all_ready` nodes that are not ready are judged as if they were.
        """
        signatures = self._signature_codes[: len(self.states)]
        enters = [
            state is not None
            and (state.ready or all_ready)
            and untolerated(shape.tolerations, effective_taints(state)) is None
            for state in self._signatures
        ]
        eligible = np.array(enters, dtype=np.bool_)[signatures]
        for key, value in shape.node_selector:
            column = self.column(key)
            eligible &= column.codes == column.codes_of.get(value, -2)
        if shape.affinity is not None:
            terms = [self._term(term) for term in shape.affinity]
            eligible &= np.logical_or.reduce(terms) if terms else False
        needs_gpu = shape.needs_gpu
        firsts = [
            state is not None and is_first_choice(shape, state, needs_gpu=needs_gpu) for state in self._signatures
        ]
        later = ~np.array(firsts, dtype=np.bool_)[signatures]
        if shape.preferences:
            return eligible, self._tiers(shape, signatures)
        return eligible, later.astype(np.int64) if bool((later & eligible).any()) else None

    def eligibility_at(self, shape: PodShape, slot: int) -> tuple[bool, int]:
        """Return the same for one slot."""
        state = self.states[slot]
        if state is None:
            return False, 1
        return is_eligible(shape, state), tier_of(shape, state, needs_gpu=shape.needs_gpu)

    def _tiers(self, shape: PodShape, signatures: IntArray) -> IntArray:
        """Return `matching.tier_of` for all slots at once."""
        scores = np.zeros(len(signatures), dtype=np.int64)
        for each in shape.preferences:
            scores += each.weight * self._term(each.term)
        tiers_of = score_tiers(tuple(each.weight for each in shape.preferences))
        table = np.zeros(max(tiers_of) + 1, dtype=np.int64)
        table[list(tiers_of)] = list(tiers_of.values())
        tiers = table[scores]
        if not shape.needs_gpu:
            has_gpu = [state is not None and state.gpu_count > 0 for state in self._signatures]
            tiers = 2 * tiers + np.array(has_gpu, dtype=np.bool_)[signatures]
        avoided = [state is not None and is_avoided(shape.tolerations, state.taints) for state in self._signatures]
        tiers[np.array(avoided, dtype=np.bool_)[signatures]] = tier_count(shape) - 1
        return tiers

    def _term(self, term: SelectorTerm) -> BoolArray:
        if not term.match_expressions and not term.match_fields:
            return np.zeros(len(self.states), dtype=np.bool_)
        holds = [self._requirement(each, each.key) for each in term.match_expressions]
        holds += [
            self._requirement(each, _NAME_COLUMN if each.key == NAME_FIELD else "\0unknown field")
            for each in term.match_fields
        ]
        result = holds[0]
        for each in holds[1:]:
            result &= each
        return result

    def _requirement(self, requirement: Requirement, key: str) -> BoolArray:
        column = self.column(key)
        table = np.zeros(len(column.values) + 1, dtype=np.bool_)  # The last entry answers code -1, a missing label.
        if requirement.operator in {Operator.IN, Operator.NOT_IN}:
            codes = [column.codes_of[value] for value in requirement.values if value in column.codes_of]
            table[codes] = True
            if requirement.operator == Operator.NOT_IN:
                table = ~table
        else:
            table[:] = [requirement_holds(requirement, value) for value in (*column.values, None)]
        return table[column.codes]

    def _sign(self, state: NodeState | None) -> int:
        if state is None:
            return 0
        signature = (state.ready, state.unschedulable, state.gpu_count > 0, state.taints)
        code = self._signature_of.get(signature)
        if code is None:
            if len(self._signatures) > 2 * len(self.states) + 64:
                self._forget_signatures()
            code = len(self._signatures)
            self._signatures.append(state)
            self._signature_of[signature] = code
        return code

    def _forget_signatures(self) -> None:
        """Start the table of signatures over, so that changing taints cannot make it grow for ever."""
        self._signatures = [None]
        self._signature_of = {}
        for slot, state in enumerate(self.states):
            self._signature_codes[slot] = self._sign(state)


def rules_differ(before: NodeState, after: NodeState) -> bool:
    """Return whether pods may judge the node differently."""
    return (
        before.labels != after.labels
        or before.taints != after.taints
        or before.unschedulable != after.unschedulable
        or before.ready != after.ready
        or (before.gpu_count > 0) != (after.gpu_count > 0)
    )


def rules_relaxed(before: NodeState, after: NodeState) -> bool:
    """Return whether some pod may enter now that could not before, whatever its shape."""
    return (
        before.labels != after.labels
        or (after.ready and not before.ready)
        or not set(effective_taints(after)) >= set(effective_taints(before))
    )
