"""A dump of a server goes on in the simulator: it converges, twice the same way, and inputs have their effect again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from grove_server.control.dump import Dump, read_dump
from grove_server.resources.workload import PodCliqueSet
from tests.simulation.__main__ import main
from tests.simulation.dumps import go_on
from tests.simulation.world import World


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """Return a dump of a server in the middle of its work."""
    world = World("dumps", nodes=6, nodes_per_rack=2, sets_max=5, is_thorough=False, steps_aside=False)
    world.start_server()
    world.run_for(0.1)
    for _ in range(4):
        world.users.apply_new(world.serving)
        world.run_for(3.0)
    for _ in range(8):
        world.users.edit(world.serving)
        world.users.scale_group(world.serving)
        world.run_for(0.7)
    taken = [*world.serving.plane.chronicle.dump({"runtime": "simulated"}).lines()]
    world.bury()
    return taken


@pytest.fixture(scope="module")
def dump(lines: list[bytes]) -> Dump:
    """Return it as it is read."""
    return read_dump(lines)


def specs(rows: object) -> dict[str, object]:
    """Return what users want, by set."""
    assert isinstance(rows, dict)
    return {row.metadata.name: row.spec for row in rows.values() if isinstance(row, PodCliqueSet)}


def test_a_dump_goes_on_and_converges(dump: Dump) -> None:
    """From the moment of the dump everything becomes as it should be, and a second run does exactly the same."""
    first, again = go_on(dump), go_on(dump)
    assert first.differences == []
    assert first.digest == again.digest
    assert specs(first.rows) == specs(dump.state())


def test_inputs_are_replayed(dump: Dump) -> None:
    """From before the first change, what users did leads to the same sets again."""
    ended = go_on(dump, with_inputs=True)
    assert ended.differences == []
    assert (ended.inputs > 4, ended.inputs_lost) == (True, 0)
    assert specs(ended.rows) == specs(dump.state())
    assert ended.digest == go_on(dump, with_inputs=True).digest


def test_the_program_loads_a_file(
    lines: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--load FILE` tells how the run ended."""
    file = tmp_path / "state.jsonl"
    file.write_bytes(b"".join(lines))
    monkeypatch.setattr("sys.argv", ["simulation", "--load", str(file), "--inputs"])
    assert main() == 0
    out = capsys.readouterr().out
    assert "all is as it should be" in out
    assert "0 of them lost" in out


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda _: b"{}", "line 1: not a dump of format"),
        (lambda _: b"", "line 1: not a dump of format"),
        (lambda _: b"\xff\x00", "line 1: not JSON"),
        (lambda _: b"[" * 100_000, "line 1: not JSON"),
        (lambda whole: b"".join(whole[:-1]), "the dump was cut off"),
        (lambda whole: b"".join(whole)[:-9], "not JSON"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_dump_is_refused_in_one_line(
    damage: Callable[[list[bytes]], bytes] | None,
    told: str,
    lines: list[bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that is none, was cut off, or is not there, ends the program with status 2 and says why."""
    file = tmp_path / "state.jsonl"
    if damage is not None:
        file.write_bytes(damage(lines))
    monkeypatch.setattr("sys.argv", ["simulation", "--load", str(file)])
    assert main() == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith(f"error: {file}: ")
    assert told in errors
    assert errors.count("\n") == 1
