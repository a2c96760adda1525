"""How server and launcher program speak: one SOCK_SEQPACKET message each, a line of JSON and then raw bytes.

What is longer than a message may be goes into a memfd that travels with it, so that the length of an environment or of
a command's output is not bound to the socket's buffer. Descriptors of the caller follow after it.

Not here: what the messages mean (`launcher.py`).
"""

from __future__ import annotations

import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    # JSON of our own making at the border between two processes: names to plain values.
    Header = dict[str, Any]

INLINE_BYTES_MAX: Final = 32 * 1024
FDS_MAX: Final = 8
# What an order or an answer may take at all.
BYTES_MAX: Final = 8 * 1024 * 1024


class Message:
    """One message as it came in. The receiver closes ``fds``."""

    __slots__ = ("body", "fds", "header")

    def __init__(self, header: Header, body: bytes, fds: list[int]) -> None:
        self.header = header
        self.body = body
        self.fds = fds


class TooLongError(ValueError):
    """A message is longer than BYTES_MAX."""


def send(link: socket.socket, header: Header, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
    """Send one message, whole or not at all; raises OSError (BlockingIOError if the link is full), TooLongError."""
    data = json.dumps(header, separators=(",", ":")).encode() + b"\n" + body
    if len(data) <= INLINE_BYTES_MAX:
        socket.send_fds(link, [data], fds)
        return
    if len(data) > BYTES_MAX:
        raise TooLongError(f"a message of {len(data)} bytes; at most {BYTES_MAX} are allowed")
    memory = os.memfd_create("grove-message")
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(data)
        socket.send_fds(link, [b"memfd"], (memory, *fds))
    finally:
        os.close(memory)


def receive(link: socket.socket) -> Message | None:
    """Return the next message; None when the other side has closed. Raises OSError (BlockingIOError: none yet)."""
    data, fds, _, _ = socket.recv_fds(link, INLINE_BYTES_MAX + 1, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    if data == b"memfd":
        with os.fdopen(fds.pop(0), "rb") as file:
            file.seek(0)
            data = file.read(BYTES_MAX)
    line, _, body = data.partition(b"\n")
    return Message(json.loads(line), body, fds)
