"""Label selectors: meaning, canonical text, and where a mistake is."""

from __future__ import annotations

import pytest

from grove_server.resources.selector import EVERYTHING, SelectorError, parse_selector


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("a=b", {"a": "b"}, {"a": "c"}),
        ("a==b", {"a": "b"}, {}),
        ("a!=b", {}, {"a": "b"}),
        ("a", {"a": ""}, {"b": ""}),
        ("!a", {"b": ""}, {"a": ""}),
        ("a=", {"a": ""}, {"a": "b"}),
        ("a in (b,c)", {"a": "c"}, {"a": "d"}),
        ("a in(b)", {"a": "b"}, {}),
        ("a notin (b, c)", {}, {"a": "c"}),
        ("a in ()", {"a": ""}, {"a": "b"}),
        (" a = b , !c ", {"a": "b"}, {"a": "b", "c": ""}),
        ("in in (in)", {"in": "in"}, {"in": "notin"}),
        ("x.io/a=1,x.io/a!=2", {"x.io/a": "1"}, {"x.io/a": "2"}),
    ],
)
def test_matches(text: str, matching: dict[str, str], other: dict[str, str]) -> None:
    """A selector matches what Kubernetes' would."""
    selector = parse_selector(text)
    assert selector.matches(matching)
    assert not selector.matches(other)
    assert parse_selector(str(selector)).matches(matching)


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_asked_matches_everything(text: str) -> None:
    """An empty selector has no requirements."""
    assert parse_selector(text) == EVERYTHING
    assert EVERYTHING.matches({})


def test_canonical_text_does_not_depend_on_order() -> None:
    """Selectors that ask the same have the same text."""
    assert str(parse_selector("b notin (y,x),!c,a=1")) == str(parse_selector("!c, a in (1), b notin (x, y)"))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a=b c", 5),
        ("=b", 1),
        ("a,", 3),
        (",a", 1),
        ("a in b", 6),
        ("a in (b", 8),
        ("a in (b c)", 9),
        ("a is b", 3),
        ("a=(", 3),
        ("!", 2),
        ("a//b=c", 1),
        ("a=" + "b" * 64, 3),
        ("a)", 2),
    ],
)
def test_mistakes_have_a_position(text: str, position: int) -> None:
    """The first mistake is reported with the character it begins at."""
    with pytest.raises(SelectorError) as caught:
        parse_selector(text)
    assert caught.value.position == position


@pytest.mark.parametrize(
    "text", ["a" * 5000, ",".join(f"k{i}" for i in range(65)), f"a in ({','.join(str(i) for i in range(300))})"]
)
def test_is_bounded(text: str) -> None:
    """Long selectors are refused."""
    with pytest.raises(SelectorError, match="at most"):
        parse_selector(text)
