"""Tables, ages and plain objects."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf import json_format

from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_gang_pb2 import PodGang
from grove.v1.scaling_policy_pb2 import ScalingPolicySpec, ScalingSignal
from grove_client.objects import has_unknown_fields, to_object
from grovectl.ages import age, duration_s, human
from grovectl.failures import Failure
from grovectl.table import lines

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_table_pads_and_trims() -> None:
    """Columns are padded to the widest cell, three spaces apart, without spaces at the end."""
    rows = [["a", "1", "x"], ["longer", "22", "<none>"]]
    assert lines(("NAME", "N", "LAST"), rows) == ["NAME     N    LAST", "a        1    x", "longer   22   <none>"]
    assert lines(("NAME", "N", "LAST"), rows[:1], headers=False) == ["a   1   x"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (135, "2m15s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_700, "3h15m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (700_000, "8d"),
        (63_072_000, "2y"),
        (66_000_000, "2y33d"),
        (300_000_000, "9y"),
    ],
)
def test_age_is_kubectls(seconds: int, text: str) -> None:
    """Ages have the units that kubectl gives them."""
    assert human(seconds) == text


def test_age_of_timestamps() -> None:
    """A timestamp in the future is 0 s old; a missing or damaged one has an unknown age."""
    assert age("2026-01-01T23:59:50.500Z", NOW) == "9s"
    assert age("2027-01-01T00:00:00Z", NOW) == "0s"
    assert age("", NOW) == age("yesterday", NOW) == "<unknown>"


def test_durations() -> None:
    """Durations are read as Kubernetes writes them, and bounded."""
    assert duration_s("1m30s") == 90
    assert duration_s("0s") == 0
    assert duration_s("1.5h") == 5400
    for wrong in ("", "30", "1m30", "-1s", "9999h"):
        with pytest.raises(Failure):
            duration_s(wrong)


def test_object_round_trip_keeps_whole_numbers() -> None:
    """A manifest comes back as it went in: whole numbers whole, zeros kept, maps sorted."""
    manifest = {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {"name": "x", "labels": {"a": "1", "b": "2"}},
        "spec": {
            "replicas": 0,
            "template": {
                "cliques": [
                    {
                        "name": "a",
                        "spec": {
                            "roleName": "a",
                            "podSpec": {
                                "containers": [{"args": [1.5, None, True]}],
                                "terminationGracePeriodSeconds": 30,
                            },
                            "replicas": 1,
                        },
                    }
                ],
                "terminationDelay": "1m30s",
            },
        },
    }
    printed = to_object(json_format.ParseDict(manifest, PodCliqueSet()))
    assert printed == manifest
    assert repr(printed) == repr(manifest)


def test_unknown_fields_are_noticed() -> None:
    """Fields that a newer server sends are seen at any depth, not dropped unseen."""
    gang = PodGang()
    gang.spec.podgroups.add(name="a")
    assert not has_unknown_fields(gang)
    inner = gang.spec.podgroups[0]
    inner.MergeFromString(b"\xfa\x3e\x01x")
    assert has_unknown_fields(gang)


def test_what_a_map_holds_is_printed_whole() -> None:
    """A map of messages, such as the signals of a scaling policy, becomes a map of objects."""
    spec = ScalingPolicySpec(signals={"load": ScalingSignal(query="load", unit="count")})
    assert to_object(spec) == {"signals": {"load": {"query": "load", "unit": "count"}}}
