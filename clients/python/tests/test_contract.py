"""The client's tables cover the contract, and the generated code is what the protos give."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import grove_client
from grove_client.calls import METHODS
from grove_client.channel import is_local
from grove_client.deadlines import deadline_s
from grovectl.kinds import KINDS

REPOSITORY = Path(__file__).resolve().parents[3]


def test_every_unary_method_has_a_deadline() -> None:
    """No unary call can wait for ever."""
    assert len(METHODS) > 40
    for name, method in METHODS.items():
        if not method.is_stream:
            assert deadline_s(name) > 0


@pytest.mark.parametrize("info", KINDS, ids=lambda info: info.kind)
def test_services_have_one_shape(info: object) -> None:
    """Requests, pages and watch steps have the same fields for every kind, which the generic client relies on."""
    kind = getattr(info, "kind", "")
    page = METHODS[f"/grove.v1.{kind}Service/List"].response.DESCRIPTOR.fields_by_name
    assert [page[name].number for name in ("items", "resource_version", "next_page_token", "resume_token")] == [
        1,
        2,
        3,
        4,
    ]
    step = METHODS[f"/grove.v1.{kind}Service/Watch"].response.DESCRIPTOR.fields_by_name
    assert [step[name].number for name in ("type", "object", "resume_token")] == [1, 2, 3]
    verbs = {name.rpartition("/")[2].lower() for name in METHODS if f".{kind}Service/" in name}
    assert set(getattr(info, "verbs", ())) <= verbs


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:1", True),
        ("[::1]:50051", True),
        ("unix:/tmp/x", True),
        ("dns:///localhost:5", True),
        ("10.0.0.1:50051", False),
        ("localhost.example.org:1", False),
        ("grove:50051", False),
        ("0.0.0.0:1", False),
    ],
)
def test_plaintext_stays_here(target: str, local: bool) -> None:  # noqa: FBT001 -- a column of the table
    """Only loopback and unix sockets count as this machine."""
    assert is_local(target) is local


async def test_other_machines_get_tls() -> None:
    """A channel to another machine is not plaintext unless asked for."""
    async with grove_client.connect("192.0.2.1:1"), grove_client.connect("192.0.2.1:1", insecure=True):
        pass


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The generator as a module."""
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "scripts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_fresh_and_staleness_is_seen(generator: ModuleType, tmp_path: Path) -> None:
    """What is committed is what the protos give; a changed, missing or surplus file is named."""
    assert generator.stale_files(generator.OUTPUT_ROOT) == []
    generator.generate(tmp_path)
    folder = tmp_path / "grove" / "v1"
    with (folder / "pod_pb2.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    (folder / "node_pb2.pyi").unlink()
    (folder / "old_pb2.py").touch()
    assert generator.stale_files(tmp_path) == ["grove/v1/node_pb2.pyi", "grove/v1/old_pb2.py", "grove/v1/pod_pb2.py"]


def test_program_starts_without_grpc() -> None:
    """`version --client` loads neither gRPC nor protobuf nor asyncio: starting is fast."""
    code = (
        "import sys; from grovectl.__main__ import main; main(['version', '--client']);"
        "print(sorted({'grpc', 'google.protobuf', 'asyncio', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"
