"""Files of manifests: YAML or JSON text in, documents with their number and line out.

The text is cut at its ``---`` lines first, so that a document with a mistake in its syntax does not hide the others. An
empty document is skipped, a ``v1`` List is its items. How YAML is read, and what bounds it has, is in ``yaml_text``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from grove_server.resources.schema import NESTING_MAX
from grove_server.resources.violations import quoted
from grove_server.resources.yaml_text import Budget, Composer, UnreadableError

TEXT_SIZE_MAX_BYTES: Final = 4 * 1024 * 1024
DOCUMENTS_MAX: Final = 1000

_SEPARATOR: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a file.

    ``number`` counts the documents that are not empty, from 1; ``item`` is its place in a ``v1`` List, from 0, or None.
    """

    number: int
    line: int
    item: int | None = None
    content: dict[str, Any]

    def to_json(self) -> bytes:
        """Return the object as JSON, as the schema reads it."""
        return json.dumps(self.content).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a document cannot be read; number 0 means the text as a whole."""

    number: int
    line: int
    message: str

    def __str__(self) -> str:
        """Return where and what."""
        return f"document {self.number}, line {self.line}: {self.message}" if self.number else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What a text holds: the documents that can be read, and a problem for each that cannot."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def read_documents(data: bytes) -> Documents:
    """Return the documents of a file; never raises for what the file holds."""
    if len(data) > TEXT_SIZE_MAX_BYTES:
        return _unreadable_whole(f"the text must have at most {TEXT_SIZE_MAX_BYTES} bytes, has {len(data)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _unreadable_whole(f"the text must be UTF-8; byte {error.start} is not")
    documents: list[Document] = []
    problems: list[Problem] = []
    budget = Budget()
    number = 0
    for line, chunk in _chunks(text):
        number += 1
        try:
            contents = _read_chunk(chunk, line, budget)
        except UnreadableError as unreadable:
            problems.append(Problem(number=number, line=unreadable.line, message=unreadable.message))
            continue
        if not contents:
            number -= 1
        for position, (at, content) in enumerate(contents):
            number += position > 0
            _add(documents, problems, number, at, content)
        if number > DOCUMENTS_MAX or len(documents) > DOCUMENTS_MAX:
            return _unreadable_whole(f"the text must have at most {DOCUMENTS_MAX} documents")
    return Documents(documents=tuple(documents), problems=tuple(problems))


def _unreadable_whole(message: str) -> Documents:
    return Documents(documents=(), problems=(Problem(number=0, line=1, message=message),))


def _add(documents: list[Document], problems: list[Problem], number: int, line: int, content: object) -> None:
    """Add one document, or the items of a ``v1`` List."""
    if not isinstance(content, dict):
        message = f"a document must be a map with apiVersion and kind, got {quoted(content)}"
        problems.append(Problem(number=number, line=line, message=message))
        return
    if content.get("kind") != "List" or content.get("apiVersion") != "v1":
        documents.append(Document(number=number, line=line, content=content))
        return
    items = content.get("items") or []
    if not isinstance(items, list):
        problems.append(Problem(number=number, line=line, message=f"items must be a list, got {quoted(items)}"))
        return
    for index, item in enumerate(items):
        if isinstance(item, dict):
            documents.append(Document(number=number, line=line, item=index, content=item))
        else:
            message = f"items[{index}] must be a map, got {quoted(item)}"
            problems.append(Problem(number=number, line=line, message=message))


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yield the parts between ``---`` lines, with the line each begins on; the marker itself is blanked out."""
    start, line = 0, 1
    for match in _SEPARATOR.finditer(text):
        chunk = text[start : match.start()]
        yield line, chunk
        line += chunk.count("\n")
        # What follows the marker on its line belongs to the document.
        start = match.end()
    yield line, text[start:]


def _read_chunk(chunk: str, line: int, budget: Budget) -> list[tuple[int, Any]]:
    """Return the documents of one part (more than one where ``...`` ends them), without empty ones."""
    stripped = chunk.lstrip()
    if not stripped:
        return []
    if stripped.startswith("{"):
        first_line = line + chunk[: len(chunk) - len(stripped)].count("\n")
        try:
            content = json.loads(stripped, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
        except json.JSONDecodeError:
            # A YAML flow map begins the same way.
            pass
        except RecursionError:
            raise UnreadableError(first_line, f"must not be nested deeper than {NESTING_MAX} levels") from None
        except UnreadableError as unreadable:
            raise UnreadableError(first_line, unreadable.message) from None
        except ValueError:
            # Python reads no number of more than 4300 digits.
            raise UnreadableError(first_line, "numbers must fit into 64 bits") from None
        else:
            budget.spend_on(content, 1, first_line)
            return [(first_line, content)]
    return Composer(chunk, line, budget).documents()


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnreadableError(1, f"key {quoted(twice)} is given twice in one map")
    return unique


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(1, f"numbers must be finite, got {name}")
