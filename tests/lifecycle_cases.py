"""Sets and a model of their world for lifecycle's tests: plans are carried out on dictionaries, strictly.

The model refuses what the store would refuse (a create of what exists, an update of an old version), so a plan that
could not be committed fails the test that made it. Pods are moved by the test: bound, ready, failed, gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from grove_server.admission.admit import admit_pod_clique_set
from grove_server.admission.context import AdmissionContext
from grove_server.lifecycle.blueprint import Blueprint, TopologyLevels, draw_blueprint
from grove_server.lifecycle.copy import CopySummary, CopyView
from grove_server.lifecycle.copy_pass import plan_copy, plan_removal
from grove_server.lifecycle.copy_totals import CopyTotals
from grove_server.lifecycle.orders import NO_ORDERS, CopyOrders
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.rollout.progress import advance, turns, update_order
from grove_server.lifecycle.set_pass import pod_template, with_set_status
from grove_server.resources.manifest import TopologyLevel
from grove_server.resources.meta import Condition, Key, Resource, find_condition, key_of
from grove_server.resources.schema import parse_pod_clique_set
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodGang,
    PodPhase,
    ScaleOwner,
)

NOW: Final = 1_000.0
DOMAINS: Final = ("zone", "block", "rack", "host")
LEVELS: Final = tuple(TopologyLevel(domain=domain, key=f"example.com/{domain}") for domain in DOMAINS)
TOPOLOGIES: Final[TopologyLevels] = {"grove-topology": LEVELS}

Json = dict[str, Any]
R = TypeVar("R", bound=Resource)


def clique(name: str, replicas: int = 1, minimum: int | None = None, **fields: Any) -> Json:  # noqa: ANN401 -- any field
    """Return a clique template; *fields* of the template (labels, topologyConstraint) or of its spec."""
    outer: Json = {key: fields.pop(key) for key in ("labels", "annotations", "topologyConstraint") if key in fields}
    spec = {
        "roleName": name,
        "replicas": replicas,
        "podSpec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]},
        **fields,
    }
    if minimum is not None:
        spec["minAvailable"] = minimum
    return {"name": name, "spec": spec, **outer}


def group(name: str, members: Iterable[str], replicas: int = 1, minimum: int = 1, **fields: Any) -> Json:  # noqa: ANN401 -- any field
    """Return a scaling group template."""
    return {"name": name, "cliqueNames": list(members), "replicas": replicas, "minAvailable": minimum, **fields}


def pack(required: str | None = None, preferred: str | None = None) -> Json:
    """Return a topology constraint."""
    levels = {"required": required, "preferred": preferred}
    return {"topologyName": "grove-topology", "pack": {k: v for k, v in levels.items() if v}}


def manifest(
    cliques: Iterable[Json], groups: Iterable[Json] = (), *, name: str = "s", replicas: int = 1, **template: object
) -> Json:
    """Return a PodCliqueSet manifest."""
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "template": {"cliques": list(cliques), "podCliqueScalingGroups": list(groups), **template},
        },
    }


def admitted(
    document: Json, old: PodCliqueSet | None = None, *, uid: str = "set-uid", now: float = NOW
) -> PodCliqueSet:
    """Return what admission makes of a manifest."""
    context = AdmissionContext(now=now, uid=uid, bindings={"grove-topology": DOMAINS})
    return admit_pod_clique_set(parse_pod_clique_set(json.dumps(document).encode()), old, context).resource


def condition(resource: Any, type_: str) -> Condition:  # noqa: ANN401 -- anything with a status
    """Return a condition that must be there."""
    found = find_condition(resource.status.conditions, type_)
    assert found is not None, f"{resource.metadata.name} has no condition {type_}"
    return found


@dataclass(slots=True)
class World:
    """One set and everything under it, as a store would hold it."""

    owner: PodCliqueSet
    topologies: TopologyLevels = field(default_factory=lambda: TOPOLOGIES)
    now: float = NOW
    settle_s: float = 0.0
    orders: CopyOrders = NO_ORDERS
    rows: dict[Key, Any] = field(default_factory=dict)
    totals: CopyTotals = field(default_factory=CopyTotals)
    last: Plan = field(default_factory=Plan)
    _version: int = 0

    # Reading.

    def of(self, kind: type[R]) -> list[R]:
        """Return all resources of one kind by name."""
        return [row for key, row in sorted(self.rows.items()) if isinstance(row, kind)]

    def names(self, kind: type[R]) -> list[str]:
        """Return the names of all resources of one kind."""
        return [row.metadata.name for row in self.of(kind)]

    def one(self, kind: type[R], name: str) -> R:
        """Return a resource that must be there."""
        row = self.rows[Key(kind.kind, "default", name)]
        assert isinstance(row, kind)
        return row

    def pods(self, clique_name: str = "") -> list[Pod]:
        """Return the active pods (of one clique) by clique and index."""
        found = [p for p in self.of(Pod) if p.is_active and clique_name in ("", p.identity.name)]
        return sorted(found, key=lambda pod: (pod.identity.name, pod.index))

    def view(self, copy: int) -> CopyView:
        """Return one copy as the loop would see it."""
        pods: dict[str, list[Pod]] = {}
        for pod in self.of(Pod):
            if pod.identity.copy == copy:
                pods.setdefault(pod.identity.name, []).append(pod)
        return CopyView(
            copy=copy,
            cliques={c.metadata.name: c for c in self.of(PodClique) if c.identity.copy == copy},
            groups={g.group: g for g in self.of(PodCliqueScalingGroup) if g.copy == copy},
            gangs={g.metadata.name: g for g in self.of(PodGang) if g.copy == copy},
            pods=pods,
        )

    @property
    def blueprint(self) -> Blueprint:
        """The blueprint of the set as it is."""
        templates = {c.name: pod_template(self.owner, c, NOW) for c in self.owner.spec.template.cliques}
        return draw_blueprint(self.owner, templates, self.topologies)

    # Moving.

    def apply(self, document: Json) -> None:
        """Edit the set as a user would."""
        self.owner = admitted(document, self.owner, now=self.now)

    def put(self, resource: Resource) -> None:
        """Write a resource from outside, whatever is there."""
        self._version += 1
        self.rows[key_of(resource)] = _at(resource, self._version)

    def plan(self, copy: int = 0) -> tuple[Plan, CopySummary]:
        """Plan one copy without carrying it out."""
        wanted = self.owner.metadata.deleted_at is None and copy < (self.owner.spec.replicas or 0)
        view = self.view(copy)
        if wanted:
            orders = replace(self.orders, update=update_order(self.owner, copy))
            return plan_copy(self.blueprint, view, orders, now=self.now)
        return plan_removal(view, self.orders, now=self.now)

    def step(self, copy: int = 0) -> Plan:
        """Plan one copy, carry the plan out, and check that the same pass then finds nothing left to do."""
        plan, summary = self.plan(copy)
        self.carry_out(plan)
        again, same = self.plan(copy)
        assert again.is_empty, f"the plan was not complete: {again}"
        assert again.wake_at is None or again.wake_at > self.now, "a pass that changes nothing would be made for ever"
        assert same == summary, "the summary was not that of the state after the plan"
        self.totals.put(summary)
        self.last = plan
        return plan

    def carry_out(self, plan: Plan) -> None:
        """Make a plan's changes as one commit, or fail as the store would."""
        touched = [key_of(r) for r in (*plan.creates, *plan.updates, *plan.deletes)]
        assert len(touched) == len(set(touched)), "a plan changes one resource twice"
        for resource in plan.creates:
            assert key_of(resource) not in self.rows, f"{key_of(resource)} exists already"
        for resource in (*plan.updates, *plan.deletes):
            assert self.rows[key_of(resource)].resource_version == resource.resource_version, "an old version"
        for resource in (*plan.creates, *plan.updates):
            self.put(resource)
        for resource in plan.deletes:
            del self.rows[key_of(resource)]

    def settle(self) -> PodCliqueSet:
        """Pass over all copies, those beyond the size too, then over the set, until no turn changes; return the set."""
        copies = {pod.identity.copy for pod in self.of(Pod)} | {c.identity.copy for c in self.of(PodClique)}
        copies |= {gang.copy for gang in self.of(PodGang)} | {g.copy for g in self.of(PodCliqueScalingGroup)}
        while True:
            had = turns(self.owner)
            for copy in sorted(copies | set(range(self.owner.spec.replicas or 0)) | set(self.totals.copies)):
                self.step(copy)
            update = advance(self.owner, self.totals, now=self.now, settle_s=self.settle_s)
            self.owner = with_set_status(self.owner, self.totals, None, update, now=self.now)
            if turns(self.owner) == had:
                return self.owner

    def change_pods(self, change: Callable[[Pod], Pod | None], pods: Iterable[Pod] | None = None) -> None:
        """Change some pods (all active ones unless given) from outside; None removes one."""
        for pod in list(self.pods() if pods is None else pods):
            changed = change(pod)
            if changed is None:
                del self.rows[key_of(pod)]
            else:
                self.put(changed)

    def run(self, pods: Iterable[Pod] | None = None) -> None:
        """Give pods a node and let them serve."""
        self.change_pods(lambda pod: ready(pod, self.now), pods)

    def reap(self) -> None:
        """Let the runtime remove every pod that was asked to stop."""
        self.change_pods(lambda _: None, [pod for pod in self.of(Pod) if pod.is_terminating and pod.node])

    def scale_clique(self, name: str, replicas: int, owner: ScaleOwner = ScaleOwner.USER) -> None:
        """Scale one clique as the scale call does."""
        self.put(replace(self.one(PodClique, name), replicas=replicas, scale_owner=owner))

    def scale_group(self, name: str, replicas: int, owner: ScaleOwner = ScaleOwner.USER) -> None:
        """Scale one group as the scale call does."""
        self.put(replace(self.one(PodCliqueScalingGroup, name), replicas=replicas, scale_owner=owner))


def bound(pod: Pod, now: float = NOW) -> Pod:
    """Return the pod on a node."""
    return replace(pod, node=pod.node or "n0", scheduled_at=pod.scheduled_at or now, waiting_reason="")


def ready(pod: Pod, now: float = NOW) -> Pod:
    """Return the pod serving."""
    return replace(bound(pod, now), phase=PodPhase.RUNNING, started_at=now, ready_at=now)


def lost(pod: Pod, now: float = NOW) -> Pod:
    """Return the pod after its container crashed."""
    return replace(bound(pod, now), phase=PodPhase.RUNNING, ready_at=None, unready_at=now, last_exit_code=1)


def failed(pod: Pod, now: float = NOW) -> Pod:
    """Return the pod failed for good."""
    return replace(bound(pod, now), phase=PodPhase.FAILED, ready_at=None, unready_at=now, finished_at=now)


def deleted(pod: Pod, now: float = NOW) -> Pod:
    """Return the pod asked to stop."""
    return replace(pod, metadata=replace(pod.metadata, deleted_at=now))


def minimums(gang: PodGang) -> Mapping[str, int]:
    """Return the minimum of each pod group of a gang."""
    return {pod_group.name: pod_group.min_replicas for pod_group in gang.pod_groups}


def _at(resource: Any, version: int) -> Any:  # noqa: ANN401 -- any resource, as the store gives versions
    return replace(resource, resource_version=version)


def world(
    cliques: Iterable[Json],
    groups: Iterable[Json] = (),
    *,
    topologies: TopologyLevels = TOPOLOGIES,
    **more: Any,  # noqa: ANN401 -- fields of the manifest
) -> World:
    """Return the world of one new set."""
    return World(owner=admitted(manifest(cliques, groups, **more)), topologies=topologies)
