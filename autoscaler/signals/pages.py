"""Where a pod's own metrics are: its address, and what its annotations, its ports and its engine say. Pure.

The annotations are the usual ones: ``prometheus.io/scrape`` ("false" for no page), ``scheme``, ``port`` and ``path``.
Without a port there, a container port named "metrics" is meant, then one named "http", then the engine's usual one.
Whatever a manifest says, only the pod's own address is asked.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from autoscaler.engines.presets import PRESETS

_PREFIX: Final = "prometheus.io/"
_PORT_NAMES: Final = ("metrics", "http")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/%-]{0,200}")
_PORT_MAX: Final = 65_535


def page_of(pod_ip: str, annotations: Mapping[str, str], ports: Mapping[str, int], engine: str) -> str:
    """Return the URL of a pod's page, "" if it has none. *ports* are the containers' named ports."""
    if annotations.get(f"{_PREFIX}scrape", "") == "false":
        return ""
    try:
        address = ipaddress.ip_address(pod_ip)
    except ValueError:
        return ""
    usual = next((dialect for dialect in PRESETS[engine] if dialect.page), None)
    named = next((ports[name] for name in _PORT_NAMES if name in ports), usual.port if usual else 0)
    text = annotations.get(f"{_PREFIX}port", str(named))
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_PORT_MAX)) else 0
    path = annotations.get(f"{_PREFIX}path", usual.page if usual else "/metrics")
    scheme = annotations.get(f"{_PREFIX}scheme", "http")
    if not 0 < port <= _PORT_MAX or scheme not in ("http", "https") or _PATH.fullmatch(path) is None:
        return ""
    host = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 -- the version of the protocol
    return f"{scheme}://{host}:{port}{path}"
