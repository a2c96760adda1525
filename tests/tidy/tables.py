"""Tables in the documentation, and the code they must agree with.

What belongs to a room that does not exist yet is None here: its table must then be empty or absent, and the check
becomes strict by itself on the day the room appears.
"""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from prometheus_client import CollectorRegistry

from autoscaler.service import metrics as autoscaler
from tests.tidy.sources import ROOT

ROW: Final = re.compile(r"^\| `([A-Za-z_][\w]*)` ", re.MULTILINE)
# What a program other than the server serves; the server has no rows for it.
SERVED_ELSEWHERE: Final = frozenset({"grove.v1.AutoscalerService"})
PAIR: Final = re.compile(r"^\| `([A-Za-z_]\w*)` \| ([^|]*?) \|", re.MULTILINE)


def first_column(document: str) -> list[str]:
    """Return the names in code marks that start the table rows of a document, in order."""
    return ROW.findall((ROOT / document).read_text(encoding="utf-8"))


def second_column(document: str) -> dict[str, str]:
    """Return what stands beside each name of the first column."""
    return dict(PAIR.findall((ROOT / document).read_text(encoding="utf-8")))


def declared(module: str, attribute: str) -> object | None:
    """Return an attribute of one of our modules, or None while the module does not exist."""
    if importlib.util.find_spec(module) is None:
        return None
    value: object = getattr(importlib.import_module(module), attribute)
    return value


def reasons() -> dict[str, str]:
    """Return the gRPC code of each error reason the server can answer with."""
    codes = declared("grove_server.api.reasons", "CODES")
    known = declared("grove_server.api.reasons", "Reason")
    if codes is None or known is None:
        return {}
    assert isinstance(codes, Mapping)
    assert isinstance(known, type)
    assert issubclass(known, Enum)
    return {str(reason.value): codes[reason].name for reason in known}


def metric_names() -> list[str]:
    """Return the names of our metrics as their rows have them; those of the client library are not ours to list."""
    registry = declared("grove_server.telemetry.metrics", "REGISTRY")
    if registry is None:
        return []
    assert isinstance(registry, CollectorRegistry)
    names = [metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()]
    return [name for name in names if name.startswith(("grove_", "grpc_server_"))]


def autoscaler_metric_names() -> set[str]:
    """Return the names of the autoscaler's metrics."""
    families = [*autoscaler.REGISTRY.collect(), *autoscaler.RoleSeries(list).collect()]
    return {metric.name + ("_total" if metric.type == "counter" else "") for metric in families}


def rpc_table(name: str) -> Mapping[str, object] | None:
    """Return one of the API's tables, keyed by full method name, or None while there is no API."""
    table = declared("grove_server.api.tables", name)
    assert table is None or isinstance(table, Mapping)
    return table


def contract() -> Iterator[FileDescriptor]:
    """Yield the descriptor of each proto file of the contract."""
    for path in sorted((ROOT / "clients" / "python" / "grove" / "v1").glob("*_pb2.py")):
        descriptor = importlib.import_module(f"grove.v1.{path.stem}").DESCRIPTOR
        assert isinstance(descriptor, FileDescriptor)
        yield descriptor


def rpcs() -> list[str]:
    """Return the full name of every RPC of the contract: ``/package.Service/Method``."""
    return [
        f"/{service.full_name}/{method.name}"
        for file in contract()
        for service in file.services_by_name.values()
        for method in service.methods
    ]
