"""Admission of ScalingPolicies: their own fields, their set, their budget, other policies, and schedules."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.observation import ROLE_SIGNALS, SCOPE_SIGNALS
from grove_server.admission.findings import InvalidResourceError
from grove_server.resources.scaling_policy import MODE_RECOMMEND, ScalingPolicySpec
from grove_server.resources.scaling_signals import SIGNAL_UNITS
from grove_server.resources.schema import SchemaError
from tests.manifest_cases import Json, changed, setting
from tests.policy_cases import admit_policy, disaggregated_set, policy, role

QUERY = 'sum by (pod) (rate(tokens_total{namespace="default"}[1m]))'


def refusals(manifest: Json, *others: Json, among: Json | None = None) -> dict[str, str]:
    """Return path and reason of everything that is wrong with a policy."""
    try:
        admit_policy(manifest, *others, among=among)
    except (SchemaError, InvalidResourceError) as error:
        return {violation.path: violation.reason.value for violation in error.violations}
    return {}


def warnings(manifest: Json, among: Json | None = None) -> str:
    """Return all warnings of a legal policy."""
    return "\n".join(admit_policy(manifest, among=among).warnings)


def sized_by(*policies: Json, kind: str = "decode", **spec: Any) -> Json:  # noqa: ANN401 -- a spec
    """Return a policy whose one role is sized by these."""
    return policy(roles=[role("decode", kind, policies=list(policies))], **spec)


def test_a_short_policy_only_recommends() -> None:
    """Defaults are filled in; a new policy changes nothing by itself; an equal one is unchanged."""
    first = admit_policy(policy(), among=disaggregated_set())
    assert first.warnings == ()
    assert first.resource.spec.mode == MODE_RECOMMEND
    assert isinstance(first.resource.spec, ScalingPolicySpec)
    again = admit_policy(policy(mode="recommend"), old=first.resource, among=disaggregated_set())
    assert not again.changed
    applied = admit_policy(policy(mode="apply"), old=first.resource, among=disaggregated_set())
    assert (applied.changed, applied.resource.metadata.generation) == (True, 2)


def test_everything_is_told_at_once() -> None:
    """Each wrong field has its own path, those that cannot be read and those that break rules together."""
    spec: dict[str, Any] = {
        "mode": "on",
        "paused": "up",
        "engine": "tgi",
        "slo": {"ttft": "soon", "itl": "40ms", "percentile": 95, "attainment": 0},
        "forecast": {"kind": "arima", "quantile": 1.5, "period": "1m"},
        "outage": {"action": "atLeast", "grace": "2h"},
        "scaleToZero": {"after": "1s"},
        "budget": {"gpus": 0, "name": "A b"},
        "unknown": 1,
    }
    found = refusals(changed(policy("P_1", **spec), setting("spec.roles.0.maxReplicas", "8")))
    assert set(found) == {
        "metadata.name",
        "spec.mode",
        "spec.paused",
        "spec.engine",
        "spec.slo.ttft",
        "spec.slo.percentile",
        "spec.slo.attainment",
        "spec.forecast.kind",
        "spec.forecast.quantile",
        "spec.forecast.period",
        "spec.outage.replicas",
        "spec.outage.grace",
        "spec.scaleToZero.after",
        "spec.budget.gpus",
        "spec.budget.name",
        "spec.unknown",
        "spec.roles[0].maxReplicas",
    }


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"role": "draft"}, "role", id="kind of role"),
        pytest.param({"minReplicas": 9}, "maxReplicas", id="minimum over maximum"),
        pytest.param({"minReplicas": 0}, "minReplicas", id="zero without scaleToZero"),
        pytest.param({"minReplicas": 1}, "minReplicas", id="below minAvailable"),
        pytest.param({"maxReplicas": 0}, "maxReplicas", id="nothing at all"),
        pytest.param({"gpusPerReplica": "many"}, "gpusPerReplica", id="GPUs in words"),
        pytest.param({"gpusPerReplica": -1}, "gpusPerReplica", id="negative GPUs"),
        pytest.param({"targetUtilization": 80}, "targetUtilization", id="percent for a ratio"),
        pytest.param(
            {"targetUtilization": 0.5, "scaleInUtilization": 0.6}, "scaleInUtilization", id="fuller after a scale-in"
        ),
        pytest.param({"drainTimeout": "-1s"}, "drainTimeout", id="negative time"),
        pytest.param({"profile": {"maxSequences": 0}}, "profile.maxSequences", id="no sequences"),
        pytest.param({"profile": {"decodeStep": {"base": "0s"}}}, "profile.decodeStep.base", id="free steps"),
        pytest.param({"podClique": "gone"}, "podClique", id="no such clique"),
        pytest.param({"podClique": "w1"}, "podClique", id="member of a group"),
        pytest.param({"podCliqueScalingGroup": "workers"}, "", id="two targets"),
        pytest.param(
            {"behavior": {"scaleUp": {"tolerance": 0.2}, "scaleDown": {"tolerance": 0.1}}},
            "behavior.scaleDown.tolerance",
            id="shrinks more readily than it grows",
        ),
        pytest.param(
            {"behavior": {"scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 0}]}}},
            "behavior.scaleUp.policies[0].periodSeconds",
            id="no period",
        ),
        pytest.param({"policies": [{"kind": "slo"}]}, "policies", id="no demand signal"),
    ],
)
def test_what_is_wrong_with_a_role_is_refused(change: Json, path: str) -> None:
    """Sizes that break the gang, wrong units, wrong targets: each at its path, and nothing else."""
    among = disaggregated_set()
    wrong = policy(roles=[{**role("prefill", "prefill"), **change}])
    assert set(refusals(wrong, among=among)) == {f"spec.roles[0].{path}" if path else "spec.roles[0]"}


def test_a_role_may_be_a_group() -> None:
    """A scaling group is a role as a clique is, and one that is not there is refused."""
    good = policy(roles=[role("w", "aggregated", podCliqueScalingGroup="workers")])
    assert refusals(good, among=disaggregated_set()) == {}
    bad = policy(roles=[role("w", "aggregated", podCliqueScalingGroup="w1")])
    assert refusals(bad, among=disaggregated_set()) == {"spec.roles[0].podCliqueScalingGroup": "NotFound"}


@pytest.mark.parametrize(
    ("entry", "signals", "path"),
    [
        pytest.param({"kind": "gpuUtil", "target": 80}, {}, "target", id="80 for a ratio that is built in"),
        pytest.param({"kind": "target", "signal": "kv_usage", "target": 50}, {}, "target", id="50 for 0.5"),
        pytest.param(
            {"kind": "target", "signal": "own", "target": 0.5}, {"unit": "percent"}, "target", id="0.5 for 50"
        ),
        pytest.param({"kind": "target", "signal": "own", "target": 50}, {"unit": "ratio"}, "target", id="own ratio"),
        pytest.param({"kind": "target", "signal": "gone", "target": 5}, {}, "signal", id="unknown signal"),
        pytest.param({"kind": "target", "target": 5}, {}, "signal", id="no signal"),
        pytest.param({"kind": "queueDepth"}, {}, "target", id="no target"),
        pytest.param({"kind": "kpa", "target": 5, "panicThreshold": 1}, {}, "panicThreshold", id="always in panic"),
        pytest.param({"kind": "step", "signal": "queued_requests"}, {}, "steps", id="no steps"),
        pytest.param({"kind": "target", "signal": "own", "target": 0}, {"unit": "count"}, "target", id="zero"),
    ],
)
def test_units_and_signals_of_a_policy_must_fit(entry: Json, signals: Json, path: str) -> None:
    """A share is no percentage, and what is compared must exist."""
    own = {"own": {"query": QUERY, **signals}} if signals else {}
    wrong = sized_by({"kind": "work"}, entry, signals=own)
    assert set(refusals(wrong)) == {f"spec.roles[0].policies[1].{path}"}


def test_decode_by_gpu_utilisation_alone_is_warned_of() -> None:
    """A decode role that only GPU utilisation drives is legal and unwise; with work beside it, it is neither."""
    alone = sized_by({"kind": "gpuUtil", "target": 0.8})
    assert "GPU utilisation alone" in warnings(alone, disaggregated_set())
    both = sized_by({"kind": "gpuUtil", "target": 0.8}, {"kind": "work"})
    assert warnings(both, disaggregated_set()) == ""
    prefill = sized_by({"kind": "gpuUtil", "target": 0.8}, kind="prefill")
    assert warnings(prefill, disaggregated_set()) == ""


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"query": "sum(tokens_total)"}, "query", id="adds up other tenants"),
        pytest.param({"query": 'sum(x{namespace=~".*"})'}, "query", id="all namespaces"),
        pytest.param({"query": 'sum(x{namespace!="a"})'}, "query", id="all but one"),
        pytest.param({"query": " "}, "query", id="empty"),
        pytest.param({"unit": "tok"}, "unit", id="unit"),
        pytest.param({"per": "node"}, "per", id="per"),
        pytest.param({"role": "router"}, "role", id="role"),
        pytest.param({"minCoverage": 80}, "minCoverage", id="percent"),
        pytest.param({"maxAge": "0s"}, "maxAge", id="age"),
        pytest.param({"empty": "null"}, "empty", id="empty result"),
    ],
)
def test_what_is_wrong_with_a_signal_is_refused(change: Json, path: str) -> None:
    """Queries name their namespace; the rest is within its bounds."""
    signals = {"own": {"query": QUERY, "unit": "tokens/s", **change}}
    assert set(refusals(policy(signals=signals))) == {f"spec.signals[own].{path}"}


def test_a_query_that_hides_an_outage_is_warned_of() -> None:
    """An outage must not look like idleness."""
    signals = {"own": {"query": f"{QUERY} or vector(0)", "unit": "tokens/s"}}
    assert "vector(0)" in warnings(policy(signals=signals))


def test_a_built_in_signal_keeps_its_unit() -> None:
    """Who replaces a signal of the autoscaler gives it in its unit, or in one that can be turned into it."""
    wrong = policy(signals={"kv_usage": {"query": QUERY, "unit": "tokens"}})
    assert set(refusals(wrong)) == {"spec.signals[kv_usage].unit"}
    assert refusals(policy(signals={"kv_usage": {"query": QUERY, "unit": "percent"}})) == {}
    assert set(refusals(policy(engine="custom"))) == {"spec.signals"}


def test_a_time_that_no_histogram_shows_is_warned_of() -> None:
    """40 ms lies between two edges of vLLM's histogram and is one of SGLang's."""
    slo = {"ttft": "1s", "itl": "40ms"}
    assert "0.025s and 0.05s" in warnings(policy(slo=slo), disaggregated_set())
    assert warnings(policy(slo=slo, engine="sglang"), disaggregated_set()) == ""
    assert "neither" in warnings(policy(slo={}), disaggregated_set())


def test_a_budget_holds_the_minimum() -> None:
    """Two prefill of 4 and two decode of 8 GPUs need 24; a maximum that the budget never allows is warned of."""
    among = disaggregated_set()
    assert refusals(policy(budget={"gpus": 23}), among=among) == {"spec.budget.gpus": "Invalid"}
    told_of = warnings(policy(budget={"gpus": 48}), among)
    assert "role decode never gets maxReplicas (8)" in told_of
    assert "role prefill" not in told_of
    assert warnings(policy(budget={"gpus": 72}), among) == ""
    assert "all 2 copies (48)" in warnings(policy(budget={"gpus": 47}), disaggregated_set(replicas=2))
    group = policy(roles=[role("w", "aggregated", podCliqueScalingGroup="workers")], budget={"gpus": 9})
    assert refusals(group, among=among) == {"spec.budget.gpus": "Invalid"}


def test_a_target_belongs_to_one_policy() -> None:
    """A second policy for the same clique is refused; one for another clique of the set is not."""
    other = policy("other", roles=[role("decode", "decode")])
    assert refusals(policy(), other) == {"spec.roles[1].podClique": "Forbidden"}
    assert refusals(policy(roles=[role("prefill", "prefill")]), other) == {}
    assert refusals(policy("other"), other) == {}


def test_a_set_that_is_not_there_is_warned_of() -> None:
    """Manifests come in any order."""
    assert "there is no PodCliqueSet chat" in warnings(policy())


def test_the_template_s_own_scaling_steps_back() -> None:
    """Where a policy scales a clique, the clique's autoScalingConfig is not followed, and the answer says so."""
    among = changed(
        disaggregated_set(),
        setting("spec.template.cliques.1.spec.autoScalingConfig", {"minReplicas": 1, "maxReplicas": 4}),
    )
    assert "cliques[decode].spec.autoScalingConfig is not followed" in warnings(policy(), among)


def window(start: str, end: str, **more: Any) -> Json:  # noqa: ANN401 -- a schedule
    """Return a schedule with a least size."""
    return {"start": start, "end": end, "minReplicas": 4, **more}


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        pytest.param(
            window("0 8 * * *", "0 12 * * *"), window("0 12 * * *", "0 18 * * *"), False, id="one after another"
        ),
        pytest.param(window("0 8 * * *", "0 12 * * *"), window("59 11 * * *", "0 18 * * *"), True, id="by a minute"),
        pytest.param(window("0 22 * * *", "0 6 * * *"), window("0 5 * * *", "0 7 * * *"), True, id="over midnight"),
        pytest.param(
            window("0 8 * * mon-fri", "0 18 * * mon-fri"),
            window("0 8 * * sat,sun", "0 18 * * sat,sun"),
            False,
            id="weekend",
        ),
        pytest.param(
            window("0 8 * * fri", "0 8 * * mon"), window("0 9 * * sun", "0 10 * * sun"), True, id="over the weekend"
        ),
        pytest.param(
            window("0 0 1 * *", "0 0 2 * *"), window("0 12 * * mon", "0 13 * * mon"), True, id="first is a Monday"
        ),
        pytest.param(window("0 0 24 12 *", "0 0 27 12 *"), window("0 0 1 1 *", "0 0 2 1 *"), False, id="holidays"),
        pytest.param(
            window("0 8 * * *", "0 9 * * *"),
            window("0 9 * * *", "0 10 * * *", timeZone="Europe/Berlin"),
            True,
            id="zones",
        ),
        pytest.param(
            window("0 8 * * *", "0 9 * * *", role="prefill"),
            window("0 8 * * *", "0 9 * * *", role="decode"),
            False,
            id="two roles",
        ),
        pytest.param(
            window("0 8 * * *", "0 9 * * *", role="prefill"), window("0 8 * * *", "0 9 * * *"), True, id="one and all"
        ),
    ],
)
def test_schedules_that_hold_together_are_refused(first: Json, second: Json, overlap: bool) -> None:
    """No two schedules hold for a role at the same moment, whichever comes first in the list."""
    for schedules in ([first, second], [second, first]):
        expected = {"spec.schedules[1]": "Invalid"} if overlap else {}
        assert refusals(policy(schedules=schedules)) == expected


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"start": "0 25 * * *"}, ".start", id="hour"),
        pytest.param({"end": "noon"}, ".end", id="words"),
        pytest.param({"timeZone": "Mars/Base"}, ".timeZone", id="zone"),
        pytest.param({"role": "router"}, ".role", id="role"),
        pytest.param({"minReplicas": 9}, ".minReplicas", id="over the role's maximum"),
        pytest.param({"maxReplicas": 3}, ".maxReplicas", id="maximum below minimum"),
        pytest.param({"minReplicas": None}, "", id="no bounds"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_refused(change: Json, path: str) -> None:
    """Times, zone, role and bounds each have their path."""
    wrong = policy(schedules=[{**window("0 8 * * *", "0 9 * * *"), **change}])
    assert f"spec.schedules[0]{path}" in refusals(wrong)


def test_schedules_are_looked_at_within_bounds() -> None:
    """A schedule of every minute is refused; of 64 that overlap as many are named as an answer holds."""
    assert "spec.schedules[0].start" in refusals(policy(schedules=[window("* * 1 * *", "0 12 2 * *")]))
    many = [window("0 * * * *", "30 * * * *") for _ in range(64)]
    assert len(refusals(policy(schedules=many))) == 20


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("spec.podCliqueSet", "spec.podCliqueSet"),
        ("spec.roles", "spec.roles"),
        ("spec.roles.0.name", "spec.roles[0].name"),
        ("spec.roles.0.role", "spec.roles[0].role"),
        ("spec.roles.0.maxReplicas", "spec.roles[0].maxReplicas"),
        ("spec.budget.gpus", "spec.budget.gpus"),
        ("spec.schedules.0.start", "spec.schedules[0].start"),
        ("spec.signals", "spec.signals"),
        ("spec.signals.own", "spec.signals[own]"),
        ("spec.signals.own.query", "spec.signals[own].query"),
        ("spec.signals.own.unit", "spec.signals[own].unit"),
    ],
)
def test_one_unreadable_value_is_one_mistake(place: str, path: str) -> None:
    """A value of a wrong type hides no other mistake, and makes none where it is referred to."""
    legal = policy(
        roles=[role("prefill", "prefill", policies=[{"kind": "target", "signal": "own", "target": 5}])],
        signals={"own": {"query": QUERY, "unit": "tokens/s", "role": "prefill"}},
        schedules=[window("0 8 * * *", "0 9 * * *", role="prefill")],
        budget={"gpus": 100},
        mode="on",
    )
    wrong: object = True
    found = refusals(changed(legal, setting(place, wrong)), among=disaggregated_set())
    assert found == {"spec.mode": "NotSupported", path: "TypeInvalid"}


def test_built_in_signals_are_those_of_the_autoscaler() -> None:
    """Server and autoscaler know the same signals."""
    assert set(SIGNAL_UNITS) == {*SCOPE_SIGNALS, *ROLE_SIGNALS}
