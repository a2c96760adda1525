"""`logs`: what containers wrote, of one pod or of many at once.

One pod is kubectl's `logs`: it ends with the container. Many pods (a selector, a clique, a group, a set) are told apart
by a prefix; followed, they are all that match, also those that come later, and a container that starts again is
followed again. Lines of many pods come as they arrive, each pod's own in order.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from grovectl.failures import Failure, usage
from grovectl.kinds import find
from grovectl.session import Session, connected_command, one_line

if TYPE_CHECKING:
    from grove.v1.container_pb2 import ContainerServiceLogsResponse, LogLine
    from grove.v1.pod_pb2 import Pod
    from grove_client import GroveClient
    from grove_client.containers import LogRequest

# Which label of a pod names the resource that it is a part of.
_LABELS: Final = {
    "PodCliqueSet": "app.kubernetes.io/part-of",
    "PodClique": "grove.io/podclique",
    "PodCliqueScalingGroup": "grove.io/podcliquescalinggroup",
    "PodGang": "grove.io/podgang",
}
# As kubectl: the last lines of many pods are enough, unless more is asked for.
_TAIL_OF_MANY: Final = 10
_LINE_BYTES_MAX: Final = 1 << 20
# How often a container that ended, or has not begun, is asked for its next run.
_AGAIN_S: Final = 1.0


class _Wish(NamedTuple):
    """What was asked for, whichever pods it is about."""

    container: str
    follow: bool
    previous: bool
    tail: int | None
    since: str
    since_time: str

    def of(self, pod: str, namespace: str, container: str, *, tail: int | None) -> LogRequest:
        from grove_client.containers import LogRequest

        return LogRequest(
            pod=pod,
            namespace=namespace,
            container=container,
            previous=self.previous,
            follow=self.follow,
            tail_lines=tail,
            since=self.since,
            since_time=self.since_time,
        )


@click.command()
@click.argument("word", required=False, default="", metavar="[POD|KIND/NAME]")
@click.option("-c", "--container", default="", metavar="NAME", help="Which container; the first one if not given.")
@click.option("--all-containers", is_flag=True, help="All containers, init containers too.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")
@click.option("-p", "--previous", is_flag=True, help="The run before this one.")
@click.option(
    "--tail", type=int, metavar="N", help="The last N lines; default: all, 10 of each of many pods; -1 is all."
)
@click.option("--since", default="", metavar="DURATION", help="Not older than this, for example 5m.")
@click.option("--since-time", default="", metavar="TIME", help="Not older than this time (RFC 3339).")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("--prefix", is_flag=True, help="Put pod and container before each line; done anyway for many pods.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="All pods with these labels.")
@click.option("--max-log-requests", type=int, default=50, metavar="N", help="Most containers at once; default 50.")
@connected_command
def logs(  # noqa: PLR0913 -- one argument per option of the command
    session: Session,
    *,
    word: str,
    container: str,
    all_containers: bool,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: str,
    since_time: str,
    timestamps: bool,
    prefix: bool,
    selector: str,
    max_log_requests: int,
) -> None:
    """Show what containers wrote: of a POD, of all pods of KIND/NAME (pcs, pclq, pcsg, pg), or of a selector."""
    if since and since_time:
        raise usage("--since and --since-time exclude each other")
    if container and all_containers:
        raise usage("--container and --all-containers exclude each other")
    pod, chosen = _pods(word, selector)
    many = not pod or all_containers
    if tail is None and not pod and not since and not since_time:
        tail = _TAIL_OF_MANY
    wish = _Wish(container, follow, previous, None if tail is None or tail < 0 else tail, since, since_time)
    out = _Out(timestamps=timestamps)
    if not many:
        session.run(lambda grove: _one(grove, wish.of(pod, session.namespace, container, tail=wish.tail), out, prefix))
        return
    crowd = _Crowd(session.namespace, wish, out, all_containers=all_containers, limit=max_log_requests)
    session.run(lambda grove: crowd.show(grove, pod, chosen))


def _pods(word: str, selector: str) -> tuple[str, str]:
    """Return the name of the one pod, or the selector of many."""
    if bool(word) == bool(selector):
        raise usage("name a pod, KIND/NAME, or a selector with -l")
    if selector:
        return "", selector
    kind, slash, name = word.partition("/")
    if not slash:
        return word, ""
    info = find(kind)
    if info.kind == "Pod" and name:
        return name, ""
    if info.kind not in _LABELS or not name:
        raise usage(f"{info.resource} has no pods; name a pod, a pcs, pclq, pcsg or pg")
    return "", f"{_LABELS[info.kind]}={name}"


class _Out:
    """Writes whole lines to stdout, bytes as they are. Parts of long lines are put together, up to a bound."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps

    def source(self, prefix: str) -> _Source:
        """Return where the lines of one container go."""
        return _Source(prefix.encode(), timestamps=self._timestamps)


class _Source:
    """The lines of one container."""

    def __init__(self, prefix: bytes, *, timestamps: bool) -> None:
        self._prefix = prefix
        self._timestamps = timestamps
        self._parts: dict[bool, bytes] = {}

    def write(self, piece: ContainerServiceLogsResponse) -> None:
        """Write a piece, and say if something before it is missing."""
        if piece.has_gap:
            name = self._prefix.decode().strip() or "log"
            click.echo(f"warning: {name}: some output was discarded before it could be read", err=True)
        text = b"".join(self._line(line) for line in piece.lines)
        if text:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()

    def end(self) -> None:
        """Write what never became a whole line."""
        for part in self._parts.values():
            sys.stdout.buffer.write(part + b"\n")
        sys.stdout.buffer.flush()
        self._parts.clear()

    def _line(self, line: LogLine) -> bytes:
        part = self._parts.pop(line.is_stderr, None)
        if part is None:
            part = self._prefix + (f"{line.time} ".encode() if self._timestamps else b"")
        part += line.content
        if line.is_partial and len(part) < _LINE_BYTES_MAX:
            self._parts[line.is_stderr] = part
            return b""
        return part + b"\n"


async def _one(grove: GroveClient, request: LogRequest, out: _Out, prefix: bool) -> None:  # noqa: FBT001 -- an option
    source = out.source("")
    try:
        async for piece in grove.containers.logs(request):
            if piece.container and prefix:
                source = out.source(_prefix(request.pod, piece.container))
            source.write(piece)
    finally:
        source.end()


def _prefix(pod: str, container: str) -> str:
    return f"[{pod}/{container}] "


class _Crowd:
    """The logs of many containers at once."""

    def __init__(self, namespace: str, wish: _Wish, out: _Out, *, all_containers: bool, limit: int) -> None:
        self._namespace = namespace
        self._wish = wish
        self._out = out
        self._all_containers = all_containers
        self._limit = limit
        self._open: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._gone: set[str] = set()

    async def show(self, grove: GroveClient, pod: str, selector: str) -> None:
        """Show all that match; go on for ever if it is to follow them."""
        if not self._wish.follow:
            found = [await grove.pods.get(pod, namespace=self._namespace)] if pod else []
            if not pod:
                listed = grove.pods.list(namespace=self._namespace, label_selector=selector)
                found = [each async for each in listed]
            if not found:
                click.echo(f"No resources found in {self._namespace} namespace.", err=True)
            for each in found:
                for container in self._containers(each):
                    await self._stream(grove, each.metadata.name, container)
            return
        try:
            async with asyncio.TaskGroup() as group:
                async for each, is_there in _changes(grove, self._namespace, pod, selector):
                    self._see(grove, group, each, is_there=is_there)
        except BaseExceptionGroup as errors:
            # One of them is enough to say what is wrong.
            raise errors.exceptions[0] from None

    def _see(self, grove: GroveClient, group: asyncio.TaskGroup, pod: Pod, *, is_there: bool) -> None:
        uid = pod.metadata.uid
        if not is_there:
            self._gone.add(uid)
            return
        self._open = {key: task for key, task in self._open.items() if not task.done()}
        for container in self._containers(pod):
            key = (uid, container)
            if key in self._open:
                continue
            if len(self._open) >= self._limit:
                raise Failure(f"more than {self._limit} containers; allow more with --max-log-requests")
            self._open[key] = group.create_task(self._follow(grove, pod.metadata.name, uid, container))

    def _containers(self, pod: Pod) -> list[str]:
        if not self._all_containers:
            return [self._wish.container or _names(pod.spec.fields.get("containers"))[0]]
        return _names(pod.spec.fields.get("initContainers")) + _names(pod.spec.fields.get("containers"))

    async def _follow(self, grove: GroveClient, pod: str, uid: str, container: str) -> None:
        """Follow run after run of a container until its pod is gone."""
        from grove_client import FailedPreconditionError, NotFoundError

        last_run = -1
        while uid not in self._gone:
            try:
                last_run = await self._stream(grove, pod, container, uid=uid, last_run=last_run)
            except FailedPreconditionError as error:
                if error.reason != "NO_OUTPUT":
                    raise
            except NotFoundError:
                return
            await asyncio.sleep(_AGAIN_S)

    async def _stream(self, grove: GroveClient, pod: str, container: str, *, uid: str = "", last_run: int = -1) -> int:
        """Write one run; return its number. One that was written already, or is of another pod, is left at once."""
        from grove_client import FailedPreconditionError

        source = self._out.source(_prefix(pod, container))
        # Of what started while we looked nothing is old.
        tail = self._wish.tail if last_run < 0 else None
        request = self._wish.of(pod, self._namespace, container, tail=tail)
        try:
            async with aclosing(grove.containers.logs(request)) as pieces:
                async for piece in pieces:
                    if piece.container and (piece.run == last_run or uid not in {"", piece.pod_uid}):
                        break
                    if piece.container:
                        last_run = piece.run
                    source.write(piece)
        except FailedPreconditionError as error:
            if self._wish.follow or error.reason != "NO_OUTPUT":
                raise
            # One container without output does not hide that of the others.
            click.echo(f"warning: {one_line(error.message)}", err=True)
        finally:
            source.end()
        return last_run


def _names(value: object) -> list[str]:
    """Return the names in a list of containers of a Struct."""
    listed = getattr(value, "list_value", None)
    return [each.struct_value.fields["name"].string_value for each in listed.values] if listed is not None else []


async def _changes(grove: GroveClient, namespace: str, pod: str, selector: str) -> AsyncIterator[tuple[Pod, bool]]:
    """Yield pods that match, as they are now and become, and whether they are still there."""
    async for event in grove.pods.watch(namespace=namespace, label_selector=selector, name=pod):
        if event.object is not None:
            yield event.object, event.type != "DELETED"
