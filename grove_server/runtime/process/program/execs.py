"""Commands in containers: probes, preStop, ``grovectl exec``. They are children of the launcher program itself.

Collected ones give their output to the launcher program, up to a limit (what comes after is read and dropped, so that
the command does not hang), and have a deadline; streamed ones have the caller's own descriptors. All that a command
started ends with it: its process group at once, and what left the group once no streamed command runs any more.

Probes are many, so a collected command costs no fork: the launcher program itself enters the container's mounts and
folder, lets the C library spawn the command (which copies no page tables), and returns. Streamed commands, and those in
a container with a user namespace, from which there is no way back, are forked.

When the launcher program is killed, forked commands die with it. Spawned ones cannot ask the kernel for that: they are
told by ``GROVE_EXEC`` in their environment, and the next launcher program ends them before it takes orders.

A command that cannot be run has exit code 126 or 127 and says why on its stderr, as shells do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import termios
import time

from grove_server.runtime.process.program import child, kernel, records
from grove_server.runtime.process.program.child import StartFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

    from grove_server.runtime.process.program.messages import Header, Message
    from grove_server.runtime.process.program.records import Record

CHUNK_BYTES: Final = 64 * 1024
RECORDS_MAX: Final = 1024
# Names the launcher program that a command belongs to, by pid and start ticks.
MARKER: Final = "GROVE_EXEC"


class Exec:
    """A command that runs. ``output`` is -1 for a streamed one."""

    __slots__ = ("deadline_s", "is_cut", "number", "output", "pid", "room", "text", "timed_out")

    def __init__(self, order: Header, pid: int, output: int) -> None:
        timeout_s = order.get("timeout_s")
        self.number: int = order["id"]
        self.pid = pid
        self.output = output
        self.room: int = order.get("output_bytes_max", 0)
        self.deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self.text = bytearray()
        self.is_cut = False
        self.timed_out = False

    def take(self) -> bool:
        """Take one chunk of output; return whether there may be more."""
        try:
            chunk = os.read(self.output, CHUNK_BYTES)
        except BlockingIOError:
            return False
        self.text += chunk[: self.room]
        self.is_cut = self.is_cut or len(chunk) > self.room
        self.room -= min(self.room, len(chunk))
        return bool(chunk)

    def answer(self, exit_code: int) -> Header:
        """Return what the server is told in the end, beside the output."""
        return {"id": self.number, "exit_code": exit_code, "timed_out": self.timed_out, "is_cut": self.is_cut}


class Execs:
    """The commands that run now."""

    def __init__(self, data_dir: str, poller: select.poll) -> None:
        self._data_dir = data_dir
        self._poller = poller
        self._by_pid: dict[int, Exec] = {}
        self._by_output: dict[int, Exec] = {}
        self._records: dict[tuple[str, str, int], Record] = {}
        self._own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._mark = f"{os.getpid()}:{kernel.start_ticks(os.getpid())}"
        self._nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def start(self, message: Message) -> tuple[Header, bytes] | None:
        """Start a command; return its answer if it is over already, because it could not be run.

        Raises StartFailure or OSError if it could not even be tried.
        """
        order = message.header
        record = self._record(tuple(order["key"]))
        if message.fds:
            pid = _forked(order, record, message.fds)
            self._by_pid[pid] = Exec(order, pid, -1)
            return None
        output, into = os.pipe()
        try:
            with contextlib.closing(Visit(record, self._own_mounts)) as visit:
                streams = (self._nothing, into, into)
                pid = visit.spawn(order["argv"], streams) if visit.is_there else _forked(order, record, streams)
        except OSError as error:
            os.close(output)
            return _cannot_run(order, error)
        except (StartFailure, ValueError):
            os.close(output)
            raise
        finally:
            os.close(into)
        os.set_blocking(output, False)
        run = self._by_pid[pid] = self._by_output[output] = Exec(order, pid, output)
        self._poller.register(run.output, select.POLLIN)
        return None

    def _record(self, key: tuple[str, str, int]) -> Record:
        """Return the record of a run, which never changes."""
        record = self._records.get(key)
        if record is None:
            record = records.read(f"{records.run_dir(self._data_dir, key)}/{records.RUN_FILE}")
            if record is None or record["boot_id"] != kernel.boot_id():
                raise StartFailure("RunEnded", "there is no such container")
            record = {**record, "environment": {**record["environment"], MARKER: self._mark}}
            if len(self._records) >= RECORDS_MAX:
                self._records.clear()
            self._records[key] = record
        return record

    def next_deadline_s(self) -> float:
        """Return when the first of them runs out of time, on the monotonic clock; infinity if none does."""
        return min((run.deadline_s for run in self._by_pid.values()), default=float("inf"))

    def end_late(self) -> None:
        """Kill those whose time has run out."""
        now_s = time.monotonic()
        for run in self._by_pid.values():
            if run.deadline_s <= now_s:
                run.timed_out = True
                run.deadline_s = float("inf")
                _kill_group(run.pid, signal.SIGKILL)

    def send(self, number: int, signal_number: int) -> None:
        """Send a signal to the process group of a command, if it still runs."""
        for run in self._by_pid.values():
            if run.number == number:
                _kill_group(run.pid, signal_number)

    def end_all(self) -> None:
        """Kill all of them."""
        for run in self._by_pid.values():
            _kill_group(run.pid, signal.SIGKILL)

    def read(self, descriptor: int) -> bool:
        """Take output that has come; False if the descriptor is no command's."""
        run = self._by_output.get(descriptor)
        if run is None:
            return False
        if not run.take():
            self._poller.unregister(descriptor)
            del self._by_output[descriptor]
        return True

    def ended(self, pid: int) -> bool:
        """Tell whether a process that has ended, and is not reaped yet, is a command's; then its group is killed."""
        if pid not in self._by_pid:
            return False
        # The group's number cannot have been given anew: its leader is still a zombie.
        _kill_group(pid, signal.SIGKILL)
        return True

    def finish(self, pid: int, status: int) -> tuple[Header, bytes]:
        """Return the answer for a command that has been reaped."""
        run = self._by_pid.pop(pid)
        if run.output >= 0:
            # What was written before the end is in the pipe; of one that another process holds no more is waited for.
            for _ in range(2):
                if not run.take():
                    break
            if self._by_output.pop(run.output, None) is not None:
                self._poller.unregister(run.output)
            os.close(run.output)
        code = os.waitstatus_to_exitcode(status)
        return run.answer(128 - code if code < 0 else code), bytes(run.text)

    @property
    def pids(self) -> set[int]:
        """The processes of all commands."""
        return set(self._by_pid)

    @property
    def has_streamed(self) -> bool:
        """Whether a command with the caller's own streams runs."""
        return any(run.output < 0 for run in self._by_pid.values())


def _kill_group(pid: int, number: int) -> None:
    """Signal a command's group, or the process itself while it has not made its group yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        kernel.send(pid, number)
    except PermissionError:
        return


def end_commands_of_the_dead() -> None:
    """Kill every command whose launcher program no longer lives, with what it started."""
    for pid in kernel.pids():
        mark = kernel.variable(pid, MARKER.encode())
        if mark is None:
            continue
        launcher_pid, _, ticks = mark.partition(b":")
        if launcher_pid.isdigit() and str(kernel.start_ticks(int(launcher_pid))).encode() != ticks:
            kernel.send(pid, signal.SIGKILL)


class Visit:
    """The launcher program's stay in a container's mounts and folder; ``close`` brings it back.

    ``is_there`` is False if it did not go, since a user namespace would not let it return.
    """

    def __init__(self, record: Record, own_mounts: int) -> None:
        self._record = record
        self._own_mounts = own_mounts
        self._is_away = False
        self.is_there = True
        pid = record["pid"]
        try:
            mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise StartFailure("RunEnded", "the container has ended") from error
        try:
            # Looked at after the namespace has been opened: a number that was given anew is noticed.
            if kernel.start_ticks(pid) != record["pid_ticks"]:
                raise StartFailure("RunEnded", "the container has ended")
            if os.fstat(mounts).st_ino != os.fstat(own_mounts).st_ino:
                self.is_there = os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
                if self.is_there:
                    self._is_away = True
                    kernel.enter_namespace(mounts, kernel.CLONE_NEWNS)
        finally:
            os.close(mounts)
        if self.is_there:
            try:
                child.go_to(record["working_dir"])
            except StartFailure:
                self.close()
                raise

    def spawn(self, argv: list[str], streams: Sequence[int]) -> int:
        """Start a command here and return its pid; raises OSError if it cannot be run."""
        environment = self._record["environment"]
        actions = [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
        refused: OSError | None = None
        for place in child.places_of(argv[0], environment):
            # Looking first is cheaper than a failed start in each folder of the PATH.
            if not os.access(place, os.X_OK, effective_ids=True):
                if refused is None and os.access(place, os.F_OK):
                    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                continue
            pid = os.posix_spawn(place, argv, environment, file_actions=actions, setsid=True)
            _join_cgroups(self._record, pid)
            return pid
        raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def close(self) -> None:
        """Return to where the launcher program lives."""
        if self._is_away:
            kernel.enter_namespace(self._own_mounts, kernel.CLONE_NEWNS)
        os.chdir("/")


def _join_cgroups(record: Record, pid: int) -> None:
    for folder in record["cgroup_dirs"]:
        with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", "wb", buffering=0) as file:
            file.write(b"%d" % pid)


def _cannot_run(order: Header, error: OSError | ValueError) -> tuple[Header, bytes]:
    """Return the answer for a command that could not be run."""
    is_missing = isinstance(error, FileNotFoundError)
    code = child.NOT_FOUND_EXIT_CODE if is_missing else child.CANNOT_RUN_EXIT_CODE
    why = error.strerror if isinstance(error, OSError) else str(error)
    text = f"grove: cannot run {order['argv'][0]!r}: {why}\n".encode()
    return {"id": order["id"], "exit_code": code, "timed_out": False, "is_cut": False}, text


def _forked(order: Header, record: Record, streams: Sequence[int]) -> int:
    """Start a command by a fork and return its pid; raises OSError."""
    launcher_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = child.CANNOT_RUN_EXIT_CODE
    try:
        _become(order, record, streams, launcher_pid)
    except StartFailure as failure:
        with contextlib.suppress(OSError):
            os.write(2, f"grove: cannot run {order['argv'][0]!r}: {failure.message}\n".encode())
    except (OSError, ValueError) as error:
        header, text = _cannot_run(order, error)
        code = header["exit_code"]
        with contextlib.suppress(OSError):
            os.write(2, text)
    finally:
        os._exit(code)


def _become(order: Header, record: Record, streams: Sequence[int], launcher_pid: int) -> NoReturn:
    """Be the command's process."""
    os.setsid()
    # Out of the way first: one of them may have the number of another's target.
    copies = [fcntl.fcntl(stream, fcntl.F_DUPFD_CLOEXEC, 10) for stream in streams]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)
    if order.get("tty"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _join_cgroups(record, os.getpid())
    _enter(record)
    # Entering a user namespace clears it, so it comes last.
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != launcher_pid:
        os._exit(child.CANNOT_RUN_EXIT_CODE)
    child.become(order["argv"], {**record["environment"], **order.get("environment", {})})


def _enter(record: Record) -> None:
    """Enter a container's mounts and folder for good."""
    pid = record["pid"]
    try:
        mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise StartFailure("RunEnded", "the container has ended") from error
    if kernel.start_ticks(pid) != record["pid_ticks"]:
        raise StartFailure("RunEnded", "the container has ended")
    if os.fstat(users).st_ino != os.stat("/proc/self/ns/user").st_ino:
        kernel.enter_namespace(users, kernel.CLONE_NEWUSER)
    if os.fstat(mounts).st_ino != os.stat("/proc/self/ns/mnt").st_ino:
        kernel.enter_namespace(mounts, kernel.CLONE_NEWNS)
    child.go_to(record["working_dir"])
