"""What is imported is declared, and what is declared is pinned."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Final

import pytest

from tests.tidy.sources import ROOT, Module, modules_under

NAME: Final = re.compile(r"^[A-Za-z0-9._-]+")
OURS: Final = frozenset({"grove-client", "grove-server"})


def canonical(requirement: str) -> str:
    """Return the distribution's name of a requirement, in its one spelling."""
    found = NAME.match(requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def imported(module: Module) -> set[str]:
    """Return the dotted names of the modules that a module imports."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def distribution_of(name: str) -> str | None:
    """Return the distribution that a module comes from; None for the standard library and our own packages."""
    top = name.split(".", maxsplit=1)[0]
    if top in sys.stdlib_module_names or top in {"autoscaler", "grove", "grove_client", "grove_server", "grovectl"}:
        return None
    if top == "google":
        return "protobuf" if name.startswith("google.protobuf") else "googleapis-common-protos"
    providers = [canonical(provider) for provider in packages_distributions().get(top, [top])]
    return providers[0]


@pytest.mark.parametrize(
    ("project", "folders"),
    [
        pytest.param(".", ("grove_server", "autoscaler"), id="server"),
        pytest.param("clients/python", ("clients/python/grove_client", "clients/python/grovectl"), id="client"),
    ],
)
def test_what_is_imported_is_declared(project: str, folders: tuple[str, ...]) -> None:
    """Each third-party import of a distribution is among its dependencies, or those of one of its extras."""
    metadata = tomllib.loads((ROOT / project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in metadata.get("optional-dependencies", {}).values() for requirement in extra]
    declared = {canonical(requirement) for requirement in (*metadata["dependencies"], *extras)}
    used = {distribution_of(name) for module in modules_under(*folders) for name in imported(module)} - {None}
    assert {name for name in used if name is not None} - declared == set()


def test_what_is_declared_is_pinned() -> None:
    """Each dependency of both distributions has an exact version in requirements/run.txt, and the same in dev.txt."""
    pins = {
        name: dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / name).read_text("utf-8"), re.MULTILINE))
        for name in ("run.txt", "dev.txt")
    }
    for project in (".", "clients/python"):
        metadata = tomllib.loads((ROOT / project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert {canonical(r) for r in metadata["dependencies"]} - OURS - pins["run.txt"].keys() == set()
    assert pins["run.txt"].items() <= pins["dev.txt"].items()


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_every_pin_has_a_hash(name: str) -> None:
    """No requirement is taken on its version alone."""
    requirements = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", " ").splitlines()
    assert [line for line in requirements if line.strip() and not line.startswith("#") and "--hash=" not in line] == []
