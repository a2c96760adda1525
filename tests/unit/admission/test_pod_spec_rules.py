"""Rules of a pod spec: containers, environment, resources, scheduling, and what the server will not overrule."""

from __future__ import annotations

import pytest

from grove_server.resources.violations import Reason
from tests.manifest_cases import Change, admit, changed, clique, pod_clique_set, setting, violations_of

POD = "spec.template.cliques.0.spec.podSpec"
CONTAINER = f"{POD}.containers.0"
SHOWN = "spec.template.cliques[0].spec.podSpec"
EXPRESSION = (
    ".affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]"
)


def with_pod(name: str, value: object) -> Change:
    """Return a change of one field of the first clique's pod spec."""
    return setting(f"{POD}.{name}", value)


def with_container(name: str, value: object) -> Change:
    """Return a change of one field of its container."""
    return setting(f"{CONTAINER}.{name}", value)


def with_affinity(*expressions: object) -> Change:
    """Return a change that requires node labels."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return with_pod("affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})


@pytest.mark.parametrize(
    ("change", "path", "reason", "message"),
    [
        # The pod.
        (with_pod("contaners", []), ".contaners", Reason.FIELD_UNKNOWN, "not a known field"),
        (with_pod("nodeName", "n1"), ".nodeName", Reason.FORBIDDEN, "the server decides where pods run"),
        (
            with_pod("topologySpreadConstraints", [{}]),
            ".topologySpreadConstraints",
            Reason.FORBIDDEN,
            "topologyConstraint",
        ),
        (with_pod("schedulingGates", [{"name": "a"}]), ".schedulingGates", Reason.FORBIDDEN, "gate"),
        (with_pod("hostname", "a"), ".hostname", Reason.FORBIDDEN, "named after its clique"),
        (with_pod("subdomain", "a"), ".subdomain", Reason.FORBIDDEN, "headless service"),
        (with_pod("ephemeralContainers", [{}]), ".ephemeralContainers", Reason.FORBIDDEN, "template"),
        (with_pod("priorityClassName", "x"), ".priorityClassName", Reason.FORBIDDEN, "spec.template.priorityClassName"),
        (with_pod("restartPolicy", "Sometimes"), ".restartPolicy", Reason.NOT_SUPPORTED, "Always, OnFailure, Never"),
        (with_pod("terminationGracePeriodSeconds", -1), ".terminationGracePeriodSeconds", Reason.INVALID, "negative"),
        (
            with_pod("terminationGracePeriodSeconds", "1s"),
            ".terminationGracePeriodSeconds",
            Reason.TYPE_INVALID,
            "whole number",
        ),
        (with_pod("schedulerName", 5), ".schedulerName", Reason.TYPE_INVALID, "a string"),
        (with_pod("overhead", {"cpu": "-1"}), ".overhead[cpu]", Reason.INVALID, "negative"),
        (with_pod("overhead", {"cpu": "x"}), ".overhead[cpu]", Reason.INVALID, "number"),
        (with_pod("resources", {"limits": {"cpu": "1x"}}), ".resources.limits[cpu]", Reason.INVALID, "number"),
        # Containers.
        (with_pod("containers", []), ".containers", Reason.REQUIRED, "at least one container"),
        (with_pod("containers", None), ".containers", Reason.REQUIRED, "at least one container"),
        (with_pod("containers", {}), ".containers", Reason.TYPE_INVALID, "a list"),
        (with_pod("containers", ["a"]), ".containers[0]", Reason.TYPE_INVALID, "a map"),
        (with_pod("initContainers", [{"name": "main"}]), ".containers[0].name", Reason.DUPLICATE, '"main"'),
        (with_container("imagee", "x"), ".containers[0].imagee", Reason.FIELD_UNKNOWN, "not a known field"),
        (with_container("name", "A"), ".containers[0].name", Reason.INVALID, "lower case"),
        (with_container("name", None), ".containers[0].name", Reason.REQUIRED, "is required"),
        (with_container("name", 5), ".containers[0].name", Reason.TYPE_INVALID, "a string"),
        (with_container("image", 5), ".containers[0].image", Reason.TYPE_INVALID, "a string"),
        (with_container("command", "run"), ".containers[0].command", Reason.TYPE_INVALID, "a list of strings"),
        (with_container("args", ["a", 5]), ".containers[0].args[1]", Reason.TYPE_INVALID, "a string, got 5"),
        (
            with_container("ports", [{"containerPort": 70000}]),
            ".containers[0].ports[0].containerPort",
            Reason.INVALID,
            "65535",
        ),
        (
            with_container("ports", [{"containerPort": "80"}]),
            ".containers[0].ports[0].containerPort",
            Reason.TYPE_INVALID,
            "whole number",
        ),
        (with_container("ports", [{}]), ".containers[0].ports[0].containerPort", Reason.REQUIRED, "is required"),
        (
            with_container("ports", [{"containerPort": 80, "protocol": "tcp"}]),
            ".containers[0].ports[0].protocol",
            Reason.NOT_SUPPORTED,
            "TCP",
        ),
        # Environment.
        (
            with_container("env", [{"name": "1A"}]),
            ".containers[0].env[0].name",
            Reason.INVALID,
            "not start with a digit",
        ),
        (with_container("env", [{"name": "A=B"}]), ".containers[0].env[0].name", Reason.INVALID, "letters"),
        (with_container("env", [{"name": ".."}]), ".containers[0].env[0].name", Reason.INVALID, "letters"),
        (with_container("env", [{"value": "x"}]), ".containers[0].env[0].name", Reason.REQUIRED, "is required"),
        (with_container("env", [{"name": 5}]), ".containers[0].env[0].name", Reason.TYPE_INVALID, "a string"),
        (with_container("env", [{"name": "A"}, {"name": "A"}]), ".containers[0].env[1].name", Reason.DUPLICATE, '"A"'),
        (
            with_container("env", [{"name": "A", "value": 1}]),
            ".containers[0].env[0].value",
            Reason.TYPE_INVALID,
            "a string, got 1",
        ),
        (
            with_container("env", [{"name": "A", "val": "1"}]),
            ".containers[0].env[0].val",
            Reason.FIELD_UNKNOWN,
            "not a known",
        ),
        (
            with_container("env", [{"name": "A", "value": "1", "valueFrom": {}}]),
            ".containers[0].env[0].valueFrom",
            Reason.INVALID,
            "together",
        ),
        (with_container("env", {"A": "1"}), ".containers[0].env", Reason.TYPE_INVALID, "a list"),
        (with_container("env", ["A"]), ".containers[0].env[0]", Reason.TYPE_INVALID, "a map"),
        # Resources.
        (with_container("resources", []), ".containers[0].resources", Reason.TYPE_INVALID, "a map"),
        (
            with_container("resources", {"limit": {}}),
            ".containers[0].resources.limit",
            Reason.FIELD_UNKNOWN,
            "not a known",
        ),
        (
            with_container("resources", {"requests": {"cpu": "-1"}}),
            ".containers[0].resources.requests[cpu]",
            Reason.INVALID,
            'not be negative, got "-1"',
        ),
        (
            with_container("resources", {"requests": {"cpu": "a lot"}}),
            ".containers[0].resources.requests[cpu]",
            Reason.INVALID,
            'got "a lot"',
        ),
        (
            with_container("resources", {"requests": {"cpu": "9" * 40}}),
            ".containers[0].resources.requests[cpu]",
            Reason.INVALID,
            "larger than",
        ),
        (
            with_container("resources", {"requests": {"cpu": True}}),
            ".containers[0].resources.requests[cpu]",
            Reason.TYPE_INVALID,
            "a quantity",
        ),
        (
            with_container("resources", {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}),
            ".containers[0].resources.requests[cpu]",
            Reason.INVALID,
            "at most the limit (1500m), got 2",
        ),
        (
            with_container("resources", {"limits": {"nvidia.com/gpu": "500m"}}),
            ".containers[0].resources.limits[nvidia.com/gpu]",
            Reason.INVALID,
            "whole number",
        ),
        (
            with_container("resources", {"requests": {"nvidia.com/gpu": 1}}),
            ".containers[0].resources.limits[nvidia.com/gpu]",
            Reason.REQUIRED,
            "overcommitted",
        ),
        (
            with_container("resources", {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}),
            ".containers[0].resources.requests[nvidia.com/gpu]",
            Reason.INVALID,
            "equal the limit (2), got 1",
        ),
        (
            with_container("resources", {"limits": {"gpu": 1}}),
            ".containers[0].resources.limits[gpu]",
            Reason.INVALID,
            "is no resource",
        ),
        (
            with_container("resources", {"limits": {"a b": 1}}),
            ".containers[0].resources.limits[a b]",
            Reason.INVALID,
            "is no resource name",
        ),
        (
            with_container("resources", {"limits": {"kubernetes.io/x": 1}}),
            ".containers[0].resources.limits[kubernetes.io/x]",
            Reason.INVALID,
            "is no resource",
        ),
        # Scheduling.
        (with_pod("nodeSelector", {"a b": "c"}), ".nodeSelector[a b]", Reason.INVALID, "label key"),
        (with_pod("nodeSelector", {"a": True}), ".nodeSelector[a]", Reason.TYPE_INVALID, "a string, got true"),
        (with_pod("nodeSelector", {"a": "b c"}), ".nodeSelector[a]", Reason.INVALID, "label value"),
        (with_pod("nodeSelector", []), ".nodeSelector", Reason.TYPE_INVALID, "a map"),
        (
            with_pod("tolerations", [{"key": "a", "operator": "In"}]),
            ".tolerations[0].operator",
            Reason.NOT_SUPPORTED,
            "Equal, Exists",
        ),
        (
            with_pod("tolerations", [{"key": "a", "operator": "Exists", "value": "b"}]),
            ".tolerations[0].value",
            Reason.INVALID,
            "empty",
        ),
        (
            with_pod("tolerations", [{"value": "b"}]),
            ".tolerations[0].operator",
            Reason.INVALID,
            "Exists when key is empty",
        ),
        (
            with_pod("tolerations", [{"key": "a", "effect": "Never"}]),
            ".tolerations[0].effect",
            Reason.NOT_SUPPORTED,
            "NoSchedule",
        ),
        (
            with_pod("tolerations", [{"key": "a", "tolerationSeconds": 5}]),
            ".tolerations[0].effect",
            Reason.INVALID,
            "NoExecute",
        ),
        (with_pod("tolerations", [{"key": 5}]), ".tolerations[0].key", Reason.TYPE_INVALID, "a string"),
        (with_pod("tolerations", [{"key": "a", "x": 5}]), ".tolerations[0].x", Reason.FIELD_UNKNOWN, "not a known"),
        (
            with_pod("affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
            ".affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            Reason.REQUIRED,
            "at least one",
        ),
        (with_pod("affinity", {"nodes": {}}), ".affinity.nodes", Reason.FIELD_UNKNOWN, "not a known"),
        (
            with_affinity({"key": "a", "operator": "Is"}),
            f"{EXPRESSION}.operator",
            Reason.NOT_SUPPORTED,
            "DoesNotExist",
        ),
        (
            with_affinity({"key": "a", "operator": "In"}),
            f"{EXPRESSION}.values",
            Reason.REQUIRED,
            "at least one value",
        ),
        (
            with_affinity({"key": "a", "operator": "Exists", "values": ["b"]}),
            f"{EXPRESSION}.values",
            Reason.FORBIDDEN,
            "Exists",
        ),
        (
            with_affinity({"key": "a", "operator": "Gt", "values": ["x"]}),
            f"{EXPRESSION}.values",
            Reason.INVALID,
            "exactly one whole number",
        ),
        (
            with_affinity({"key": "a", "operator": "In", "values": [1]}),
            f"{EXPRESSION}.values",
            Reason.TYPE_INVALID,
            "a list of strings",
        ),
        (
            with_affinity({"key": "a b", "operator": "Exists"}),
            f"{EXPRESSION}.key",
            Reason.INVALID,
            "label key",
        ),
    ],
)
def test_refuses(change: Change, path: str, reason: Reason, message: str) -> None:
    """A pod spec that breaks one rule is refused for exactly that."""
    (violation,) = violations_of(changed(pod_clique_set(), change))
    assert (violation.path, violation.reason) == (f"{SHOWN}{path}", reason)
    assert message in violation.message


@pytest.mark.parametrize(
    "change",
    [
        with_pod("nodeName", ""),
        with_pod("volumes", [{"name": "v", "emptyDir": {}}]),
        with_pod("tolerations", [{"operator": "Exists"}, {"key": "a", "effect": "NoExecute", "tolerationSeconds": 5}]),
        with_pod("nodeSelector", {"zone": "a"}),
        with_pod("overhead", {"cpu": "10m"}),
        with_affinity(
            {"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "Lt", "values": ["-3"]}
        ),
        with_container(
            "resources", {"limits": {"nvidia.com/gpu": "8", "cpu": 2, "memory": "1e9"}, "requests": {"cpu": 0.5}}
        ),
        with_container("resources", {"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "4Mi"}}),
        with_container("resources", {"claims": [{"name": "gpu"}]}),
        with_container(
            "env", [{"name": "A"}, {"name": "a.b-c_d", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {}}}]
        ),
        with_container("ports", [{"containerPort": 80, "protocol": "UDP"}]),
    ],
)
def test_accepts(change: Change) -> None:
    """What Kubernetes takes and the server need not overrule is admitted without a word."""
    admitted = admit(changed(pod_clique_set(), change))
    assert admitted.warnings == ()


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (with_pod("restartPolicy", "Never"), "restartPolicy is Never"),
        (with_container("env", [{"name": "GROVE_PCS_NAME", "value": "x"}]), "GROVE_PCS_NAME is set by the server"),
    ],
)
def test_keeps_with_a_warning(change: Change, warning: str) -> None:
    """What is kept but does not do what it does elsewhere is said."""
    manifest = changed(pod_clique_set(), change)
    admitted = admit(manifest)
    assert warning in admitted.warnings[0]
    given = manifest["spec"]["template"]["cliques"][0]["spec"]["podSpec"]
    assert given.items() <= admitted.resource.spec.template.cliques[0].spec.pod_spec.items()


def test_one_scheduler_for_all_cliques() -> None:
    """Cliques of one set are placed together, so they cannot name different schedulers; another one's name is kept."""
    kai = clique("a")
    kai["spec"]["podSpec"]["schedulerName"] = "kai-scheduler"
    (violation,) = violations_of(pod_clique_set(cliques=[kai, clique("b")], podCliqueScalingGroups=[]))
    assert violation.path == "spec.template.cliques[1].spec.podSpec.schedulerName"
    (warning,) = admit(pod_clique_set(cliques=[kai], podCliqueScalingGroups=[])).warnings
    assert "kai-scheduler" in warning
    ours = clique("a")
    ours["spec"]["podSpec"]["schedulerName"] = "grove-scheduler"
    assert admit(pod_clique_set(cliques=[ours, clique("b")], podCliqueScalingGroups=[])).warnings == ()


def test_the_sets_priority_class_may_be_repeated() -> None:
    """A pod spec may name the priority class of its set, which is what its pods get."""
    manifest = changed(pod_clique_set(priorityClassName="high"), with_pod("priorityClassName", "high"))
    manifest["spec"]["template"].update({"cliques": manifest["spec"]["template"]["cliques"]})
    assert violations_of(manifest) == ()
