"""One test's part of a server: a namespace of its own, nodes to take away and give back, and proof that nothing moves.

How a test knows that nothing more will happen: it sends a marker through all loops. The marker is a set in another
namespace whose one pod needs no room to speak of. From its Apply to its readiness the workload loop, the placement
loop and the runtime each have to come round several times, after everything that was due before. If in all that time
no resource of the test changed its version, nothing was due: every loop waits for the next change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from grove.v1.event_pb2 import Event
from grove.v1.node_pb2 import Node
from grove_client import GroveClient, NotFoundError
from tests.conformance.observation import Observation, check, node_of, observe
from tests.waiting import until_seen

WORKLOADS: Final = Path(__file__).parent / "workloads"
MARKER: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: marker}
spec:
  replicas: 1
  template:
    cliques:
      - name: pod
        spec:
          roleName: pod
          replicas: 1
          podSpec: {containers: [{name: main, image: marker, resources: {requests: {cpu: 1m}}}]}
"""
_LAPS_MAX: Final = 20


class Scene:
    """What one test does to the server, and sees of it."""

    def __init__(self, grove: GroveClient, namespace: str, nodes: dict[str, Node]) -> None:
        self.grove = grove
        self.namespace = namespace
        self.nodes = nodes
        self._marker_namespace = f"{namespace}-marker"
        self._withheld: list[str] = []
        self._settled: Observation | None = None

    # The cluster.

    async def limit_nodes(self, count: int, *, cordoned: int) -> None:
        """Leave *count* nodes in play, of which *cordoned* can be given back one after the other."""
        names = sorted(self.nodes, key=lambda name: (len(name), name))
        free = count - cordoned
        await self.grove.nodes.cordon(names[free:])
        self._withheld = names[free:count]

    async def uncordon(self, count: int) -> None:
        """Give back *count* nodes in one change."""
        names, self._withheld = self._withheld[:count], self._withheld[count:]
        assert len(names) == count
        assert sorted(await self.grove.nodes.uncordon(names)) == sorted(names)

    # Changes.

    async def apply(self, name: str) -> None:
        """Apply a workload by the name of its file."""
        await self.apply_text((WORKLOADS / f"{name}.yaml").read_text(encoding="utf-8"))

    async def apply_text(self, manifest: str) -> None:
        """Apply manifests into the test's namespace."""
        await self.grove.apply_manifest(manifest, default_namespace=self.namespace)

    async def scale_set(self, name: str, replicas: int) -> None:
        """Set the number of copies."""
        await self.grove.pod_clique_sets.scale(name, replicas, namespace=self.namespace)

    async def scale_group(self, name: str, replicas: int) -> None:
        """Set the size of a group, by its full name."""
        await self.grove.pod_clique_scaling_groups.scale(name, replicas, namespace=self.namespace)

    async def scale_clique(self, name: str, replicas: int) -> None:
        """Set the size of a clique, by its full name."""
        await self.grove.pod_cliques.scale(name, replicas, namespace=self.namespace)

    async def delete_sets(self) -> None:
        """Delete all sets of the test in one change."""
        names = [item.metadata.name async for item in self.grove.pod_clique_sets.list(namespace=self.namespace)]
        if names:
            await self.grove.pod_clique_sets.delete(names, namespace=self.namespace)

    # What is there.

    async def observe(self) -> Observation:
        """Read everything in the test's namespace."""
        return await observe(self.grove, self.namespace)

    async def settles(self, *, pods: int, ready: int, pending: int | None = None) -> Observation:
        """Wait for exactly these counts, prove that they are final, and check everything that must hold then.

        Pods that were ready when the scene last settled, and still exist, must not have moved.
        """
        wanted = (pods, ready, pods - ready if pending is None else pending)
        await until_seen(
            self.observe,
            lambda seen: seen.counts == wanted,
            lambda seen: f"(pods, ready, pending) {wanted}, seen {seen.counts}: {seen.ready_by_clique()}",
        )
        seen = await self.rests()
        assert seen.counts == wanted, f"{wanted} was passed on the way to {seen.counts}: {seen.ready_by_clique()}"
        return seen

    async def rests(self) -> Observation:
        """Wait until all is as it must be, prove that nothing moves any more, and check that all is so still.

        The first wait is for statuses of sets: they follow at an interval that grows with the work they take.
        """
        await until_seen(self.observe, lambda seen: not self._faults(seen), self._faults)
        seen = await self.observe_until_quiet()
        check(seen, self.nodes)
        self._check_unmoved(seen)
        self._settled = seen
        return seen

    async def observe_until_quiet(self) -> Observation:
        """Wait until nothing moves any more, and return what is there."""
        before = await self.observe()
        for _ in range(_LAPS_MAX):
            await self._send_marker()
            seen = await self.observe()
            if seen.versions == before.versions:
                return seen
            before = seen
        message = f"something in {self.namespace} still moves after {_LAPS_MAX} markers"
        raise AssertionError(message)

    async def gang_event(self, gang: str, reason: str) -> Event:
        """Wait for an event on a gang and return it."""

        async def events() -> list[Event]:
            found = self.grove.events.list(namespace=self.namespace, involved_kind="PodGang", involved_name=gang)
            return [event async for event in found if event.reason == reason]

        found = await until_seen(events, bool, lambda _: f"an event {reason} on the gang {gang}")
        return found[0]

    async def is_empty(self) -> None:
        """Wait until nothing is left in the test's namespace."""
        await until_seen(
            self.observe,
            lambda seen: not seen.versions,
            lambda seen: f"nothing left, seen {sorted(seen.versions)[:5]}",
        )

    async def close(self) -> None:
        """Remove everything and give all nodes back."""
        await self.delete_sets()
        await self.is_empty()
        await self.grove.nodes.uncordon(list(self.nodes))

    def _faults(self, seen: Observation) -> str:
        """Return what is not yet, or not at all, as it must be; empty if everything is."""
        try:
            check(seen, self.nodes)
        except AssertionError as fault:
            return str(fault) or repr(fault)
        return ""

    async def _send_marker(self) -> None:
        sets, namespace = self.grove.pod_clique_sets, self._marker_namespace
        await self.grove.apply_manifest(MARKER, default_namespace=namespace)
        await until_seen(
            lambda: sets.get("marker", namespace=namespace),
            lambda marker: marker.status.available_replicas == 1,
            lambda marker: f"the marker is ready, seen {marker.status}",
        )
        await sets.delete(["marker"], namespace=namespace)

        async def is_gone() -> bool:
            try:
                await sets.get("marker", namespace=namespace)
            except NotFoundError:
                return True
            return False

        await until_seen(is_gone, bool, lambda _: "the marker is gone")

    def _check_unmoved(self, seen: Observation) -> None:
        """Pods that were ready and are still there are the same ones, on the same nodes, and ready."""
        if self._settled is None:
            return
        ready = {pod.metadata.name: (pod.metadata.uid, node_of(pod)) for pod in seen.ready}
        for pod in self._settled.ready:
            name = pod.metadata.name
            if name in seen.pods:
                assert ready.get(name) == (pod.metadata.uid, node_of(pod)), f"{name} was moved or restarted"
