"""The repository's own files, as the tidy tests read them.

The tree is walked rather than asked of git: the tests also run from an archive, and new files count before they are
added. A finding is one line, ``path:line: what``, so that an editor can jump to it.
"""

import ast
import io
import os
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
# Folders that hold nothing of ours: environments, what is made, what tools remember.
FOREIGN: Final = frozenset(
    {".git", ".hypothesis", ".venv", "__pycache__", "build", "dist", "node_modules", "target", "third_party"}
)
GENERATED: Final = (ROOT / "clients" / "python" / "grove",)
TEXT_SUFFIXES: Final = frozenset(
    {"", ".cfg", ".go", ".in", ".ini", ".json", ".md", ".proto", ".py", ".rs", ".sh", ".toml", ".txt", ".yaml", ".yml"}
)
PURE_ROOMS: Final = (
    "grove_server/resources",
    "grove_server/admission",
    "grove_server/lifecycle",
    "grove_server/placement",
    "autoscaler/deciding.py",
    "autoscaler/decision.py",
    "autoscaler/demand",
    "autoscaler/memory.py",
    "autoscaler/observation.py",
    "autoscaler/policy.py",
    "autoscaler/weighing.py",
    "autoscaler/remembering.py",
    "autoscaler/explaining.py",
    "autoscaler/shaping",
    "autoscaler/sizing",
    "autoscaler/validating.py",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One hand-written Python file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path within the repository, as findings print it."""
        return self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else self.path.as_posix()

    @property
    def tree(self) -> ast.Module:
        """The parsed module."""
        return ast.parse(self.text, filename=self.name)

    def comments(self) -> Iterator[tuple[int, str]]:
        """Yield each comment with its line number."""
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string

    def finding(self, line: int, what: str) -> str:
        """Return one line that names the place."""
        return f"{self.name}:{line}: {what}"


def snippet(text: str) -> Module:
    """Return a module that exists only in a test of the checks themselves."""
    return Module(path=Path("snippet.py"), text=text)


@lru_cache(maxsize=1)
def files() -> tuple[Path, ...]:
    """Return every file of the repository, sorted."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            name for name in folders if name not in FOREIGN and not name.endswith(("_cache", ".egg-info"))
        )
        found.extend(Path(folder) / name for name in names)
    return tuple(sorted(found))


def is_generated(path: Path) -> bool:
    """Tell whether a tool wrote the file."""
    return any(path.is_relative_to(folder) for folder in GENERATED)


@lru_cache(maxsize=1)
def modules() -> tuple[Module, ...]:
    """Return every hand-written Python module."""
    return tuple(
        Module(path=path, text=path.read_text(encoding="utf-8"))
        for path in files()
        if path.suffix == ".py" and not is_generated(path)
    )


def modules_under(*folders: str) -> tuple[Module, ...]:
    """Return the hand-written modules of some folders, given relative to the root."""
    return tuple(m for m in modules() if any(m.path.is_relative_to(ROOT / folder) for folder in folders))


@lru_cache(maxsize=1)
def texts() -> tuple[tuple[str, str], ...]:
    """Return name and content of every text file, generated ones included."""
    return tuple(
        (path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in files()
        if path.suffix in TEXT_SUFFIXES and path.name != ".git"
    )


def documents() -> tuple[tuple[str, str], ...]:
    """Return name and content of every Markdown file."""
    return tuple((name, text) for name, text in texts() if name.endswith(".md"))
