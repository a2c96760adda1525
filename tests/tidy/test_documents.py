"""What the documents tell a reader to type, open or look at exists."""

import importlib.metadata
import re
import tomllib
from typing import Final

import pytest

from tests.tidy.sources import ROOT, documents
from tests.tidy.tables import autoscaler_metric_names, metric_names, rpcs

MAKE: Final = re.compile(r"(?:`|^\s{4}|^\$ )make ([a-z][a-z-]*)", re.MULTILINE)
TARGET: Final = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
LINK: Final = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
METRIC: Final = re.compile(r"`((?:grove|grpc_server)_[a-z_]+)(?:\{[^}]*\})?`")
METHOD: Final = re.compile(r"\b(grove\.v1\.\w+Service/\w+)\b")
# The names of packages look like metrics; they are folders of the repository.
PACKAGES: Final = frozenset({"grove_client", "grove_server"})
ADR_PARTS: Final = ("## Context", "## Decision", "## Consequences", "## Rejected alternatives")


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("name", "text"), documents(), ids=[name for name, _ in documents()])
def test_commands_links_and_names_exist(name: str, text: str) -> None:
    """Make targets, relative links, metrics and RPCs that a document mentions are there."""
    assert sorted(set(MAKE.findall(text)) - targets()) == []
    assert [link for link in LINK.findall(text) if not ((ROOT / name).parent / link).exists()] == []
    assert sorted(set(METRIC.findall(text)) - set(metric_names()) - autoscaler_metric_names() - PACKAGES) == []
    assert sorted({f"/{method}" for method in METHOD.findall(text)} - set(rpcs())) == []


def test_every_target_is_phony_and_has_a_help_line() -> None:
    """`make` alone tells what each target does, and no file of the same name can shadow it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, re.MULTILINE)) == targets()
    assert set(re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE)) == targets()


def test_the_changelog_starts_with_what_is_unreleased() -> None:
    """CHANGELOG.md keeps a changelog: Unreleased on top, then versions, newest first, and this version among them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    versions = [tuple(int(part) for part in heading.split(".")) for heading in headings[1:]]
    assert versions == sorted(versions, reverse=True)
    known = {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= known


def test_decisions_are_numbered_and_complete() -> None:
    """Each decision record has its number, its parts, and a status."""
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert [part for part in (*ADR_PARTS, "Status: ") if part not in text] == [], record.name


def test_the_two_distributions_agree() -> None:
    """The server asks for exactly the client of its own version, and both for the same Python."""
    server, client = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))
        for folder in (".", "clients/python")
    )
    # The client's version stands in a module that its project file names.
    source = ROOT / "clients" / "python" / client["tool"]["hatch"]["version"]["path"]
    versions = re.findall(r'^__version__ = "([^"]+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    assert versions == [server["project"]["version"]]
    assert f"grove-client=={versions[0]}" in server["project"]["dependencies"]
    assert server["project"]["requires-python"] == client["project"]["requires-python"]


def test_the_programs_of_the_contract_are_installed() -> None:
    """Set-up puts grove-server and grovectl beside the interpreter."""
    scripts = {script.name for script in importlib.metadata.entry_points(group="console_scripts")}
    assert {"grove-server", "grovectl"} <= scripts
