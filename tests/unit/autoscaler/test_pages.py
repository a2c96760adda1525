"""Where a pod's page is."""

import pytest

from autoscaler.signals.pages import page_of


@pytest.mark.parametrize(
    ("pod_ip", "annotations", "ports", "engine", "url"),
    [
        ("10.0.0.7", {}, {}, "vllm", "http://10.0.0.7:8000/metrics"),
        ("10.0.0.7", {}, {"http": 9000}, "sglang", "http://10.0.0.7:9000/metrics"),
        ("10.0.0.7", {}, {"http": 9000, "metrics": 9100}, "vllm", "http://10.0.0.7:9100/metrics"),
        ("10.0.0.7", {}, {}, "trtllm", "http://10.0.0.7:8000/prometheus/metrics"),
        ("fd00::7", {"port": "81", "path": "/m", "scheme": "https"}, {}, "vllm", "https://[fd00::7]:81/m"),
        ("10.0.0.7", {"scrape": "false"}, {}, "vllm", ""),
        ("10.0.0.7", {"port": "0"}, {}, "vllm", ""),
        ("10.0.0.7", {"port": "80@evil"}, {}, "vllm", ""),
        ("10.0.0.7", {"path": "/a b"}, {}, "vllm", ""),
        ("10.0.0.7", {"path": "@evil/"}, {}, "vllm", ""),
        ("10.0.0.7", {}, {}, "custom", ""),
        ("", {}, {}, "vllm", ""),
        ("evil.example", {}, {}, "vllm", ""),
    ],
)
def test_the_page_is_at_the_pods_own_address(
    pod_ip: str, annotations: dict[str, str], ports: dict[str, int], engine: str, url: str
) -> None:
    """Annotations say port and path and never another host; what makes no sense is no page."""
    given = {f"prometheus.io/{name}": value for name, value in annotations.items()}
    assert page_of(pod_ip, given, ports, engine) == url
