"""One run: the plant, its scrapes, and a policy that sees them and sets sizes.

Scrapes come every `scrape_s`, ticks every `period_s`, 7 s after a scrape where both are 15 s: that is how old metrics
are on average. After the trace's end the plant runs on for ten minutes as it is, so that late requests can end.
"""

from __future__ import annotations

from typing import Final, Protocol

from autoscaler.replay.faults import Scraper
from autoscaler.replay.outcome import Action, Outcome, outcome
from autoscaler.replay.plant import Plant, Setting
from autoscaler.replay.readings import Reading, RoleSizes, Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.traces import Trace

SCRAPE_S: Final = 15.0
PERIOD_S: Final = 15.0
_TICK_AFTER_SCRAPE: Final = 7 / 15
_RUN_OUT_S: Final = 600.0


class Policy(Protocol):
    """What sets sizes. It is made anew for each run."""

    @property
    def scrape_s(self) -> float:
        """How often it has pods scraped."""
        ...

    @property
    def period_s(self) -> float:
        """How often it decides."""
        ...

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Take in a scrape; None when nothing answered."""
        ...

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:
        """Return the sizes to set."""
        ...


class Static:
    """The policy that leaves sizes as they are."""

    scrape_s = 3_600.0
    period_s = 3_600.0

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Look at nothing."""

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:  # noqa: ARG002 -- the protocol's
        """Keep the sizes."""
        return Sizes(prefill=prefill.wanted, decode=decode.wanted)


def run(trace: Trace, setting: Setting, policy: Policy) -> tuple[Outcome, list[Action]]:
    """Run a policy against a trace; return what came of it, and what it did."""
    plant = Plant(trace, setting)
    scraper = Scraper(setting.faults)
    actions: list[Action] = []
    end_s = trace.duration_s
    scrape_s = 0.0
    tick_s = policy.period_s * _TICK_AFTER_SCRAPE
    while min(scrape_s, tick_s) < end_s:
        if scrape_s <= tick_s:
            plant.advance(scrape_s)
            policy.observe(scrape_s, scraper.seen(plant.read()))
            scrape_s += policy.scrape_s
            continue
        plant.advance(tick_s)
        prefill, decode = plant.sizes(Role.PREFILL), plant.sizes(Role.DECODE)
        sizes = policy.decide(tick_s, prefill, decode)
        for role, before, after in (
            (Role.PREFILL, prefill.wanted, sizes.prefill),
            (Role.DECODE, decode.wanted, sizes.decode),
        ):
            plant.scale(role, after)
            now = plant.sizes(role).wanted if after != before else before
            if now != before:
                actions.append(Action(at_s=tick_s, role=role, before=before, after=now))
        tick_s += policy.period_s
    plant.advance(end_s + _RUN_OUT_S)
    return outcome(plant, actions, end_s), actions
