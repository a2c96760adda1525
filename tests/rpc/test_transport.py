"""Who can connect, how, and as whom: loopback, unix sockets, TLS, client certificates."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from grove.v1 import node_pb2, node_pb2_grpc, server_pb2, server_pb2_grpc
from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.api.addresses import ListenError, parse_address
from grove_server.api.server import access_policy
from grove_server.api.tables import Access
from tests.rpc.harness import Clients, Harness, refused, sample_set, serving, settings_in


def openssl(*arguments: str, folder: Path) -> None:
    """Run openssl in *folder*."""
    program = shutil.which("openssl")
    assert program is not None, "the tests of TLS need the openssl program"
    subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.name = name
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        subject = ("-subj", f"/CN=test {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *key, *subject, folder=folder)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate."""
        return (self.folder / f"{self.name}.pem").read_bytes()

    def issue(self, name: str, extension: str) -> tuple[bytes, bytes]:
        """Write NAME.key and NAME.pem and return both."""
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl(
            "req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=self.folder
        )
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={extension}\n")
        authority = ("-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-days", "2")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            *authority,
            "-extfile",
            f"{name}.ext",
            "-out",
            f"{name}.pem",
            folder=self.folder,
        )
        return (self.folder / f"{name}.key").read_bytes(), (self.folder / f"{name}.pem").read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority with a server's certificate for loopback."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server", "DNS:localhost,IP:127.0.0.1")
    return made


def tls_flags(authority: Authority, *, clients: bool = False) -> list[str]:
    """Return the flags of a server with a certificate."""
    folder = authority.folder
    flags = ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")]
    return [*flags, "--tls-client-ca", str(folder / f"{authority.name}.pem")] if clients else flags


@asynccontextmanager
async def connected(
    rpc: Harness, authority: Authority, identity: tuple[bytes, bytes] | None = None
) -> AsyncIterator[Clients]:
    """Connect over TLS, with a client certificate if one is given."""
    key, chain = identity if identity is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate, key, chain)
    async with grpc.aio.secure_channel(str(rpc.api.address), credentials) as channel:
        yield Clients(channel)


async def test_tls_serves_who_trusts_the_certificate(tmp_path: Path, authority: Authority) -> None:
    """With a certificate the server speaks TLS only."""
    async with serving(tmp_path, *tls_flags(authority)) as rpc:
        async with connected(rpc, authority) as clients:
            request = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set())
            assert (await clients.sets.Apply(request)).action == "created"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc.server.GetInfo(server_pb2.ServerServiceGetInfoRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_client_certificates_give_identity_and_role(tmp_path: Path, authority: Authority) -> None:
    """The name in a client's certificate decides what it may do; permission comes before existence."""
    reader = authority.issue("reader", "URI:spiffe://example.com/reader")
    writer = authority.issue("writer", "URI:spiffe://example.com/writer")
    flags = [*tls_flags(authority, clients=True), "--client-role", "spiffe://example.com/writer=write"]
    async with serving(tmp_path, *flags) as rpc:
        async with connected(rpc, authority, reader) as clients:
            await clients.sets.List(pb.PodCliqueSetServiceListRequest())
            refusal = await refused(clients.sets.Delete(pb.PodCliqueSetServiceDeleteRequest(names=["nothing"])))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        async with connected(rpc, authority, writer) as clients:
            await clients.sets.Apply(pb.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set()))
            refusal = await refused(clients.nodes.Cordon(node_pb2.NodeServiceCordonRequest(names=["nothing"])))
            assert refusal.reason == "PERMISSION_DENIED"
            assert refusal.metadata == {"role": "write", "needed": "admin"}


async def test_without_a_client_certificate_there_is_no_connection(tmp_path: Path, authority: Authority) -> None:
    """A client without a certificate, or with one of another authority, does not get in."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger").issue("client", "DNS:client")
    async with serving(tmp_path, *tls_flags(authority, clients=True)) as rpc:
        for identity in (None, stranger):
            async with connected(rpc, authority, identity) as clients:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await clients.server.GetInfo(server_pb2.ServerServiceGetInfoRequest(), timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_certificates_that_do_not_fit_are_named(tmp_path: Path, authority: Authority) -> None:
    """A certificate, key or authority that cannot be used stops the start, and the message names its file."""
    folder = authority.folder
    authority.issue("another", "DNS:another")
    (folder / "junk.pem").write_text("nonsense")
    cases = [
        ("server.pem", "another.key", "ca.pem", f"--tls-key {folder}/another.key: is not the key of .*server.pem"),
        ("junk.pem", "server.key", "ca.pem", f"--tls-cert {folder}/junk.pem: holds no certificate"),
        ("server.key", "server.key", "ca.pem", f"--tls-cert {folder}/server.key: holds no certificate"),
        ("server.pem", "junk.pem", "ca.pem", f"--tls-key {folder}/junk.pem: holds no key"),
        ("server.pem", "server.key", "junk.pem", f"--tls-client-ca {folder}/junk.pem: holds no certificate"),
    ]
    for chain, key, clients, message in cases:
        flags = ["--tls-cert", str(folder / chain), "--tls-key", str(folder / key)]
        with pytest.raises(ListenError, match=message):
            async with serving(tmp_path, *flags, "--tls-client-ca", str(folder / clients)):
                pass


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    """The next handshake uses the files as they are then; broken files leave the old certificate in use."""
    folder = tmp_path / "renewed"
    folder.mkdir()
    for name in ("server.pem", "server.key"):
        shutil.copy(authority.folder / name, folder / name)
    flags = ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")]
    successor = Authority(folder, "successor")
    async with serving(tmp_path, *flags) as rpc:
        async with connected(rpc, authority) as clients:
            await clients.server.GetInfo(server_pb2.ServerServiceGetInfoRequest())
        (folder / "server.key").unlink()
        async with connected(rpc, authority) as clients:
            await clients.server.GetInfo(server_pb2.ServerServiceGetInfoRequest())
        shutil.copy(authority.folder / "ca.key", folder / "server.key")
        async with connected(rpc, authority) as clients:
            await clients.server.GetInfo(server_pb2.ServerServiceGetInfoRequest())
        successor.issue("server", "DNS:localhost,IP:127.0.0.1")
        async with connected(rpc, successor) as clients:
            await clients.server.GetInfo(server_pb2.ServerServiceGetInfoRequest())


async def test_a_unix_socket_is_for_its_owner(tmp_path: Path) -> None:
    """A unix socket serves, is closed to others, and is not taken from a running server."""
    address = f"unix:{tmp_path / 'grove.sock'}"
    async with serving(tmp_path, "--listen", address) as rpc:
        await rpc.apply()
        assert (tmp_path / "grove.sock").stat().st_mode & 0o777 == 0o700
        (tmp_path / "second").mkdir()
        with pytest.raises(ListenError, match="in use"):
            async with serving(tmp_path / "second", "--listen", address):
                pass
        await rpc.apply()


async def test_a_port_in_use_is_refused_in_words(rpc: Harness, tmp_path: Path) -> None:
    """A second server on the same port says so and does not share it."""
    (tmp_path / "second").mkdir()
    with pytest.raises(ListenError, match="is in use by another process"):
        async with serving(tmp_path / "second", "--listen", str(rpc.api.address)):
            pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--listen", "0.0.0.0:0"], "can be reached from other machines", id="plaintext"),
        pytest.param(["--listen", "[::]:0"], "can be reached from other machines", id="plaintext over IPv6"),
        pytest.param(["--tls-cert", "x.pem"], "belong together", id="no key"),
        pytest.param(["--tls-client-ca", "x.pem"], "needs --tls-cert", id="authority alone"),
        pytest.param(["--tls-cert", "none.pem", "--tls-key", "none.key"], "No such file", id="missing file"),
        pytest.param(["--listen", "nonsense"], "must be HOST:PORT", id="no address"),
        pytest.param(["--listen", "127.0.0.1:99999"], "must be HOST:PORT", id="no port"),
        pytest.param(["--listen", f"unix:/{'x' * 200}"], "1 to 107 bytes", id="long path"),
    ],
)
async def test_addresses_that_make_no_sense_are_refused_in_words(
    tmp_path: Path, flags: Sequence[str], message: str
) -> None:
    """A server that would be open to the network, or nowhere at all, does not start."""
    with pytest.raises(ListenError, match=message):
        async with serving(tmp_path, *flags):
            pass


def test_who_may_do_what_where(tmp_path: Path, authority: Authority) -> None:
    """On this machine everybody is admin; elsewhere anonymous callers read, unless the operator says otherwise."""
    local, remote = parse_address("127.0.0.1:1"), parse_address("192.0.2.1:1")
    cases = [
        ([], local, Access.ADMIN),
        (["--insecure"], remote, Access.ADMIN),
        (["--insecure", "--anonymous-role", "none"], remote, Access.NONE),
        (tls_flags(authority), remote, Access.READ),
        ([*tls_flags(authority), "--anonymous-role", "write"], remote, Access.WRITE),
    ]
    for flags, address, expected in cases:
        everybody = access_policy(settings_in(tmp_path, *flags), address).everybody
        assert everybody is not None
        assert everybody.access is expected


async def test_thousands_of_streams_at_once_are_not_shed(rpc: Harness) -> None:
    """A reconnect storm is served: the transport does not drop new streams as it does by default."""
    stub = node_pb2_grpc.NodeServiceStub(rpc.channel)
    streams = [stub.Watch(node_pb2.NodeServiceWatchRequest()) for _ in range(1_500)]
    first = await asyncio.gather(*(stream.read() for stream in streams))
    assert {message.type for message in first if isinstance(message, node_pb2.NodeServiceWatchResponse)} == {"SYNCED"}
    for stream in streams:
        stream.cancel()


async def test_a_live_unix_socket_is_told_from_a_stale_one(tmp_path: Path) -> None:
    """A socket left behind by a server that is gone does not stop the next one; a file of another kind does."""
    path = tmp_path / "grove.sock"
    address = f"unix:{path}"
    async with serving(tmp_path, "--listen", address):
        os.link(path, tmp_path / "stale")
    path.unlink(missing_ok=True)
    (tmp_path / "stale").rename(path)
    async with serving(tmp_path, "--listen", address) as rpc:
        stub = server_pb2_grpc.ServerServiceStub(rpc.channel)
        assert (await stub.GetInfo(server_pb2.ServerServiceGetInfoRequest())).version
    path.unlink(missing_ok=True)
    path.write_text("not a socket")
    with pytest.raises(ListenError, match="no socket"):
        async with serving(tmp_path, "--listen", address):
            pass
