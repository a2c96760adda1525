"""Where pods are found on this machine: an address for each, and hosts files in which their names resolve.

Addresses: the whole of 127.0.0.0/8 belongs to this machine, so each pod gets an address of its own there, and every pod
can use the same port. A server takes its pods' addresses from one block of 127.64.0.0/10, chosen by its data directory
and passed over if somebody listens in it, so that two servers on one machine keep out of each other's way. An address
stands in the pod's row, and is kept over restarts of containers and server.

Names: a pod answers to what Kubernetes' DNS would call it (``hostname.subdomain.namespace.svc.cluster.local`` and the
shorter forms that a search list allows), and a copy's headless Service to the addresses of all its pods, ready or not,
as Grove publishes them. There is one file for each namespace, since short names mean another pod in another namespace.
It is mounted over /etc/hosts, which fixes its inode: so it is written in place, in one write, padded to its old length
before it is cut, so that whoever reads meanwhile meets old lines or new ones and no garbage.

Not here: mounting (the launcher), who may use names (nobody is kept out).
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from grove_server.resources.meta import Key
from grove_server.resources.names import hostname
from grove_server.resources.workload import Pod

NETWORK: Final = ipaddress.IPv4Network("127.64.0.0/10")
BLOCK_PREFIX: Final = 20
PODS_MAX: Final = 4_000
CLUSTER_DOMAIN: Final = "cluster.local"

_LISTENING: Final = "0A"
_BLOCK_SIZE: Final = 1 << (32 - BLOCK_PREFIX)
_BLOCKS: Final = NETWORK.num_addresses // _BLOCK_SIZE
# Lines of the machine's own file that are taken over; a file that is larger than this is no hosts file.
_OWN_HOSTS_BYTES_MAX: Final = 256 << 10


class AddressesSpentError(RuntimeError):
    """The block has no address left."""


def choose_block(data_dir: Path, used: Iterable[str] = ()) -> ipaddress.IPv4Network:
    """Return the block for the pods of the server with this data directory; *used* are addresses listened on."""
    first = int.from_bytes(hashlib.blake2b(os.fsencode(data_dir.resolve()), digest_size=8).digest(), "big") % _BLOCKS
    taken = {number for number in map(_block_number, used) if number is not None}
    number = next((n % _BLOCKS for n in range(first, first + _BLOCKS) if n % _BLOCKS not in taken), first)
    return ipaddress.IPv4Network((int(NETWORK.network_address) + number * _BLOCK_SIZE, BLOCK_PREFIX))


def listening_addresses(proc: Path = Path("/proc")) -> set[str]:
    """Return the IPv4 addresses that somebody on this machine listens on (TCP); empty where that cannot be seen."""
    try:
        lines = (proc / "net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return set()
    found = set()
    for line in lines:
        # The number of the entry, the own and the other address, the state.
        _, own, _, state = line.split()[:4]
        if state == _LISTENING:
            # The kernel prints the address as a number in the machine's byte order.
            raw = int(own.partition(":")[0], 16).to_bytes(4, sys.byteorder)
            found.add(str(ipaddress.IPv4Address(raw)))
    return found


class LoopbackAddresses:
    """Who holds which address of a block.

    The next free one is given, so that an address rests as long as can be before somebody else has it: routers and
    connections of its last pod may still be on their way.
    """

    def __init__(self, block: ipaddress.IPv4Network) -> None:
        self.block = block
        self._by_pod: dict[str, str] = {}
        self._taken: set[str] = set()
        self._next = 0

    def adopt(self, pod_uid: str, address: str) -> None:
        """Note that the pod has *address* already."""
        self.release(pod_uid)
        self._by_pod[pod_uid] = address
        self._taken.add(address)
        if (parsed := ipaddress.IPv4Address(address)) in self.block:
            self._next = max(self._next, int(parsed) - int(self.block.network_address) + 1)

    def assign(self, pod_uid: str) -> str:
        """Return the address of the pod, giving it one if it has none. Raises AddressesSpentError."""
        address = self._by_pod.get(pod_uid)
        if address is not None:
            return address
        first = int(self.block.network_address)
        for step in range(self.block.num_addresses):
            number = first + (self._next + step) % self.block.num_addresses
            candidate = str(ipaddress.IPv4Address(number))
            # Nothing ends in .0 or .255: some programs take these for networks and broadcasts.
            if number & 255 not in {0, 255} and candidate not in self._taken:
                self.adopt(pod_uid, candidate)
                self._next = number - first + 1
                return candidate
        raise AddressesSpentError(f"all addresses of {self.block} are in use")

    def release(self, pod_uid: str) -> None:
        """Take the address of the pod back, if it has one."""
        address = self._by_pod.pop(pod_uid, None)
        if address is not None:
            self._taken.discard(address)


class HostsFiles:
    """One hosts file per namespace, in *folder*; they hold the pods that were added and not removed."""

    def __init__(self, folder: Path, own_hosts: Path = Path("/etc/hosts")) -> None:
        self._folder = folder
        self._own = _own_lines(own_hosts)
        self._lines: dict[str, dict[Key, str]] = {}
        self._stale: set[str] = set()

    def path(self, namespace: str) -> Path:
        """Return where the file of a namespace is; ``write`` makes it."""
        return self._folder / namespace

    def add(self, key: Key, pod: Pod, address: str) -> None:
        """Let the names of *pod* resolve to *address*."""
        lines = self._lines.setdefault(key.namespace, {})
        text = hosts_line(pod, address)
        if lines.get(key) != text:
            lines[key] = text
            self._stale.add(key.namespace)

    def remove(self, key: Key) -> None:
        """Let the names of a pod resolve no longer; harmless if they did not."""
        if self._lines.get(key.namespace, {}).pop(key, None) is not None:
            self._stale.add(key.namespace)

    @property
    def is_stale(self) -> bool:
        """Whether something changed since ``write``."""
        return bool(self._stale)

    def write(self) -> None:
        """Bring the files up to date. Raises OSError; what could not be written is tried again at the next call."""
        for namespace in sorted(self._stale):
            lines = self._lines.get(namespace, {})
            write_in_place(self.path(namespace), self._own + "".join(lines[key] for key in sorted(lines)))
            self._stale.discard(namespace)
            if not lines:
                self._lines.pop(namespace, None)


def hosts_line(pod: Pod, address: str) -> str:
    """Return the lines of a hosts file that let *pod*, and its Service, resolve to *address*."""
    host = hostname(pod.identity.name, pod.index)
    service, namespace = pod.identity.headless_service, pod.metadata.namespace
    names = []
    for base in (f"{host}.{service}", service):
        names += [f"{base}.{namespace}.svc.{CLUSTER_DOMAIN}", f"{base}.{namespace}.svc", f"{base}.{namespace}", base]
    # A pod's own name comes first behind the address: it is what an address is called when it is asked for its name.
    return f"{address} {' '.join(names[:4])} {host}\n{address} {' '.join(names[4:])}\n"


def write_in_place(path: Path, text: str) -> None:
    """Write a file that keeps its inode; a reader meanwhile never meets a mixture of two lines."""
    content = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        old_size = os.fstat(descriptor).st_size
        padded = content + b"\n" * (old_size - len(content))
        written = os.pwrite(descriptor, padded, 0)
        while written < len(padded):
            written += os.pwrite(descriptor, padded[written:], written)
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def _own_lines(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            text = stream.read(_OWN_HOSTS_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        text = ""
    if "localhost" not in text:
        text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n" + text
    return text if text.endswith("\n") else text + "\n"


def _block_number(address: str) -> int | None:
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return None
    if parsed not in NETWORK:
        return None
    return (int(parsed) - int(NETWORK.network_address)) // _BLOCK_SIZE
