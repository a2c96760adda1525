"""The keeper: one process for each start of a container, which outlives the server and writes down how it ended.

It is the parent of the container's main process, and takes the place of process 1 for everything that descends from
it: a program that makes itself a daemon is still its child, and ends with the container. If the keeper itself is
killed, the kernel kills the main process. It sleeps until there is output to copy or a child to bury; an idle container
costs no wake-up at all.

Order of a start: state folder and lock, the child up to its exec, ``run.json``, then exec. So no program of a container
ever runs without a record that leads to it.

Not here: how the child becomes the program (`child.py`), the form of the log (`log_files.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time

from grove_server.runtime.process.program import child, kernel, messages, records
from grove_server.runtime.process.program.child import StartFailure
from grove_server.runtime.process.program.log_files import LogFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from grove_server.runtime.process.program.records import Key, Record

CHUNK_BYTES: Final = 64 * 1024
# After the end of all its processes a container's pipes hold what was not read yet; more is not waited for.
REST_BYTES_MAX: Final = 1024 * 1024
# Stopping everything before killing it is given up after so many rounds: what forks faster is killed as it comes.
STOP_ROUNDS_MAX: Final = 20
CGROUP_GONE_ROUNDS_MAX: Final = 50
CGROUP_GONE_WAIT_S: Final = 0.02


def keep(order: Record, data_dir: str, link: socket.socket, lock: int) -> NoReturn:
    """Be the keeper of one run; called in a fresh fork of the launcher program, and never returns.

    *link* leads to the server and gets one answer; *lock* is the launcher's, held until the answer is given, so that
    whoever gets that lock sees no start half done.
    """
    key: Key = (order["pod_uid"], order["container"], order["attempt"])
    os.setsid()
    kernel.name_keeper()
    kernel.adopt_orphans()
    _keep_open(link.fileno(), lock)
    keeper = Keeper(order, key, data_dir)
    try:
        answer = keeper.start()
    except StartFailure as failure:
        keeper.give_up()
        answer = {"error": {"reason": failure.reason, "message": failure.message}}
    except OSError as error:
        keeper.give_up()
        answer = {"error": {"reason": child.reason_of(error), "message": str(error)}}
    with contextlib.suppress(OSError):
        messages.send(link, {"id": order["id"], **answer})
    link.close()
    os.close(lock)
    if "error" in answer or "existing" in answer:
        os._exit(0)
    records.remove_before(data_dir, (key[0], key[1], key[2] - 1))
    keeper.watch()
    os._exit(0)


def _keep_open(*descriptors: int) -> None:
    """Close what came from the launcher program but for these; stdin leads nowhere."""
    nowhere = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nowhere, 0)
    low = 3
    for descriptor in sorted(descriptors):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


class Keeper:
    """The state of one keeper process."""

    def __init__(self, order: Record, key: Key, data_dir: str) -> None:
        self._order = order
        self._key = key
        self._data_dir = data_dir
        self._folder = records.run_dir(data_dir, key)
        self._pid = 0
        self._is_locked = False
        self._status: int | None = None
        self._oom_kills = 0
        self._cgroups: list[str] = []
        self._shortfalls: list[tuple[str, str]] = []
        self._out = self._err = -1
        self._woken, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._logs = LogFiles(
            records.log_file(data_dir, key),
            file_bytes_max=order["log_bytes_max"],
            files_max=order["log_files_max"],
        )

    def start(self) -> Record:
        """Start the main process and return the answer for the server; raises StartFailure or OSError."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        lock = records.lock(f"{self._folder}/{records.LOCK_FILE}")
        if lock is None or os.path.exists(f"{self._folder}/{records.RUN_FILE}"):
            return {"existing": True}
        self._is_locked = True
        records.take_exit_room(self._folder)
        self._make_cgroups()
        if self._order["hosts_path"] or self._order["binds"]:
            self._shortfalls.extend(child.mount(self._order["hosts_path"], self._order["binds"]))
        child.go_to(self._order["working_dir"])
        self._shortfalls.extend(child.limit(self._order))
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        return {"run": self._start_child()}

    def _start_child(self) -> Record:
        """Fork the main process, put it on record, let it become the program; return what is on record."""
        self._out, self._err = _piped(1), _piped(2)
        told, tell = os.pipe()
        wait, go = os.pipe()
        keeper_pid = os.getpid()
        environment = self._environment()
        self._pid = os.fork()
        if self._pid == 0:
            self._become(keeper_pid, wait, tell, environment)
        nowhere = os.open("/dev/null", os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        for descriptor in (nowhere, tell, wait):
            os.close(descriptor)
        self._join_cgroups()
        record = self._record(keeper_pid)
        records.write_whole(f"{self._folder}/{records.RUN_FILE}", {**record, "environment": environment})
        os.write(go, b"g")
        os.close(go)
        failure = os.read(told, 65536)
        os.close(told)
        if failure:
            number, _, place = failure.partition(b" ")
            raise child.failure_of(OSError(int(number), os.strerror(int(number))), os.fsdecode(place))
        return record

    def _become(self, keeper_pid: int, wait: int, tell: int, environment: dict[str, str]) -> NoReturn:
        """Be the child: wait for the record to be written, become the program."""
        argv = self._order["argv"]
        try:
            os.setsid()
            kernel.die_with_parent(signal.SIGKILL)
            # A keeper that ended before that was heard leaves a child of someone else.
            if os.getppid() == keeper_pid and os.read(wait, 1):
                child.become(argv, environment)
        except OSError as error:
            os.write(tell, b"%d " % (error.errno or 0) + os.fsencode(argv[0])[:4096])
        except ValueError:
            # A NUL byte in an argument or a variable.
            os.write(tell, b"%d " % errno.EINVAL + os.fsencode(argv[0])[:4096])
        finally:
            os._exit(child.CANNOT_RUN_EXIT_CODE)

    def _environment(self) -> dict[str, str]:
        return {**self._order["environment"], records.MARKER: records.marker(self._key)}

    def _record(self, keeper_pid: int) -> Record:
        names = ("pod_uid", "namespace", "pod_name", "container", "attempt", "working_dir")
        return {
            **{name: self._order[name] for name in names},
            "keeper_pid": keeper_pid,
            "keeper_ticks": kernel.start_ticks(keeper_pid),
            "pid": self._pid,
            "pid_ticks": kernel.start_ticks(self._pid),
            "boot_id": kernel.boot_id(),
            "started_at": time.time(),
            "shortfalls": self._shortfalls,
            "cgroup_dirs": self._cgroups,
        }

    def _make_cgroups(self) -> None:
        parents = [self._order["cgroup_dir"], *self._order["more_cgroup_dirs"]]
        for parent in parents:
            if parent is None:
                continue
            folder = f"{parent}/{self._key[1]}.{self._key[2]}"
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as error:
                self._shortfalls.append(("Cgroup", f"cannot make {folder}: {error.strerror}"))
            else:
                self._cgroups.append(folder)
        if self._cgroups:
            self._oom_kills = self._count_oom_kills()

    def _join_cgroups(self) -> None:
        """Move the child, which waits, into its cgroups."""
        for folder in self._cgroups:
            try:
                with open(f"{folder}/cgroup.procs", "wb", buffering=0) as file:
                    file.write(b"%d" % self._pid)
            except OSError as error:
                self._shortfalls.append(("Cgroup", f"cannot join {folder}: {error.strerror}"))

    def _count_oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory.

        Version 2 counts them in the groups above as well, of which the container's has the limit; version 1 in the
        run's own.
        """
        count = 0
        files = [f"{self._order['cgroup_dir']}/memory.events"]
        files += [f"{folder}/memory.oom_control" for folder in self._cgroups]
        for name in files:
            with contextlib.suppress(OSError), open(name, encoding="ascii") as file:
                count += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        return count

    def give_up(self) -> None:
        """Leave nothing of a start that failed."""
        if self._pid:
            kernel.send(self._pid, signal.SIGKILL)
            self._end_descendants()
        self._leave_cgroups()
        if self._is_locked:
            records.remove_folder(self._folder)
            for folder in (os.path.dirname(self._folder), os.path.dirname(os.path.dirname(self._folder))):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def watch(self) -> None:
        """Copy output until the main process ends; then end all that descends from it and write the record."""
        poller = select.poll()
        streams = {self._out: b"stdout", self._err: b"stderr"}
        for descriptor in (*streams, self._woken):
            poller.register(descriptor, select.POLLIN)
        while self._status is None:
            for descriptor, _ in poller.poll():
                if descriptor == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                    self._bury()
                    continue
                chunk = os.read(descriptor, CHUNK_BYTES)
                if chunk:
                    self._logs.take(streams[descriptor], chunk)
                else:
                    poller.unregister(descriptor)
        finished_at = time.time()
        self._end_descendants()
        for descriptor, name in streams.items():
            self._take_rest(descriptor, name)
        self._logs.finish()
        records.write_exit(self._folder, self._ended(finished_at))
        self._leave_cgroups()

    def _bury(self) -> bool:
        """Reap every child that has ended; return whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._status = status

    def _end_descendants(self) -> None:
        """Kill and reap all that is left, however fast it forks: first stopped, so that it cannot, then killed."""
        for folder in self._cgroups:
            with contextlib.suppress(OSError), open(f"{folder}/cgroup.kill", "wb", buffering=0) as file:
                file.write(b"1")
        own = os.getpid()
        stopped: set[int] = set()
        rounds = 0
        while self._bury():
            found = kernel.descendants(own)
            fresh = [pid for pid in found if pid not in stopped]
            rounds += 1
            if fresh and rounds <= STOP_ROUNDS_MAX:
                for pid in fresh:
                    kernel.send(pid, signal.SIGSTOP)
                stopped.update(fresh)
                continue
            for pid in found:
                kernel.send(pid, signal.SIGKILL)
            # The end of a child wakes us; the limit is for one that waits in the kernel and cannot end yet.
            select.select([self._woken], [], [], 0.2)
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)

    def _take_rest(self, descriptor: int, stream: bytes) -> None:
        os.set_blocking(descriptor, False)
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while taken < REST_BYTES_MAX and (chunk := os.read(descriptor, CHUNK_BYTES)):
                self._logs.take(stream, chunk)
                taken += len(chunk)

    def _ended(self, finished_at: float) -> Record:
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        number = -code if code < 0 else None
        reason = "Completed" if code == 0 else "Error"
        if number == signal.SIGKILL and self._count_oom_kills() > self._oom_kills:
            reason = "OOMKilled"
        dropped = self._logs.dropped_bytes
        return {
            "exit_code": 128 - code if code < 0 else code,
            "signal": number,
            "finished_at": finished_at,
            "reason": reason,
            "message": f"{dropped} bytes of its log could not be written" if dropped else "",
        }

    def _leave_cgroups(self) -> None:
        for folder in self._cgroups:
            for _ in range(CGROUP_GONE_ROUNDS_MAX):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    break
                except OSError:
                    # Commands in the container are no descendants of ours, and an older kernel kills no group as one.
                    _kill_members(folder)
                    time.sleep(CGROUP_GONE_WAIT_S)
                else:
                    break


def _kill_members(folder: str) -> None:
    with contextlib.suppress(OSError, ValueError), open(f"{folder}/cgroup.procs", "rb") as file:
        for line in file:
            kernel.send(int(line), signal.SIGKILL)


def _piped(number: int) -> int:
    """Make a pipe, let one of our own descriptors lead into it for the child to inherit, and return the other end."""
    out, into = os.pipe()
    os.dup2(into, number)
    os.close(into)
    return out
