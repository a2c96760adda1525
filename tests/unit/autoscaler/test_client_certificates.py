"""TLS with certificates of both sides, which are replaced while the client runs."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from autoscaler.signals.access import AccessFiles
from autoscaler.signals.failures import Failure, SourceError
from autoscaler.signals.transport import Transport
from tests.scripted_peer import ScriptedPeer, answer


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate that signs itself, for the loopback address; return it and its key."""
    program = shutil.which("openssl")
    assert program is not None, "the tests of TLS need the openssl program"
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    return pem, key


async def test_both_sides_show_their_certificates_and_new_ones_are_taken(tmp_path: Path) -> None:
    """A server that wants a certificate gets it; one that is not trusted is not asked; a new file is read."""
    server, client, stranger = (certificate(tmp_path, name) for name in ("server", "client", "stranger"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client[0])
    tls.load_cert_chain(*server)
    tls.verify_mode = ssl.CERT_REQUIRED
    shutil.copy(server[0], tmp_path / "ca.pem")
    files = AccessFiles(ca_file=tmp_path / "ca.pem", cert_file=client[0], key_file=client[1])
    transport = Transport(files=files)
    async with ScriptedPeer(answer(b"ok"), tls=tls) as peer:
        for _ in range(2):
            assert (await transport.get(peer.url, timeout_s=5)).body == b"ok"
        assert peer.connection_count == 1
        shutil.copy(stranger[0], tmp_path / "new.pem")
        (tmp_path / "new.pem").rename(tmp_path / "ca.pem")
        with pytest.raises(SourceError) as caught:
            await transport.get(peer.url, timeout_s=5)
        assert caught.value.failure is Failure.CREDENTIALS
        shutil.copy(server[0], tmp_path / "ca.pem")
        assert (await transport.get(peer.url, timeout_s=5)).body == b"ok"
    await transport.close()
