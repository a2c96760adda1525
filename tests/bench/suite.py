"""Which benchmarks there are. Each is a function of a module beside this one that returns its figures.

Names are those of the figures, so that `--only deploy` runs what one expects.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tests.bench import (
    deploy,
    mirrors,
    nodes,
    onebox,
    openb,
    pending,
    place,
    preemption,
    quality,
    reconcile,
    replay_days,
    rpc,
    ruled,
    service,
    signals,
    simulated,
    store,
    tick,
    update,
)
from tests.bench.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A named measurement. ``run`` is a module-level function, because it is called in another process."""

    name: str
    run: Callable[[], Iterable[Figure]]

    def figures(self) -> list[Figure]:
        """Run it here and collect what it yields, because a generator cannot be sent to another process."""
        return list(self.run())


SUITE: Final[tuple[Benchmark, ...]] = (
    Benchmark(name="rpc.get", run=rpc.rpc_get),
    Benchmark(name="rpc.apply", run=rpc.rpc_apply),
    Benchmark(name="watch.fanout", run=rpc.watch_fanout),
    Benchmark(name="store.put", run=store.store_put),
    Benchmark(name="store.fanout", run=store.store_fanout),
    Benchmark(name="place", run=place.run),
    Benchmark(name="place.nodes", run=nodes.run),
    Benchmark(name="place.pending", run=pending.run),
    Benchmark(name="place.service", run=service.run),
    Benchmark(name="place.evict", run=preemption.run),
    Benchmark(name="place.ruled", run=ruled.run),
    Benchmark(name="place.w", run=mirrors.run),
    Benchmark(name="place.oracle", run=quality.run),
    Benchmark(name="place.openb", run=openb.run),
    Benchmark(name="deploy", run=deploy.run),
    Benchmark(name="restart.80k", run=deploy.restart_80k),
    Benchmark(name="life.reconcile", run=reconcile.run),
    Benchmark(name="life.update10k", run=update.run),
    Benchmark(name="life.sim", run=simulated.run),
    Benchmark(name="scale.replay100k", run=replay_days.replay_100k),
    Benchmark(name="scale.day", run=replay_days.replay_days),
    Benchmark(name="scale.tick1000", run=tick.run),
    Benchmark(name="scale.signals", run=signals.run),
    Benchmark(name="onebox", run=onebox.run),
)
