"""Faults put into the real code on purpose, each as small as a slip of the hand, to see that a run notices.

An invariant that never fails proves nothing by itself. Each fault here must be caught within a bounded number of seeds,
and with the sentence of the rule that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from grove_server.control.decisions import Holdings
from grove_server.control.drafts import CopyDraft
from grove_server.control.node_troubles import NodeTroubles
from grove_server.control.placement_loop import PlacementLoop
from grove_server.control.set_state import SetState
from grove_server.lifecycle import clique_pass, evacuation, removal, start_order, stuck
from grove_server.lifecycle.orders import CopyOrders, UpdateOrder
from grove_server.lifecycle.rollout import coherent, copy_rollout
from grove_server.lifecycle.rollout.budget import Budget
from grove_server.lifecycle.rollout.progress import update_order
from grove_server.lifecycle.victims import victim_order
from grove_server.placement.allowances import Allowances
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodPhase
from grove_server.runtime import fake, schedule
from grove_server.store import decision
from grove_server.store.interface import Delete, Put

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A fault: how it is put in, and a part of what a run must say of it."""

    name: str
    plant: Callable[[Patch], None]
    says: str
    # Seeds that caught it when it was written.
    seen: tuple[int, ...] = ()


def _holdings_kept(patch: Patch) -> None:
    observe = PlacementLoop._observe_pod

    def forgetful(self: PlacementLoop, pod: Pod, notice: Any, *rest: Any) -> None:  # noqa: ANN401 -- handed through
        if pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED) and notice.kind != "DELETED":
            return
        observe(self, pod, notice, *rest)

    patch.setattr(PlacementLoop, "_observe_pod", forgetful)


def _holdings_never_released(patch: Patch) -> None:
    patch.setattr(Holdings, "release", lambda _self, _keys: None)


def _no_budget_for_drains(patch: Patch) -> None:
    patch.setattr(evacuation, "room", lambda **_: 1_000)


def _no_budget_for_updates(patch: Patch) -> None:
    patch.setattr(copy_rollout, "budget_of", lambda *_, size, **__: Budget(max_unavailable=size, max_surge=0))


def _parents_ignored(patch: Patch) -> None:
    patch.setattr(start_order._Awaited, "missing", lambda *_: [])


def _held_pods_start(patch: Patch) -> None:
    def eager(pod: Pod, *rest: Any, **named: Any) -> schedule.Step:  # noqa: ANN401 -- handed through
        return schedule.advance(replace(pod, is_ordered=False), *rest, **named)

    def advance(pod: Pod, *rest: Any, **named: Any) -> schedule.Step:  # noqa: ANN401 -- handed through
        step = eager(pod, *rest, **named)
        return step if step.pod is None else step._replace(pod=replace(step.pod, is_ordered=pod.is_ordered))

    patch.setattr(fake, "advance", advance)


def _routers_ignored(patch: Patch) -> None:
    patch.setattr(removal, "_living", lambda *_: set())


def _one_router_is_enough(patch: Patch) -> None:
    ends = removal._drain_end

    def hasty(pod: Pod, deadline: float, living: set[str], now: float) -> removal.DrainEnd | None:
        return removal.DrainEnd.ACKNOWLEDGED if pod.drain_acks else ends(pod, deadline, living, now)

    patch.setattr(removal, "_drain_end", hasty)


def _deadline_far(patch: Patch) -> None:
    stop = removal.stopped

    def patient(*rest: Any) -> Pod:  # noqa: ANN401 -- handed through
        pod = stop(*rest)
        return pod if pod.drain_deadline is None else replace(pod, drain_deadline=pod.drain_deadline + 3_600.0)

    patch.setattr(removal, "stopped", patient)


def _indices_twice(patch: Patch) -> None:
    patch.setattr(clique_pass, "free_indices", lambda _used, count: list(range(count)))


def _part_of_a_minimum(patch: Patch) -> None:
    all_changes = CopyDraft.changes

    def lossy(self: CopyDraft, *rest: Any) -> list[Any]:  # noqa: ANN401 -- handed through
        changes = all_changes(self, *rest)
        bound = [
            each for each in changes if isinstance(each, Put) and isinstance(each.resource, Pod) and each.resource.node
        ]
        return [each for each in changes if len(bound) == 1 or each is not bound[0]] if bound else changes

    patch.setattr(CopyDraft, "changes", lossy)


def _recycled_to_the_template(patch: Patch) -> None:
    recycle = clique_pass._recycled

    def small(clique: PodClique, count: int, now: float) -> PodClique:
        return replace(recycle(clique, count, now), replicas=clique.template_replicas)

    patch.setattr(clique_pass, "_recycled", small)


def _whole_at_once(patch: Patch) -> None:
    patch.setattr(coherent, "checkpoints", lambda components: [tuple(c.size for c in components)] if components else [])


def _pause_ignored(patch: Patch) -> None:
    patch.setattr(
        "grove_server.control.orders.update_order",
        lambda owner, copy: update_order(replace(owner, paused_at=None), copy),
    )


def _everybody_has_a_turn(patch: Patch) -> None:
    def generous(owner: PodCliqueSet, copy: int) -> UpdateOrder | None:
        progress = owner.status.update_progress
        turns = progress.currently_updating if progress is not None else ()
        return update_order(owner, turns[0].replica_index if turns else copy)

    patch.setattr("grove_server.control.orders.update_order", generous)


def _on_delete_rolls(patch: Patch) -> None:
    patch.setattr(UpdateOrder, "rolls", property(lambda _self: True))


def _busiest_first(patch: Patch) -> None:
    def reverse(pod: Pod, *rest: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- handed through
        return tuple(-part if isinstance(part, int | float) else part for part in victim_order(pod, *rest))

    patch.setattr("grove_server.lifecycle.clique_pass.victim_order", reverse)


def _stuck_policy_ignored(patch: Patch) -> None:
    at = stuck.stuck_at

    def impatient(pod: Pod, orders: CopyOrders, now: float) -> float | None:
        return at(pod, replace(orders, removes_stuck=True), now)

    patch.setattr(stuck, "stuck_at", impatient)


def _nodes_look_lost(patch: Patch) -> None:
    patch.setattr(NodeTroubles, "has_changed", property(lambda _self: False))
    patch.setattr(NodeTroubles, "take_changed", lambda _self: None)


def _conditions_ignored(patch: Patch) -> None:
    """Let whoever comes last win, as a store without versions does."""
    refusal = decision._refusal

    def trusting(change: Put | Delete, *rest: Any) -> Any:  # noqa: ANN401 -- handed through
        return refusal(replace(change, expected=None) if change.expected else change, *rest)

    patch.setattr(decision, "_refusal", trusting)


def _limits_ignored(patch: Patch) -> None:
    patch.setattr(Allowances, "over_limit", lambda *_: "")
    patch.setattr(Allowances, "within_limit", lambda _self, _queue, _shape, wanted, _used: wanted)


def _templates_removed_early(patch: Patch) -> None:
    remove = SetState.remove_stale_templates

    def hasty(self: SetState, store: Any, owner: PodCliqueSet, **named: Any) -> None:  # noqa: ANN401 -- handed through
        self.may_hold_stale_templates, self.plans_in_flight = True, 0
        remove(self, store, owner, **named)

    patch.setattr(SetState, "remove_stale_templates", hasty)


PLANTED: Final = (
    Planted(name="holdings kept when a pod is finished", plant=_holdings_kept, says="placement", seen=(37,)),
    Planted(name="holdings never released", plant=_holdings_never_released, says="placement"),
    Planted(name="no budget for drains", plant=_no_budget_for_drains, says="NODE_DRAINED", seen=(3, 6)),
    Planted(name="no budget for updates", plant=_no_budget_for_updates, says="UPDATE", seen=(2,)),
    Planted(name="parents ignored", plant=_parents_ignored, says="may start although", seen=(5,)),
    Planted(name="held pods start", plant=_held_pods_start, says="started"),
    Planted(name="routers ignored", plant=_routers_ignored, says="without a drain", seen=(8, 9)),
    Planted(name="one router is enough", plant=_one_router_is_enough, says="before its deadline", seen=(15, 33)),
    Planted(name="deadline of drains too far", plant=_deadline_far, says="drains for", seen=(59,)),
    Planted(name="indices given twice", plant=_indices_twice, says="is held by"),
    Planted(name="a part of a minimum placed", plant=_part_of_a_minimum, says="never was"),
    Planted(name="sizes lost by recycling", plant=_recycled_to_the_template, says="went from size", seen=(33, 58)),
    Planted(name="coherent moves all at once", plant=_whole_at_once, says="new units"),
    Planted(name="pause ignored", plant=_pause_ignored, says="rests", seen=(38, 59)),
    Planted(name="every copy has its turn", plant=_everybody_has_a_turn, says="does not have its turn", seen=(7, 8)),
    Planted(name="OnDelete rolls", plant=_on_delete_rolls, says="updates on delete", seen=(5, 9)),
    Planted(name="the busiest go first", plant=_busiest_first, says="scale-in takes", seen=(15, 16)),
    Planted(name="policy for stuck pods ignored", plant=_stuck_policy_ignored, says="waits for stuck pods", seen=(32,)),
    Planted(name="nodes in trouble unnoticed", plant=_nodes_look_lost, says="to be emptied", seen=(27,)),
    Planted(name="conditions of commits ignored", plant=_conditions_ignored, says=""),
    Planted(name="limits of queues ignored", plant=_limits_ignored, says="its limit is", seen=(5,)),
    Planted(name="templates removed early", plant=_templates_removed_early, says="template", seen=(169,)),
)
