"""Grove's own scaling configuration as a policy: bounds, metrics and speed of the HPA that Grove would make."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoscaler.policy import compile_policy
from grove_server.resources.manifest import PodCliqueSetTemplate
from grove_server.resources.schema import parse_pod_clique_set
from grove_server.resources.template_scaling import template_scaling
from tests.manifest_cases import Json, clique, group, pod_clique_set


def template(*metrics: Json, **group_config: Any) -> PodCliqueSetTemplate:  # noqa: ANN401 -- a scaleConfig
    """Return a template with a clique that has metrics, and a group with a configuration if one is given."""
    config = {"minReplicas": 2, "maxReplicas": 5, "metrics": list(metrics)}
    cliques = [clique("pc-a", 3, autoScalingConfig=config), clique("pcb"), clique("pcc")]
    groups = [group("sga", "pcb", "pcc", **({"scaleConfig": group_config} if group_config else {}))]
    manifest = pod_clique_set(cliques=cliques, podCliqueScalingGroups=groups)
    return parse_pod_clique_set(json.dumps(manifest).encode()).spec.template


def test_without_metrics_it_is_eighty_percent_cpu() -> None:
    """Bounds are the manifest's, cliques and groups both; speed is HPA's own; what comes out can be computed with."""
    found = template_scaling("ns", "demo", template(maxReplicas=6))
    assert found.spec is not None
    assert found.left_out == ()
    assert (found.spec.pod_clique_set, found.spec.mode) == ("demo", "apply")
    assert [(role.pod_clique, role.pod_clique_scaling_group) for role in found.spec.roles] == [
        ("pc-a", None),
        (None, "sga"),
    ]
    assert [(role.min_replicas, role.max_replicas) for role in found.spec.roles] == [(2, 5), (1, 6)]
    (by_cpu,) = found.spec.roles[0].policies
    assert (by_cpu.kind, by_cpu.signal, by_cpu.target, by_cpu.target_type) == ("target", "pc_a_0", 80.0, "Pods")
    signal = found.spec.signals["pc_a_0"]
    assert (signal.unit, signal.role, signal.agg) == ("percent", "pc-a", "mean")
    assert 'namespace="ns"' in signal.query
    compiled = compile_policy("ns", "demo", 1, found.spec)
    assert (compiled.roles[0].down.window_s, compiled.roles[0].up.window_s) == (300.0, 0.0)
    assert compiled.roles[0].burst_memory_s == 0.0


@pytest.mark.parametrize(
    ("metric", "target", "target_type", "query"),
    [
        pytest.param(
            {
                "type": "Resource",
                "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
            },
            2.0**30,
            "Pods",
            'sum by (pod) (container_memory_working_set_bytes{namespace="ns",container!=""})',
            id="memory by amount",
        ),
        pytest.param(
            {
                "type": "ContainerResource",
                "containerResource": {"name": "cpu", "container": "main", "target": {"averageValue": "500m"}},
            },
            0.5,
            "Pods",
            'sum by (pod) (rate(container_cpu_usage_seconds_total{namespace="ns",container="main"}[2m]))',
            id="one container",
        ),
        pytest.param(
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "queue", "selector": {"matchLabels": {"model": 'a"b'}}},
                    "target": {"averageValue": "10"},
                },
            },
            10.0,
            "Pods",
            'sum by (pod) (queue{namespace="ns",model="a\\"b"})',
            id="pods",
        ),
        pytest.param(
            {"type": "External", "external": {"metric": {"name": "jobs"}, "target": {"averageValue": 30}}},
            30.0,
            "AverageValue",
            'sum(jobs{namespace="ns"})',
            id="external by average",
        ),
        pytest.param(
            {"type": "External", "external": {"metric": {"name": "jobs"}, "target": {"value": "2k"}}},
            2000.0,
            "Value",
            'sum(jobs{namespace="ns"})',
            id="external by value",
        ),
    ],
)
def test_metrics_become_signals(metric: Json, target: float, target_type: str, query: str) -> None:
    """Each metric that Prometheus can answer becomes a signal with its target."""
    found = template_scaling("ns", "demo", template(metric))
    assert found.spec is not None
    (policy,) = found.spec.roles[0].policies
    assert (policy.target, policy.target_type) == (target, target_type)
    assert found.spec.signals["pc_a_0"].query == query


@pytest.mark.parametrize(
    "metric",
    [
        pytest.param({"type": "Object", "object": {}}, id="object"),
        pytest.param({"type": "Resource", "resource": {"name": "gpu", "target": {"averageUtilization": 5}}}, id="gpu"),
        pytest.param({"type": "Resource", "resource": {"name": "cpu", "target": {}}}, id="no target"),
        pytest.param({"type": "Resource", "resource": {"name": "cpu", "target": {"averageValue": "0"}}}, id="zero"),
        pytest.param({"type": "Pods", "pods": {"metric": {"name": "a b"}, "target": {"averageValue": 1}}}, id="name"),
        pytest.param({"type": "Pods"}, id="empty"),
        pytest.param(
            {
                "type": "External",
                "external": {
                    "metric": {"name": "a", "selector": {"matchExpressions": [{"key": "x"}]}},
                    "target": {"value": 1},
                },
            },
            id="expressions",
        ),
    ],
)
def test_what_cannot_be_followed_is_said(metric: Json) -> None:
    """A metric that is left out is named; the others count, and without others the role stays where it is."""
    alone = template_scaling("ns", "demo", template(metric))
    assert alone.spec is None
    assert alone.left_out[0].startswith("pc-a: metrics[0] ")
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50}}}
    both = template_scaling("ns", "demo", template(metric, cpu))
    assert both.spec is not None
    assert [policy.signal for policy in both.spec.roles[0].policies] == ["pc_a_1"]
    assert len(both.left_out) == 1


def test_a_policy_comes_before_the_template() -> None:
    """What a ScalingPolicy scales is left to it; a template that asks for nothing makes no policy."""
    both = template_scaling("ns", "demo", template(maxReplicas=6), taken={"pc-a"})
    assert both.spec is not None
    assert [role.name for role in both.spec.roles] == ["sga"]
    assert template_scaling("ns", "demo", template(), taken={"pc-a"}).spec is None
