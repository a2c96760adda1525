"""The state machine in the documentation is the one in the code."""

from grove_server.lifecycle.machine import diagram
from tests.tidy.sources import ROOT


def test_the_diagram_is_that_of_the_code() -> None:
    """docs/lifecycle.md holds exactly what the tables of lifecycle.machine draw."""
    text = (ROOT / "docs" / "lifecycle.md").read_text(encoding="utf-8")
    assert diagram().rstrip() in text
    assert text.count("stateDiagram-v2") == diagram().count("stateDiagram-v2")
