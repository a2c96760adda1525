"""Documentation and code say the same: error reasons, metrics, and a row for every RPC."""

from collections import Counter
from typing import Final

import pytest

from tests.tidy.sources import ROOT
from tests.tidy.tables import (
    SERVED_ELSEWHERE,
    contract,
    first_column,
    metric_names,
    reasons,
    rpc_table,
    rpcs,
    second_column,
)

RPC_TABLES: Final = ("AUTHORIZATION", "DEADLINES")


def test_every_error_reason_is_documented() -> None:
    """docs/errors.md has one row for each reason the server can answer with, with its code, and no other."""
    assert second_column("docs/errors.md") == reasons()
    assert Counter(first_column("docs/errors.md")) == Counter(list(reasons()))


def test_every_metric_is_documented() -> None:
    """docs/metrics.md has one row for each metric of the registry, and no other."""
    assert Counter(first_column("docs/metrics.md")) == Counter(metric_names())


@pytest.mark.parametrize("table", RPC_TABLES)
def test_every_rpc_has_a_row(table: str) -> None:
    """The API's tables name exactly the RPCs that the server serves; there is no default for a forgotten one."""
    rows = rpc_table(table)
    if rows is None:
        assert not (ROOT / "grove_server" / "app.py").exists(), f"a server without grove_server.api.tables.{table}"
        return
    ours = {name for name in rows if name.startswith("/grove.")}
    assert ours == {name for name in rpcs() if name.split("/")[1] not in SERVED_ELSEWHERE}


def test_the_contract_imports_only_the_well_known_protos() -> None:
    """A client needs no other proto files than ours and those of protoc."""
    imports = {(file.name, needed.name) for file in contract() for needed in file.dependencies}
    assert [i for i in sorted(imports) if not i[1].startswith(("google/protobuf/", "grove/v1/"))] == []


def test_the_contract_has_no_64_bit_integers() -> None:
    """Proto JSON writes 64-bit integers as strings, which a manifest does not."""
    found = [
        field.full_name
        for file in contract()
        for message in file.message_types_by_name.values()
        for field in message.fields
        if field.cpp_type in {field.CPPTYPE_INT64, field.CPPTYPE_UINT64}
    ]
    assert found == []
