"""`debug dump`: takes what is needed to find out what went wrong in a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from grovectl.failures import Failure
from grovectl.session import Session, connected_command

if TYPE_CHECKING:
    from grove_client import GroveClient

_END: Final = '{"end":'


@click.group()
def debug() -> None:
    """Take evidence from a server."""


@debug.command()
@click.argument("file", metavar="FILE|-")
@connected_command
def dump(session: Session, *, file: str) -> None:
    """Write everything the server holds, and its last changes, to FILE as JSON lines.

    The file shows every pod's specification, so that nobody but you may read it. Needs the rights of an operator.
    """
    if file == "-":
        session.run(_to_stdout)
        return
    path = Path(file)
    part = path.with_name(f"{path.name}.part")
    try:
        count = session.run(lambda grove: _to_file(grove, part))
        part.replace(path)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{file} written, {count} lines")


async def _to_stdout(grove: GroveClient) -> None:
    async for lines in grove.dump():
        sys.stdout.write(lines)


async def _to_file(grove: GroveClient, part: Path) -> int:
    """Write the dump to *part*; return the number of its lines. Failure if it was cut off."""
    count = 0
    last = ""
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as out:
        async for lines in grove.dump():
            out.write(lines)
            count += lines.count("\n")
            last = lines or last
    if not last.rstrip("\n").rpartition("\n")[2].startswith(_END):
        raise Failure("the dump was cut off")
    return count
