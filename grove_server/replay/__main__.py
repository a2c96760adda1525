"""The program grove-replay: files in, a report out. Exit codes: 0 all fits, 1 not all fits, 2 the input is wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from grove_server.placement.picture_svg import svg_of
from grove_server.placement.picture_text import text_of
from grove_server.replay.objects import Findings, ReplayError, read_objects
from grove_server.replay.replaying import Replay, replay
from grove_server.replay.report import document, report_lines

EXIT_OK: Final = 0
EXIT_MISFIT: Final = 1
EXIT_INPUT: Final = 2

_WIDTH_DEFAULT: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay what the arguments name; return the exit code."""
    options = _parser().parse_args(arguments)
    findings = Findings()
    try:
        objects = read_objects([*options.nodes, *options.pods], findings)
        found = replay(objects, options.filename, options.topology, options.namespace, findings)
        _write(options, found)
    except ReplayError as error:
        for line in str(error).splitlines():
            print(f"grove-replay: {line}", file=sys.stderr)
        return EXIT_INPUT
    try:
        _show(options, found)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`, say) has enough. Python must not try to flush into the closed pipe at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK if found.fits else EXIT_MISFIT


def _show(options: argparse.Namespace, found: Replay) -> None:
    """Print picture and report."""
    if not options.no_map:
        shown = found.after or found.before
        width = shutil.get_terminal_size((_WIDTH_DEFAULT, 0)).columns if sys.stdout.isatty() else _WIDTH_DEFAULT
        print(text_of(shown.map, width=width, has_colours=_has_colours()))
        print()
    for line in report_lines(found):
        print(_printable(line))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grove-replay",
        description="Show what placement would do with manifests on a real cluster, from files alone.",
        epilog="Take the files with: kubectl get nodes -o json > nodes.json; kubectl get pods -A -o json > pods.json. "
        "One file of both (kubectl get nodes,pods -A -o json) may be named for either.",
    )
    _files(parser, "--nodes", told="v1 List of nodes (and pods), JSON", is_required=True)
    _files(parser, "--pods", told="v1 List of pods, JSON")
    _files(parser, "-f", "--filename", told="manifests to place, YAML or JSON")
    _files(parser, "--topology", told="ClusterTopologyBinding; default: guessed from labels")
    parser.add_argument("-n", "--namespace", default="default", help="namespace of manifests that name none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the picture as SVG")
    parser.add_argument("--no-map", action="store_true", help="leave out the picture")
    return parser


def _files(parser: argparse.ArgumentParser, *flags: str, told: str, is_required: bool = False) -> None:
    parser.add_argument(*flags, action="append", type=Path, metavar="FILE", default=[], required=is_required, help=told)


def _write(options: argparse.Namespace, found: Replay) -> None:
    texts: dict[Path, bytes] = {}
    if options.json is not None:
        texts[options.json] = orjson.dumps(document(found), option=orjson.OPT_INDENT_2) + b"\n"
    if options.svg is not None:
        texts[options.svg] = svg_of((found.after or found.before).map).encode()
    for path, content in texts.items():
        try:
            path.write_bytes(content)
        except OSError as error:
            raise ReplayError(f"{path}: {error.strerror}") from error


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _printable(line: str) -> str:
    """Return a line without control characters: names come from files of others."""
    return "".join(char if char.isprintable() else " " for char in line)


if __name__ == "__main__":
    sys.exit(main())
