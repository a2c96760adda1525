"""Pod addresses of the fake runtime: unique among living pods, grouped by node, stable over a restart.

Addresses come from 10.0.0.0/8 in blocks of 64, and a block belongs to one node at a time, as a pod CIDR would. Blocks
are given on first use, lowest first, so 262,144 nodes can hold pods at once and a node may take several blocks. Within
a node the lowest free slot is used. After a restart the addresses of running pods are adopted before any is assigned.

Nothing listens on these addresses; they are there because clients of the API expect pods to have one.
"""

from __future__ import annotations

import heapq
import ipaddress
from typing import Final

from grove_server.resources.meta import Key

_NETWORK: Final = ipaddress.IPv4Network("10.0.0.0/8")
_BLOCK_BITS: Final = 6
_BLOCK_SIZE: Final = 1 << _BLOCK_BITS
_BLOCK_FULL: Final = (1 << _BLOCK_SIZE) - 1
_BLOCKS_MAX: Final = _NETWORK.num_addresses >> _BLOCK_BITS
_BLOCKS_PER_OCTET: Final = 256 >> _BLOCK_BITS


class AddressesExhaustedError(Exception):
    """Every block of the pod network is in use (more than 16 million pods, or 262,144 nodes)."""


def _empty_block(block: int) -> int:
    """Return the slots of a fresh block as a bit mask of what is taken: nothing ends in .0 or .255."""
    position = block % _BLOCKS_PER_OCTET
    if position == 0:
        return 1
    return 1 << (_BLOCK_SIZE - 1) if position == _BLOCKS_PER_OCTET - 1 else 0


class PodAddresses:
    """Who holds which address."""

    def __init__(self) -> None:
        self._number_by_pod: dict[Key, int] = {}
        self._taken_by_block: dict[int, int] = {}
        self._node_by_block: dict[int, str] = {}
        self._blocks_by_node: dict[str, list[int]] = {}
        self._freed_blocks: list[int] = []
        self._next_block = 0

    def adopt(self, pod: Key, node: str, address: str) -> None:
        """Note that *pod* already holds *address*; addresses that were not given out here are ignored."""
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            return
        if parsed not in _NETWORK:
            return
        number = int(parsed) - int(_NETWORK.network_address)
        block = number >> _BLOCK_BITS
        while self._next_block <= block:
            heapq.heappush(self._freed_blocks, self._next_block)
            self._next_block += 1
        if block not in self._taken_by_block:
            self._open_block(block, node)
        self._taken_by_block[block] |= 1 << (number & (_BLOCK_SIZE - 1))
        self._number_by_pod[pod] = number

    def assign(self, pod: Key, node: str) -> str:
        """Return the address of *pod*, giving it one of *node* if it has none.

        Raises AddressesExhaustedError when the network is full.
        """
        number = self._number_by_pod.get(pod)
        if number is None:
            number = self._number_by_pod[pod] = self._take(node)
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    def release(self, pod: Key) -> None:
        """Take back the address of *pod*, if it has one."""
        number = self._number_by_pod.pop(pod, None)
        if number is None:
            return
        block = number >> _BLOCK_BITS
        self._taken_by_block[block] &= ~(1 << (number & (_BLOCK_SIZE - 1)))
        if self._taken_by_block[block] == _empty_block(block):
            self._close_block(block)

    def _take(self, node: str) -> int:
        for block in self._blocks_by_node.get(node, ()):
            if self._taken_by_block[block] != _BLOCK_FULL:
                break
        else:
            block = self._fresh_block()
            self._open_block(block, node)
        taken = self._taken_by_block[block]
        lowest_free = ~taken & (taken + 1)
        self._taken_by_block[block] = taken | lowest_free
        return (block << _BLOCK_BITS) + lowest_free.bit_length() - 1

    def _fresh_block(self) -> int:
        while self._freed_blocks:
            block = heapq.heappop(self._freed_blocks)
            # Adopting pods opens blocks out of order and leaves their entry behind.
            if block not in self._taken_by_block:
                return block
        if self._next_block == _BLOCKS_MAX:
            raise AddressesExhaustedError(f"all {_BLOCKS_MAX} blocks of {_NETWORK} are in use")
        self._next_block += 1
        return self._next_block - 1

    def _open_block(self, block: int, node: str) -> None:
        self._taken_by_block[block] = _empty_block(block)
        self._node_by_block[block] = node
        self._blocks_by_node.setdefault(node, []).append(block)

    def _close_block(self, block: int) -> None:
        del self._taken_by_block[block]
        node = self._node_by_block.pop(block)
        blocks = self._blocks_by_node[node]
        blocks.remove(block)
        if not blocks:
            del self._blocks_by_node[node]
        heapq.heappush(self._freed_blocks, block)
