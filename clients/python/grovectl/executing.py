"""`exec`: runs a command beside a container, with this terminal's streams.

The exit code is the command's. Without a terminal the two streams of output stay apart, and bytes pass as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Final

import click

from grovectl.failures import Failure, usage
from grovectl.kinds import find
from grovectl.session import Session, connected_command

if TYPE_CHECKING:
    from grove_client import GroveClient
    from grove_client.containers import Command

_PIECE_BYTES: Final = 32 << 10
_SIZE_DEFAULT: Final = (80, 24)


@click.command("exec")
@click.argument("pod", metavar="POD")
@click.argument("argv", nargs=-1, metavar="-- COMMAND [ARG...]", type=click.UNPROCESSED)
@click.option("-c", "--container", default="", metavar="NAME", help="Beside which container; default: the first one.")
@click.option("-i", "--stdin", "has_input", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", "wants_terminal", is_flag=True, help="Give the command a terminal.")
@connected_command
def execute(
    session: Session, *, pod: str, argv: tuple[str, ...], container: str, has_input: bool, wants_terminal: bool
) -> None:
    """Run a command beside a container; no shell reads it. The exit code is the command's."""
    kind, slash, name = pod.partition("/")
    if slash and (find(kind).kind != "Pod" or not name):
        raise usage(f'"{pod}" is not a pod')
    if not argv:
        raise usage("a command is needed, for example: exec POD -- ls -l")
    if wants_terminal and not (has_input and sys.stdin.isatty()):
        click.echo("warning: no terminal is given, since standard input is none (or -i is missing)", err=True)
        wants_terminal = False
    size = _size() if wants_terminal else None

    async def body(grove: GroveClient) -> int:
        command = await grove.containers.run(
            name if slash else pod,
            argv,
            namespace=session.namespace,
            container=container,
            stdin=has_input,
            terminal=size,
        )
        async with command:
            with _raw_terminal() if size is not None else contextlib.nullcontext():
                return await _converse(command, has_input=has_input, has_terminal=size is not None)

    code = session.run(body)
    if code:
        click.echo(f"command ended with exit code {code}", err=True)
        raise Failure((), code)


def _size() -> tuple[int, int]:
    """Return columns and rows of this terminal."""
    try:
        size = os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        return _SIZE_DEFAULT
    return (size.columns, size.lines) if size.columns and size.lines else _SIZE_DEFAULT


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Let every key reach the command, and give the terminal back as it was."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def _converse(command: Command, *, has_input: bool, has_terminal: bool) -> int:
    """Carry the streams until the command has ended; return its exit code."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def resized() -> None:
        task = loop.create_task(command.resize(*_size()))
        running.add(task)
        task.add_done_callback(running.discard)

    if has_input:
        # A thread, because a file or a terminal cannot be waited for; it ends with the program.
        threading.Thread(target=_read_input, args=(command, loop), daemon=True).start()
    if has_terminal:
        loop.add_signal_handler(signal.SIGWINCH, resized)
    try:
        while (answer := await command.read()) is not None:
            match answer.WhichOneof("output"):
                case "stdout":
                    sys.stdout.buffer.write(answer.stdout)
                    sys.stdout.buffer.flush()
                case "stderr":
                    sys.stderr.buffer.write(answer.stderr)
                    sys.stderr.buffer.flush()
                case "exit":
                    return answer.exit.exit_code
                case _:
                    # A word that a newer server has.
                    continue
    finally:
        if has_terminal:
            loop.remove_signal_handler(signal.SIGWINCH)
    raise Failure("the command's end was not told")


def _read_input(command: Command, loop: asyncio.AbstractEventLoop) -> None:
    """Pass standard input on, each piece after the one before is on its way."""
    descriptor = sys.stdin.fileno()
    # When the program ends first, nobody waits for the last piece.
    with contextlib.suppress(RuntimeError, OSError, CancelledError):
        while piece := os.read(descriptor, _PIECE_BYTES):
            asyncio.run_coroutine_threadsafe(command.write(piece), loop).result()
        asyncio.run_coroutine_threadsafe(command.end_input(), loop).result()
