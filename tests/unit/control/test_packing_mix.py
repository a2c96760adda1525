"""The mix by which few pods are packed follows what runs and what waits, and is not replaced for trifles."""

from __future__ import annotations

from grove_server.control.decisions import Holding, Holdings
from grove_server.control.packing_mix import PackingMix, drift, mix_of
from grove_server.placement import Cluster, PodShape, Verdict, place
from grove_server.placement.stranding import MIX_MAX, WEIGHT_MAX
from grove_server.placement.wake_ups import WakeUps
from grove_server.resources.meta import Key, Kind
from tests.placement_cases import clique, gang, gpu_node, gpus


class _Scene:
    """A cluster of twenty GPU servers with its account, and who waits for it."""

    def __init__(self) -> None:
        self.cluster = Cluster(gpu_node(f"n{i:02}") for i in range(20))
        self.holdings = Holdings(self.cluster)
        self.wake_ups: WakeUps[Key] = WakeUps(self.cluster)
        self.mix = PackingMix(self.cluster, self.holdings, self.wake_ups)

    def run_pods(self, shape: PodShape, count: int) -> None:
        """Let so many pods run."""
        for _ in range(count):
            number = len(self.holdings)
            key = Key(Kind.POD, "default", f"pod-{number}")
            assert self.holdings.adopt(key, Holding(f"n{number % 20:02}", shape, ()))

    def change_much(self) -> None:
        """Let so much happen that the mix is worth a look."""
        for _ in range(40):
            self.cluster.set_schedulable(["n00"], schedulable=False)
            self.cluster.set_schedulable(["n00"], schedulable=True)

    def weights(self) -> dict[PodShape, int]:
        """Return the mix that the cluster packs for."""
        return {} if self.cluster.stranding is None else dict(self.cluster.stranding.mix.shapes)


def test_the_mix_is_what_runs() -> None:
    """Shapes of running pods weigh as many pods as there are; pods without GPUs do not count."""
    scene = _Scene()
    scene.run_pods(gpus(1), 60)
    scene.run_pods(gpus(2), 20)
    scene.run_pods(PodShape(requests=(("cpu", 1),)), 20)
    assert scene.mix.follow()
    assert scene.weights() == {gpus(1): 60, gpus(2): 20}


def test_what_waits_counts_too() -> None:
    """Pods of a gang without room weigh as much as those that run."""
    scene = _Scene()
    request = gang(clique("big", 30, gpus(8)))
    verdict = place(scene.cluster, request)
    assert isinstance(verdict, Verdict)
    scene.wake_ups.file(Key(Kind.POD_GANG, "default", "gang"), [(request, verdict)], order=())
    scene.run_pods(gpus(1), 70)
    assert scene.mix.follow()
    assert scene.weights() == {gpus(1): 70, gpus(8): 30}


def test_a_small_drift_changes_nothing() -> None:
    """The mix stays while less than a tenth of the weight moved, and is looked at only after many changes."""
    scene = _Scene()
    scene.run_pods(gpus(1), 70)
    assert scene.mix.follow()
    first = scene.cluster.stranding
    scene.run_pods(gpus(2), 7)
    assert not scene.mix.follow()
    assert scene.cluster.stranding is first
    scene.change_much()
    assert not scene.mix.follow()
    scene.run_pods(gpus(2), 20)
    assert not scene.mix.follow()
    scene.change_much()
    assert scene.mix.follow()
    assert scene.weights() == {gpus(1): 70, gpus(2): 27}


def test_drift_and_weights_are_bounded() -> None:
    """Drift lies between 0 and 1; a mix keeps to its bounds whatever the numbers."""
    one, two = gpus(1), gpus(2)
    assert drift({one: 1.0}, {one: 1.0}) == 0
    assert drift({one: 1.0}, {two: 1.0}) == 1
    assert drift({one: 0.5, two: 0.5}, {one: 0.75, two: 0.25}) == 0.25
    many = {gpus(1, cpu=cpu): 3 * WEIGHT_MAX for cpu in range(1, MIX_MAX + 10)}
    mix = mix_of(many)
    assert len(mix.shapes) == MIX_MAX
    assert all(1 <= weight <= WEIGHT_MAX for _, weight in mix.shapes)
