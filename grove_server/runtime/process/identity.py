"""Processes as pid and start ticks name them: found, and signalled, without ever meeting another with the same pid."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import Final

from grove_server.runtime.process.program import kernel

# Linux 6.9: a signal to the whole group of the process behind a pidfd.
PIDFD_SIGNAL_PROCESS_GROUP: Final = 4


def open_process(pid: int, ticks: int) -> int | None:
    """Return a pidfd of a process, for the caller to close; None if it is gone. Raises OSError without descriptors."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Looked at after it was opened: from here on the descriptor cannot come to mean another process.
    if kernel.start_ticks(pid) != ticks:
        os.close(descriptor)
        return None
    return descriptor


def send_signal(pid: int, ticks: int, number: int, *, is_group: bool) -> bool:
    """Send a signal to a process, or to the group it leads; False if it is gone."""
    descriptor = open_process(pid, ticks)
    if descriptor is None:
        return False
    try:
        if is_group:
            _send_to_group(descriptor, pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _send_to_group(descriptor: int, pid: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # An older kernel: the leader still is who it was a moment ago, and its group has its number.
        signal.pidfd_send_signal(descriptor, 0)
        os.killpg(pid, number)


def reap(descriptor: int) -> None:
    """Bury the process behind a pidfd if it is our child and has ended.

    It is ours if we are process 1, or a subreaper, and the launcher program that forked it has ended.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
