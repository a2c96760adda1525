"""What happens around a server, end to end: no room on the disk, two servers, damage, busy ports, readers that vanish.

Each refusal names what is wrong in words for the person who started the server, and nothing acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.error import HTTPError

import pytest

import grove_client
from grove_client import GroveClient, GroveError, TokenExpiredError, UnavailableError
from grove_server.app import DATABASE_NAME
from tests.conformance.observation import observe
from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until, until_seen

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
SET: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  template:
    cliques:
      - name: worker
        spec:
          roleName: worker
          replicas: {pods}
          podSpec: {{containers: [{{name: main, image: pause, resources: {{requests: {{cpu: 1m}}}}}}]}}
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server of the test's own."""
    with ServerProcess(tmp_path / "data", cluster=CLUSTER) as running:
        yield running


async def apply(grove: GroveClient, name: str, *, replicas: int = 1, pods: int = 1) -> None:
    """Apply a set and return when it is durable."""
    await grove.apply_manifest(SET.format(name=name, replicas=replicas, pods=pods))


async def available(grove: GroveClient, name: str, copies: int) -> None:
    """Wait until all copies of a set are available."""
    await until_seen(
        lambda: grove.pod_clique_sets.get(name),
        lambda found: found.status.available_replicas == copies,
        lambda found: f"{copies} copies of {name}, seen {found.status.available_replicas}",
    )


def page(server: ServerProcess, name: str) -> tuple[int, str]:
    """Return status and text of a page of the metrics listener."""
    url = f"{server.metrics_url.removesuffix('/metrics')}/{name}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 -- the URL is our own server's
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def metric(server: ServerProcess, name: str) -> float:
    """Return the value of a metric without labels."""
    return next(
        float(line.split()[1]) for line in page(server, "metrics")[1].splitlines() if line.startswith(f"{name} ")
    )


@contextmanager
def full_disk(server: ServerProcess) -> Iterator[None]:
    """Let no file of the server's grow beyond the size its log has now."""
    size = (server.data_dir / f"{DATABASE_NAME}-wal").stat().st_size
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_refuses_changes_and_is_survived(process: ServerProcess) -> None:
    """Changes are refused with a reason, reads go on, probes tell; with room again all is well and nothing is lost."""
    async with grove_client.connect(process.address) as grove:
        await apply(grove, "before")
        await available(grove, "before", 1)
        with full_disk(process):
            refusals = [await _refusal(grove, f"refused-{number}") for number in range(30)]
            refused = [number for number, refusal in enumerate(refusals) if refusal is not None]
            assert refused, "the disk was never full"
            for refusal in refusals:
                assert refusal is None or refusal.reason == "STORE_UNAVAILABLE"
            assert (await grove.pod_clique_sets.get("before")).status.available_replicas == 1
            assert metric(process, "grove_store_degraded") == 1
            status, text = page(process, "readyz")
            assert (status, "store" in text) == (HTTPStatus.SERVICE_UNAVAILABLE, True)
        await until(lambda: page(process, "readyz")[0] == HTTPStatus.OK, "the server is ready again")
        await apply(grove, "after", pods=2)
        await available(grove, "after", 1)
        names = {item.metadata.name async for item in grove.pod_clique_sets.list()}
        acknowledged = {f"refused-{n}" for n in range(30) if n not in refused}
        assert names == {"before", "after"} | acknowledged
    process.kill()
    process.start()
    async with grove_client.connect(process.address) as grove:
        assert {item.metadata.name async for item in grove.pod_clique_sets.list()} == names


async def _refusal(grove: GroveClient, name: str) -> GroveError | None:
    # Create, because the client would repeat Apply by itself.
    wanted = await grove.pod_clique_sets.get("before")
    wanted.metadata.Clear()
    wanted.metadata.name = name
    try:
        await grove.pod_clique_sets.create(wanted)
    except UnavailableError as refusal:
        return refusal
    return None


def start_refused(server: ServerProcess, *, status: int = 1) -> str:
    """Start a server that must refuse, and return what it says; one line, no traceback, the given status."""
    server.launch()
    assert server.wait() == status
    said = [line for line in server.errors.splitlines() if line.startswith("grove-server: ")]
    assert len(said) == 1, server.errors
    assert "Traceback" not in server.errors
    assert not server.output
    return said[0]


async def test_a_second_server_on_the_same_data_is_refused(process: ServerProcess, tmp_path: Path) -> None:
    """It names the process that has the database, and the first goes on serving."""
    (tmp_path / "same").symlink_to(process.data_dir)
    said = start_refused(ServerProcess(tmp_path / "same", cluster=CLUSTER))
    assert f"is in use by process {process.pid}" in said
    async with grove_client.connect(process.address) as grove:
        await apply(grove, "undisturbed")
        await available(grove, "undisturbed", 1)


async def test_a_damaged_database_is_refused_and_left_alone(process: ServerProcess) -> None:
    """The start names the file and what to do; not a byte of it changes."""
    async with grove_client.connect(process.address) as grove:
        await apply(grove, "damaged", pods=5)
        await available(grove, "damaged", 1)
    assert process.stop() == 0
    file = process.data_dir / DATABASE_NAME
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 600] = os.urandom(600)
    file.write_bytes(content)
    said = start_refused(process)
    assert str(file) in said
    assert "is damaged" in said
    assert "Restore a backup" in said
    assert file.read_bytes() == bytes(content)


def test_a_busy_port_is_refused(process: ServerProcess, tmp_path: Path) -> None:
    """The start names the address that is taken."""
    said = start_refused(ServerProcess(tmp_path / "other", cluster=CLUSTER, listen=process.address))
    assert process.address in said
    assert "in use" in said


def test_a_busy_metrics_port_is_refused(process: ServerProcess, tmp_path: Path) -> None:
    """The same for the address of the metrics page."""
    address = process.metrics_url.removeprefix("http://").removesuffix("/metrics")
    said = start_refused(ServerProcess(tmp_path / "other", cluster=CLUSTER, flags=["--metrics-listen", address]))
    assert address in said
    assert "in use" in said


@pytest.mark.parametrize("fault", ["grpc", "metrics", "open", "half-tls"])
async def test_a_refused_start_changes_nothing(process: ServerProcess, tmp_path: Path, fault: str) -> None:
    """A start that is refused for its addresses leaves nodes and pods of its store as they were."""
    folder = tmp_path / "kept"
    with ServerProcess(folder, cluster=CLUSTER) as first:
        async with grove_client.connect(first.address) as grove:
            await apply(grove, "kept", pods=3)
            await available(grove, "kept", 1)
            before = {pod.metadata.uid async for pod in grove.pods.list()}
    smaller = tmp_path / "smaller.yaml"
    smaller.write_text(
        "apiVersion: grove.io/v1alpha1\nkind: NodePool\nmetadata: {name: t}\n"
        "spec: {count: 1, allocatable: {cpu: '8'}}\n",
        encoding="utf-8",
    )
    busy_page = process.metrics_url.removeprefix("http://").removesuffix("/metrics")
    flags: dict[str, tuple[str, list[str]]] = {
        "grpc": (process.address, []),
        "metrics": ("127.0.0.1:0", ["--metrics-listen", busy_page]),
        "open": ("0.0.0.0:0", []),
        "half-tls": ("127.0.0.1:0", ["--tls-cert", str(smaller)]),
    }
    listen, more = flags[fault]
    # Flags that contradict each other are a matter of usage.
    status = 2 if fault in ("open", "half-tls") else 1
    start_refused(ServerProcess(folder, cluster=smaller, listen=listen, flags=more), status=status)
    with ServerProcess(folder, cluster=CLUSTER) as again:
        async with grove_client.connect(again.address) as grove:
            assert {pod.metadata.uid async for pod in grove.pods.list()} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apiVersion: grove.io/v1alpha1\nkind: NodePool\nmetadata: {name: x}\nspec: {counts: 3}", "spec.counts"),
        ("a: [", "document 1"),
    ],
)
def test_a_wrong_cluster_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The start names document and field."""
    file = tmp_path / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    server = ServerProcess(tmp_path / "data", cluster=file)
    server.launch()
    assert server.wait() == 1
    assert words in server.errors
    assert "Traceback" not in server.errors


async def test_a_reader_that_is_killed_leaves_nothing_behind(process: ServerProcess) -> None:
    """The watch of a client that died in mid-stream ends, and the server serves the others."""
    command = [sys.executable, "-m", "grovectl", "--server", process.address, "get", "po", "-w", "-o", "name"]
    reader = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert reader.stdout is not None
    async with grove_client.connect(process.address) as grove:
        await apply(grove, "watched", pods=3)
        assert (await reader.stdout.readline()).startswith(b"pod/watched-0-worker-")
        assert metric(process, "grove_watch_streams") == 1
        reader.kill()
        await reader.communicate()
        await until(lambda: metric(process, "grove_watch_streams") == 0, "the watch ended")
        await apply(grove, "after")
        await available(grove, "after", 1)


async def test_a_token_older_than_the_window_is_refused(tmp_path: Path) -> None:
    """After more changes than the server keeps, and after a restart over deletions, a watch must begin anew."""
    process = ServerProcess(tmp_path / "data")
    with process:
        async with grove_client.connect(process.address) as grove:
            token = (await grove.pods.page()).resume_token
            await apply(grove, "many", replicas=20, pods=200)
            await available(grove, "many", 20)
            with pytest.raises(TokenExpiredError) as caught:
                await anext(grove.pods.watch(resume_token=token))
            assert caught.value.reason == "RESUME_TOKEN_EXPIRED"
            token = (await grove.pods.page()).resume_token
            assert (await anext(grove.pods.watch(resume_token=token))).type == "SYNCED"
            await grove.pod_clique_sets.delete(["many"])
            await until_seen(
                lambda: observe(grove, "default"), lambda seen: not seen.versions, lambda _: "all of it is gone"
            )
        process.kill()
        process.start()
        async with grove_client.connect(process.address) as grove:
            with pytest.raises(TokenExpiredError):
                await anext(grove.pods.watch(resume_token=token))
