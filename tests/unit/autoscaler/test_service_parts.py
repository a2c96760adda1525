"""The service's small parts: its clock, conflicts, settings, what is by hand, counts of replicas, and its tables."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from autoscaler.acting.conflicts import OFTEN, RESPECT_S, STAY_AWAY_S, Conflicts
from autoscaler.acting.inventory import Inventory
from autoscaler.acting.records import CLIQUE, NO_INDEX, PodRecord, SetSeen, TargetSeen
from autoscaler.service.by_hand import ByHand, OverrideAsked, PauseAsked
from autoscaler.service.clock import SteadyClock
from autoscaler.service.problems import Problems
from autoscaler.service.whatif import QuestionError, simulate
from autoscaler.settings import SettingsError, load, parser
from autoscaler.signals.failures import Failure
from autoscaler.signals.vectors import Problem
from grove.v1 import scaling_policy_pb2
from grove.v1.autoscaler_pb2 import AutoscalerServiceSimulateRequest
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.scaling_policy_pb2 import ScalingPolicyStatus
from grove_server.resources.scaling_policy import RoleSpec
from tests.tidy.sources import ROOT
from tests.tidy.tables import autoscaler_metric_names

KEY = (CLIQUE, "default", "chat-0-decode")


def target(replicas: int, generation: int = 1, owner: str = "spec") -> TargetSeen:
    """Return a clique with a size."""
    return TargetSeen(
        kind=CLIQUE,
        namespace="default",
        name="chat-0-decode",
        uid="u",
        generation=generation,
        replicas=replicas,
        min_available=1,
        owner=owner,
        is_leaving=False,
    )


def pod(
    name: str, *, ready: bool = True, placed: bool = True, leaving: bool = False, created: float = 1.0
) -> PodRecord:
    """Return a pod of that clique."""
    return PodRecord(
        namespace="default",
        name=name,
        set_name="chat",
        copy=0,
        clique="chat-0-decode",
        group="",
        group_replica=NO_INDEX,
        is_ready=ready,
        is_placed=placed,
        is_leaving=leaving,
        has_failed=False,
        created_at=created,
        cold_start_s=7.0 if ready else None,
        ip="",
        annotations={},
        ports={},
    )


def test_the_clock_never_goes_back_and_follows_a_set_one_slowly() -> None:
    """A jump of the machine's clock moves the time of ticks by at most half of what passed."""
    wall, steady = [1000.0], [0.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    steady[0], wall[0] = 10.0, 5000.0
    assert clock.now() == 1015.0
    steady[0], wall[0] = 20.0, 900.0
    assert clock.now() == 1020.0


def test_what_we_asked_for_is_no_conflict_and_what_others_set_is() -> None:
    """Our own size is ours when it is seen; another one is respected for a while, and often repeated, for long."""
    conflicts = Conflicts()
    conflicts.asked(KEY, 5)
    conflicts.saw(target(2), target(5, 2, "autoscaler"), 0.0)
    assert not conflicts.of(KEY, 1.0)
    conflicts.saw(target(5, 2), target(3, 3, "user"), 10.0)
    assert conflicts.of(KEY, 11.0).startswith("a user set it to 3")
    assert not conflicts.of(KEY, 10.0 + RESPECT_S)
    for turn in range(OFTEN):
        conflicts.saw(target(3), target(4, owner="autoscaler"), 20.0 + turn)
    assert conflicts.of(KEY, 20.0 + RESPECT_S + 100)
    assert not conflicts.of(KEY, 30.0 + STAY_AWAY_S)


def test_a_problem_of_a_source_is_told_when_it_begins_and_when_it_is_over() -> None:
    """What goes on is told once, whatever its message says by now; another failure of the same question is another."""
    problems = Problems()
    slow = Problem(of="scrape", what="pages", failure=Failure.REFUSED, message="1 of 9 pages")
    worse = Problem(of="scrape", what="pages", failure=Failure.REFUSED, message="2 of 9 pages")
    other = Problem(of="scrape", what="pages", failure=Failure.MALFORMED, message="1 of 9 pages")
    assert problems.turned([slow]) == ([slow], [])
    assert problems.turned([worse]) == ([], [])
    assert problems.turned([other]) == ([other], [worse])
    assert problems.turned([]) == ([], [other])
    assert problems.turned([slow]) == ([slow], [])


def test_replicas_divide_into_what_they_do() -> None:
    """Ready, starting and pending make up the size; surplus and leaving pods drain; a pod not made yet is pending."""
    inventory, role = Inventory(), RoleSpec(name="decode", role="decode", pod_clique="decode", max_replicas=9)
    seen = SetSeen(namespace="default", name="chat", copies=1, cliques={}, groups={}, message=PodCliqueSet())
    for each in (
        pod("a"),
        pod("b", ready=False),
        pod("c", ready=False, placed=False, created=3.0),
        pod("d", leaving=True),
    ):
        inventory.put_pod(each)
    inventory.put_target(target(4))
    counts = inventory.counts(target(4), seen, role, 50.0)
    assert (counts.ready, counts.starting, counts.pending, counts.draining) == (1, 1, 2, 1)
    assert (counts.pending_since, counts.cold_starts_s) == (3.0, (7.0,))
    inventory.put_target(target(1, 2))
    counts = inventory.counts(target(1, 2), seen, role, 50.0)
    assert (counts.ready, counts.starting, counts.pending, counts.draining) == (1, 0, 0, 2)
    inventory.drop_pod("default", "d")
    inventory.put_target(target(9, 1))
    assert inventory.target("default", "chat", 0, role) == target(1, 2)


def test_what_is_by_hand_survives_in_the_status() -> None:
    """Pauses and sizes that are written into a status are the same when they are read from it, until they end."""
    first, second, status = ByHand(), ByHand(), ScalingPolicyStatus()
    assert first.pause("n/p", PauseAsked(direction="in", until=100.0, reason="exam", actor="ann"), 10.0)
    size = OverrideAsked(role="decode", copy=1, replicas=3, until=90.0, reason="", actor="ann")
    assert first.override("n/p", size, 10.0)
    assert not first.override("n/p", size, 10.0)
    first.write("n/p", status, 10.0)
    second.recall("n/p", status)
    assert second.pauses("n/p", 11.0) == first.pauses("n/p", 11.0)
    assert [each.replicas for each in second.overrides("n/p", 1, 11.0)] == [3]
    assert not second.overrides("n/p", 0, 11.0)
    assert not second.overrides("n/p", 1, 95.0)
    assert second.pause("n/p", PauseAsked(direction="in", until=11.0, reason="", actor=""), 11.0)
    assert not second.pauses("n/p", 12.0)


def settings(*arguments: str, **variables: str) -> object:
    """Load settings."""
    return load(parser(argparse.ArgumentParser()).parse_args(arguments), variables)


def test_settings_come_from_flags_variables_and_a_file(tmp_path: Path) -> None:
    """Flags win over variables over the file; unknown keys and no source of signals are errors."""
    file = tmp_path / "c.yaml"
    file.write_text("tick_s: 3\nscrape: true\nname: file\n", encoding="utf-8")
    found = load(
        parser(argparse.ArgumentParser()).parse_args(["--config", str(file), "--name", "flag"]),
        {"GROVE_SCALER_TICK_S": "4", "GROVE_SERVER": "127.0.0.1:7", "GROVE_DATA_DIR": "x"},
    )
    assert (found.tick_s, found.name, found.scrape, found.server) == (4.0, "flag", True, "127.0.0.1:7")
    for arguments, variables, told in (
        ([], {}, "prometheus or scrape"),
        (["--scrape"], {"GROVE_SCALER_NOPE": "1"}, "no such setting"),
        (["--scrape", "--tick-s", "0"], {}, "tick_s"),
        (["--scrape", "--tls-cert", "x"], {}, "come together"),
    ):
        with pytest.raises(SettingsError, match=told):
            settings(*arguments, **variables)


def test_every_metric_is_documented_and_panels_show_what_there_is() -> None:
    """docs/autoscaler.md has one row for each metric, and the panels ask for no other."""
    told = set(re.findall(r"^\| `(grove_autoscaler_\w+)` \|", (ROOT / "docs/autoscaler.md").read_text(), re.MULTILINE))
    names = autoscaler_metric_names()
    assert told == names
    panels = json.dumps(json.loads((ROOT / "deploy/grafana/autoscaler.json").read_text())["panels"])
    asked = {name.removesuffix("_bucket") for name in re.findall(r"grove_autoscaler_\w+", panels)}
    assert asked <= names


async def test_a_trace_is_simulated_and_a_wrong_one_refused() -> None:
    """Simulate replays a trace in a process of its own, and says in one line, without paths, what it cannot read."""
    roles = [
        scaling_policy_pb2.ScalingRole(name=name, role=name, pod_clique=name, max_replicas=4, profile=profile)
        for name, profile in (
            ("prefill", scaling_policy_pb2.ScalingProfile(prefill_tokens_per_second=9300)),
            ("decode", scaling_policy_pb2.ScalingProfile(kv_tokens=450_000)),
        )
    ]
    roles[1].profile.decode_step.base = "28ms"
    asked = scaling_policy_pb2.ScalingPolicy(spec=scaling_policy_pb2.ScalingPolicySpec(pod_clique_set="c", roles=roles))
    asked.metadata.name = "chat"
    trace = "".join(
        json.dumps({"timestamp": 500 * number, "input_length": 800, "output_length": 50, "hash_ids": []}) + "\n"
        for number in range(200)
    )
    request = AutoscalerServiceSimulateRequest(policy=asked, trace=trace, trace_format="mooncake")
    answer = await simulate(request)
    assert [each.policy for each in answer.outcomes][:1] == ["ours"]
    assert answer.outcomes[0].gpu_hours > 0
    for text, form in (("", "mooncake"), (trace, "words"), ("no json", "mooncake")):
        wrong = AutoscalerServiceSimulateRequest(policy=asked, trace=text, trace_format=form)
        with pytest.raises(QuestionError) as refused:
            await simulate(wrong)
        assert "/" not in str(refused.value)
