"""From the inventory to what the core looks at: policies, census, and a snapshot with readings put beside.

A policy that is off, that cannot be read, or whose set is not there has no scopes. A set's own configuration is a
policy like others, without a status; what a ScalingPolicy scales is left out of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from autoscaler.acting.conflicts import Conflicts
from autoscaler.acting.inventory import Inventory, gpus_per_replica, target_key
from autoscaler.acting.records import CLIQUE, GROUP, NO_INDEX, PodRecord, PolicySeen, SetSeen
from autoscaler.acting.scaling import Scaler
from autoscaler.observation import Reading, RoleState, ScopeState
from autoscaler.policy import PolicyError, compile_policy
from autoscaler.service.by_hand import ByHand
from autoscaler.signals.census import Census, PodSeen, ScopeSeen
from autoscaler.signals.collector import Observed
from autoscaler.signals.pages import page_of
from grove_client import to_object
from grove_server.resources import scaling_policy as schema
from grove_server.resources.manifest import PodCliqueSetTemplate
from grove_server.resources.scaling_policy import RoleSpec, ScalingPolicySpec
from grove_server.resources.template_scaling import template_scaling

TEMPLATE_PREFIX: Final = "podcliqueset:"
# Of so many scopes what is to be done is done in one step of the event loop: a few milliseconds.
STEP_SCOPES: Final = 32


@cache
def _template() -> TypeAdapter[PodCliqueSetTemplate]:
    """Return what reads templates; making it takes tens of milliseconds, which only who needs it waits for."""
    return TypeAdapter(PodCliqueSetTemplate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One policy for one copy of its set."""

    seen: PolicySeen
    spec: ScalingPolicySpec
    of_set: SetSeen
    copy: int


class Scopes:
    """Keeps the census as long as nothing changed that it is made of."""

    def __init__(self, inventory: Inventory, conflicts: Conflicts, by_hand: ByHand, *, scrapes: bool) -> None:
        """*scrapes*: whether pods' own pages are read."""
        self._inventory = inventory
        self._conflicts = conflicts
        self._by_hand = by_hand
        self._scrapes = scrapes
        self._version = -1
        self._census = Census(())
        self._scopes: tuple[Scope, ...] = ()
        self._of_templates: dict[tuple[str, str], tuple[object, PolicySeen | None, tuple[str, ...]]] = {}
        self.policies: dict[str, PolicySeen] = {}

    def role_of(self, key: str, name: str) -> RoleSpec | None:
        """Return a role of a policy."""
        seen = self.policies.get(key)
        if seen is None or seen.spec is None:
            return None
        return next((role for role in seen.spec.roles if role.name == name), None)

    def current(self) -> Iterator[PolicySeen]:
        """Yield each policy of the last census, with its status as it is now."""
        for seen in self.policies.values():
            yield self._inventory.policies.get((seen.namespace, seen.name), seen) if seen.is_stored else seen

    def left_out(self, namespace: str, set_name: str) -> tuple[str, ...]:
        """Return what of a set's own configuration is not followed, as sentences."""
        return self._of_templates.get((namespace, set_name), (None, None, ()))[2]

    async def census(self) -> Census:
        """Return whose signals are wanted now."""
        version = self._inventory.version
        if version != self._version:
            self.policies = {seen.key: seen for seen in self._policies()}
            self._by_hand.keep_only(self.policies)
            self._scopes = scopes = tuple(self._find())
            pods = [self._inventory.pods_of(each.seen.namespace, each.of_set.name, each.copy) for each in scopes]
            # A fifth of a second for ten thousand pods; what it reads does not change.
            self._census = await asyncio.to_thread(self._census_of, scopes, pods)
            self._version = version
        return self._census

    async def states(self, observed: Observed, scaler: Scaler, now: float) -> tuple[ScopeState, ...]:
        """Return the scopes of the last census with what was *observed* of them."""
        found = []
        for scope, readings, stuck in zip(self._scopes, observed.scopes, observed.stuck, strict=True):
            found.append(
                ScopeState(
                    key=scope.seen.key,
                    copy=scope.copy,
                    roles=tuple(self._roles(scope, readings.roles, stuck, scaler, now)),
                    readings=readings.scope,
                    pauses=self._by_hand.pauses(scope.seen.key, now),
                    overrides=self._by_hand.overrides(scope.seen.key, scope.copy, now),
                )
            )
            if len(found) % STEP_SCOPES == 0:
                await asyncio.sleep(0)
        return tuple(found)

    def _policies(self) -> Iterator[PolicySeen]:
        stored = [self._inventory.policies[key] for key in sorted(self._inventory.policies)]
        yield from stored
        taken: dict[tuple[str, str], set[str]] = {}
        for seen in stored:
            if seen.spec is not None:
                names = {each.pod_clique or each.pod_clique_scaling_group or "" for each in seen.spec.roles}
                taken.setdefault((seen.namespace, seen.spec.pod_clique_set), set()).update(names)
        for key in [key for key in self._of_templates if key not in self._inventory.sets]:
            del self._of_templates[key]
        for key in sorted(self._inventory.sets):
            found = self._of_template(self._inventory.sets[key], frozenset(taken.get(key, ())))
            if found is not None:
                yield found

    def _of_template(self, seen: SetSeen, taken: frozenset[str]) -> PolicySeen | None:
        """Return the policy of a set's own configuration; read again only when the set, or who scales, changes."""
        template = seen.message.spec.template
        has_any = any(each.spec.HasField("auto_scaling_config") for each in template.cliques) or any(
            each.HasField("scale_config") for each in template.pod_clique_scaling_groups
        )
        if not has_any:
            self._of_templates.pop((seen.namespace, seen.name), None)
            return None
        generation = seen.message.metadata.generation
        mark = (seen.message.metadata.uid, generation, taken)
        known = self._of_templates.get((seen.namespace, seen.name))
        if known is not None and known[0] == mark:
            return known[1]
        found: PolicySeen | None = None
        left_out: tuple[str, ...]
        try:
            parsed = _template().validate_json(orjson.dumps(to_object(template)))
            asked = template_scaling(seen.namespace, seen.name, parsed, taken=taken)
            left_out = asked.left_out
            if asked.spec is not None:
                name = f"{TEMPLATE_PREFIX}{seen.name}"
                found = PolicySeen(
                    namespace=seen.namespace,
                    name=name,
                    generation=generation,
                    spec=asked.spec,
                    policy=compile_policy(seen.namespace, name, generation, asked.spec),
                    is_stored=False,
                )
        except (ValidationError, PolicyError) as error:
            left_out = (f"the template cannot be read: {error}",)
        self._of_templates[seen.namespace, seen.name] = (mark, found, left_out)
        return found

    def _find(self) -> Iterator[Scope]:
        for seen in self.policies.values():
            if seen.policy is None or seen.spec is None or seen.spec.mode == schema.MODE_OFF:
                continue
            of_set = self._inventory.sets.get((seen.namespace, seen.spec.pod_clique_set))
            if of_set is not None:
                for copy in range(of_set.copies):
                    yield Scope(seen=seen, spec=seen.spec, of_set=of_set, copy=copy)

    def _census_of(self, scopes: Sequence[Scope], pods: Sequence[Iterable[PodRecord]]) -> Census:
        """Return the census of scopes with their pods; runs in a thread, and reads nothing that changes."""
        return Census([self._scope_seen(scope, of_copy) for scope, of_copy in zip(scopes, pods, strict=True)])

    def _scope_seen(self, scope: Scope, pods: Iterable[PodRecord]) -> ScopeSeen:
        spec, policy = scope.spec, scope.seen.policy
        assert policy is not None, "scopes are of policies that can be computed with"
        namespace = scope.seen.namespace
        roles = {target_key(namespace, scope.of_set.name, scope.copy, role): role.name for role in spec.roles}
        return ScopeSeen(
            key=scope.seen.key,
            copy=scope.copy,
            namespace=namespace,
            engine=spec.engine,
            roles={role.name: role.role for role in spec.roles},
            pods=[self._pod_seen(pod, _role_name(pod, roles), spec.engine) for pod in pods],
            ttft_s=policy.slo.ttft_s,
            itl_s=policy.slo.itl_s,
            signals=spec.signals,
        )

    def _pod_seen(self, pod: PodRecord, role: str, engine: str) -> PodSeen:
        counts = pod.is_ready and not pod.is_leaving
        page = page_of(pod.ip, pod.annotations, pod.ports, engine) if self._scrapes and pod.is_ready else ""
        return PodSeen(name=pod.name, role=role, counts=counts, page=page)

    def _roles(
        self,
        scope: Scope,
        readings: Mapping[str, Mapping[str, Reading]],
        stuck: Mapping[str, tuple[str, ...]],
        scaler: Scaler,
        now: float,
    ) -> Iterator[RoleState]:
        namespace, of_set = scope.seen.namespace, scope.of_set
        for role in scope.spec.roles:
            target = self._inventory.target(namespace, of_set.name, scope.copy, role)
            if target is None or target.is_leaving:
                continue
            key = (target.kind, target.namespace, target.name)
            counts = self._inventory.counts(target, of_set, role, now)
            is_acting = scope.spec.mode == schema.MODE_APPLY
            yield RoleState(
                name=role.name,
                current=target.replicas,
                ready=counts.ready,
                starting=counts.starting,
                pending=counts.pending,
                draining=counts.draining,
                failed=counts.failed,
                sick=min(
                    counts.ready, self._sick(namespace, stuck.get(role.name, ()), is_clique=target.kind == CLIQUE)
                ),
                min_available=target.min_available,
                gpus_per_replica=gpus_per_replica(of_set, role),
                pending_since=counts.pending_since,
                cold_starts_s=counts.cold_starts_s,
                conflict=self._conflicts.of(key, now) if is_acting else "",
                failing=scaler.failing(key, now),
                target_kind=target.kind,
                target_name=target.name,
                readings=readings.get(role.name, {}),
            )

    def _sick(self, namespace: str, stuck: Sequence[str], *, is_clique: bool) -> int:
        if is_clique:
            return len(stuck)
        found = {pod.group_replica for name in stuck if (pod := self._inventory.pod(namespace, name)) is not None}
        return len(found - {NO_INDEX})


def _role_name(pod: PodRecord, roles: Mapping[tuple[str, str, str], str]) -> str:
    name = roles.get((CLIQUE, pod.namespace, pod.clique), "")
    return name or roles.get((GROUP, pod.namespace, pod.group), "")
