"""`grove-autoscaler replay`: files in, a comparison out; wrong input is told with exit code 2."""

from pathlib import Path
from xml.etree import ElementTree as ET

import orjson
import pytest

from autoscaler.replay.__main__ import main

POLICY = """
apiVersion: grove.io/v1alpha1
kind: ScalingPolicy
metadata: {name: chat}
spec:
  podCliqueSet: chat
  slo: {ttft: 2s, itl: 60ms, ttftPer1kTokens: 150ms}
  roles:
    - &role
      name: prefill
      role: prefill
      podClique: prefill
      maxReplicas: 20
      gpusPerReplica: 4
      profile:
        prefillTokensPerSecond: 9346
        decodeStep: {base: 28.6ms, perSequence: 281us, perKvToken: 123ns}
        kvTokens: 450000
    - <<: *role
      name: decode
      role: decode
      podClique: decode
"""
LINES = ("ours", "hpa", "keda", "kpa", "static_best", "oracle")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Write a policy and a quarter of an hour of requests."""
    policy, trace = tmp_path / "policy.yaml", tmp_path / "trace.jsonl"
    policy.write_text(POLICY)
    rows = ({"timestamp": 250 * number, "input_length": 1_500, "output_length": 80} for number in range(3_600))
    trace.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return policy, trace


def test_a_comparison(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All lines are compared, as text, JSON and SVG."""
    policy, trace = files
    out, plot = tmp_path / "out.json", tmp_path / "out.svg"
    arguments = ["--policy", str(policy), "--trace", str(trace), "--baselines", "--seeds", "2"]
    assert main([*arguments, "--json", str(out), "--plot", str(plot)]) == 0
    document = orjson.loads(out.read_bytes())
    assert tuple(document["policies"]) == LINES
    for means in document["policies"].values():
        assert {
            "slo_attainment",
            "ttft_attainment",
            "tpot_attainment",
            "gpu_hours",
            "scale_actions",
            "reversals",
            "aborted_requests",
        } <= set(means)
        assert 0 <= means["slo_attainment"] <= 1
        assert means["slo_attainment_p5"] <= means["slo_attainment"] <= means["slo_attainment_p95"]
    assert document["trace"]["requests"] == 3_600
    marks = ET.parse(plot).getroot().findall(".//{http://www.w3.org/2000/svg}circle/{*}title")  # noqa: S314 -- our own file
    assert len(marks) == 2 * len(LINES)
    printed = capsys.readouterr().out
    assert all(line in printed for line in LINES)


def test_without_baselines_ours_is_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Only what was asked for is run."""
    policy, trace = files
    out = tmp_path / "out.json"
    assert main(["--policy", str(policy), "--trace", str(trace), "--json", str(out)]) == 0
    assert list(orjson.loads(out.read_bytes())["policies"]) == ["ours"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("kind: ScalingPolicy", "kind: Other", "0 ScalingPolicies"),
        ("maxReplicas: 20", "maxReplicas: many", "maxReplicas"),
        ("ttft: 2s", "ttft: soon", "spec.slo.ttft"),
        ("role: decode", "role: encode", "one prefill and one decode"),
        ("  slo:", " slo:", "policy.yaml"),
    ],
)
def test_wrong_policies_are_refused(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    """The error names the file and what is wrong."""
    policy, trace = files
    policy.write_text(POLICY.replace(old, new))
    assert main(["--policy", str(policy), "--trace", str(trace)]) == 2
    assert told in capsys.readouterr().err


def test_wrong_traces_are_refused(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """So are a file that is not there and one without requests."""
    policy, trace = files
    assert main(["--policy", str(policy), "--trace", str(trace.with_name("none.csv"))]) == 2
    trace.write_text("")
    assert main(["--policy", str(policy), "--trace", str(trace)]) == 2
    assert "no requests" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--seeds", "0"], ["--scale", "-1"], ["--profile-error", "1"], ["--cold-start", "nan"]]
)
def test_wrong_arguments_are_refused(files: tuple[Path, Path], arguments: list[str]) -> None:
    """Numbers out of range are an error of usage."""
    with pytest.raises(SystemExit) as ended:
        main(["--policy", str(files[0]), "--trace", str(files[1]), *arguments])
    assert ended.value.code == 2
