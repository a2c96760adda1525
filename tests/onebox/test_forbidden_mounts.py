"""A machine that allows no mount namespaces: pods run, and say what they do without."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

import grove_client
from tests.onebox.box import FLAGS, Box, clique, condition, get, health_probe, worker
from tests.server import ServerProcess

# Refuses unshare(2) to what it executes and to all that comes of it, by a filter of system calls, as containers' are.
# The filter: load the number of the call; unless it is unshare's, allow; else fail with EPERM.
NO_NAMESPACES: Final = """
import ctypes, os, platform, struct, sys
UNSHARE = {"x86_64": 272, "aarch64": 97}[platform.machine()]
LOAD, JUMP_IF_EQUAL, RETURN, ALLOW, FAIL = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050001
steps = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, UNSHARE), (RETURN, 0, 0, FAIL), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_names_that_cannot_be_given_are_told(tmp_path: Path, journal_path: Path) -> None:
    """Without a hosts file of its own a pod runs, with NamesResolve False; with a volume to be mounted it does not."""
    flags = (*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0")
    through = (sys.executable, "-c", NO_NAMESPACES)
    server = ServerProcess(tmp_path / "data", flags=flags, through=through)
    await asyncio.to_thread(server.start)
    try:
        async with grove_client.connect(server.address) as grove:
            box = Box(server=server, grove=grove, namespace="forbidden")
            probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
            plain = worker(journal_path, container={"readinessProbe": health_probe(), "livenessProbe": probe})
            await box.apply("plain", clique("pod", plain))
            (pod,) = await box.ready(1)
            status, reason, message = condition(pod, "NamesResolve")
            assert (status, reason) == ("False", "HostsFileRefused")
            assert "no mount namespace" in message
            assert json.loads((await get(pod, "/environment"))[1])["POD_IP"] == pod.status.pod_ip
            mount = [{"name": "scratch", "mountPath": str(tmp_path)}]
            bound = worker(journal_path, container={"volumeMounts": mount})
            await box.apply("bound", clique("pod", bound, volumes=[{"name": "scratch", "emptyDir": {}}]))
            await box.see(
                lambda pods: any("BindFailed" in str(pod.status) for pod in pods), "the pod says why it does not start"
            )
    finally:
        await asyncio.to_thread(server.stop)
