"""Files of manifests: YAML as kubectl reads it, several documents, bombs and other traps."""

from __future__ import annotations

import json

import pytest

from grove_server.resources.document import DOCUMENTS_MAX, TEXT_SIZE_MAX_BYTES, read_documents


def contents_of(text: str) -> list[dict[str, object]]:
    """Return the contents of documents that can all be read."""
    found = read_documents(text.encode())
    assert found.problems == ()
    return [document.content for document in found.documents]


def problem_in(text: str | bytes) -> tuple[int, int, str]:
    """Return number, line and message of the only problem of a text without other documents."""
    found = read_documents(text if isinstance(text, bytes) else text.encode())
    (problem,) = found.problems
    return problem.number, problem.line, problem.message


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("no", False),
        ("OFF", False),
        ("N", False),
        ("yEs", "yEs"),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-12", -12),
        ("1_000", 1000),
        ("010", 8),
        ("08", 8),
        ("0x1F", 31),
        ("0b101", 5),
        ("0o17", 15),
        ("1.5", 1.5),
        ("3.0", 3),
        ("1e3", 1000),
        ("1:30", "1:30"),
        ("10m", "10m"),
        ("16Gi", "16Gi"),
        ("1.2.3", "1.2.3"),
        ("2001-01-01", "2001-01-01"),
        ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ("!!str 1", "1"),
        ("!!int 1", 1),
        ("! 1", "1"),
        ("!!null ''", None),
        ("-", None),
    ],
)
def test_scalars_mean_what_they_mean_to_kubectl(scalar: str, value: object) -> None:
    """Plain scalars are resolved as Go's yaml.v2 does it."""
    if scalar == "-":
        assert contents_of("a:\n-\n") == [{"a": [None]}]
    else:
        (content,) = contents_of(f"a: {scalar}\n")
        assert content == {"a": value}
        assert type(content["a"]) is type(value)


def test_keys_are_strings() -> None:
    """Numbers and booleans become strings where a key must be one."""
    assert contents_of("1: a\ntrue: b\n1.5: c\n") == [{"1": "a", "true": "b", "1.5": "c"}]


def test_aliases_and_merges() -> None:
    """Anchors can be used again, and maps merged, the map's own keys winning."""
    text = "a: &x {k: 1, l: 2}\nb: *x\nc:\n  <<: *x\n  l: 3\nd: {<<: [*x, {m: 4}]}\n"
    (content,) = contents_of(text)
    assert content["b"] == {"k": 1, "l": 2}
    assert content["c"] == {"k": 1, "l": 3}
    assert content["d"] == {"k": 1, "l": 2, "m": 4}


def test_documents_are_numbered_without_empty_ones() -> None:
    """Empty documents are skipped; each other has its number and the line it begins on."""
    found = read_documents(b'---\n# comment\n---\na: 1\n---\n---\n\n{"b": 2}\n--- \nc: 3\n...\n')
    assert [(document.number, document.line, document.content) for document in found.documents] == [
        (1, 4, {"a": 1}),
        (2, 8, {"b": 2}),
        (3, 10, {"c": 3}),
    ]


def test_a_mistake_in_one_document_does_not_hide_the_others() -> None:
    """Each document that cannot be read has a problem; the others are there."""
    found = read_documents(b"a: 1\n---\nb: [1\n---\nc: 1\nc: 2\n---\nd: 4\n")
    assert [(document.number, document.content) for document in found.documents] == [(1, {"a": 1}), (4, {"d": 4})]
    assert [(problem.number, problem.line) for problem in found.problems] == [(2, 4), (3, 6)]
    assert str(found.problems[1]) == 'document 3, line 6: key "c" is given twice in one map'


def test_lists_are_unrolled() -> None:
    """The items of a v1 List are documents that share its number."""
    found = read_documents(b"apiVersion: v1\nkind: List\nitems:\n- a: 1\n- 5\n- b: 2\n")
    assert [(document.number, document.item, document.content) for document in found.documents] == [
        (1, 0, {"a": 1}),
        (1, 2, {"b": 2}),
    ]
    assert found.problems[0].message == "items[1] must be a map, got 5"
    assert contents_of('{"apiVersion": "v1", "kind": "List", "items": null}') == []


def test_json_is_read_as_json() -> None:
    """A JSON document may be indented with tabs, and is turned back into the same JSON."""
    text = '{\n\t"a": [1, 2.5, "x"]\n}'
    (document,) = read_documents(text.encode()).documents
    assert json.loads(document.to_json()) == json.loads(text)


def test_yaml_bombs_are_refused() -> None:
    """Aliases count as if they were written out, so that nine lines cannot become a billion values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    number, line, message = problem_in("\n".join(lines))
    assert (number, line) == (1, 6)
    assert "200000 values" in message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: &a [*a]", 1, "alias a contains itself"),
        ("x: 1\na: *b", 2, "alias b is not defined"),
        ("[" * 100_000, 1, "nested deeper than 64"),
        ("- " * 500, 1, "nested deeper than 64"),
        ('{"a":' * 5_000, 1, "nested deeper than 64"),
        ('{"a":' + "[" * 100 + "]" * 100 + "}", 1, "nested deeper than 64"),
        ("a: &a0 [1]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}]\n" for i in range(100)), 64, "nested deeper than 64"),
        ("a: 1\nb:\n  c: 1\n  c: 2", 4, 'key "c" is given twice'),
        ('{"a": 1, "a": 2}', 1, 'key "a" is given twice'),
        ("1: a\n'1': b", 2, "given twice"),
        ("a: !!python/object:os.system x", 1, "tag"),
        ("a: !!int x", 1, "does not fit its tag int"),
        ("a: !custom [1]", 1, "is not supported"),
        ("a: .inf", 1, "finite"),
        ("a: 1e999", 1, "too large"),
        ('{"a": NaN}', 1, "finite"),
        ('{"a": ' + "9" * 5000 + "}", 1, "64 bits"),
        ("{[1]: 2}", 1, "keys must be strings"),
        ("~: 2", 1, "keys must be strings, got null"),
        ("a: {<<: 5}", 1, "<< must be given maps"),
        ("- 1", 1, "must be a map with apiVersion and kind, got a list"),
        ("hello", 1, 'must be a map with apiVersion and kind, got "hello"'),
        ("a: \x01", 1, "characters that are not allowed"),
        ("a: b: c", 1, "must be valid YAML"),
        ("a: 1\n\tb: 2", 2, "must be valid YAML"),
        ("apiVersion: v1\nkind: List\nitems: 5", 1, "items must be a list"),
    ],
)
def test_mistakes_have_a_line(text: str, line: int, message: str) -> None:
    """What cannot be read is reported with its line."""
    number, at, said = problem_in(text)
    assert number == 1
    assert at == line
    assert message in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: \xff", "byte 3 is not"),
        (b"x" * (TEXT_SIZE_MAX_BYTES + 1), "at most"),
        (b"a: 1\n---\n" * (DOCUMENTS_MAX + 1), "at most 1000 documents"),
    ],
)
def test_refuses_the_text_as_a_whole(data: bytes, message: str) -> None:
    """A text that is too large, or not UTF-8, has no documents."""
    found = read_documents(data)
    assert found.documents == ()
    assert message in str(found.problems[0])


def test_many_values_over_several_documents_are_refused() -> None:
    """The bound on values is for the whole text."""
    found = read_documents(b"".join(b"a: [" + b"1," * 60_000 + b"]\n---\n" for _ in range(4)))
    assert [document.number for document in found.documents] == [1, 2, 3]
    assert "200000 values" in found.problems[0].message
