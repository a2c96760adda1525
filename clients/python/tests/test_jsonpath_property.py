"""Whatever a user types as a jsonpath, it either prints something or is refused with a sentence."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_client.objects import Json
from grovectl.failures import Failure
from grovectl.jsonpath import parse

_DOCUMENT: dict[str, Json] = {"a": [{"b": 1, "c": "x"}, {"b": None}, [1, 2, 3]], "b": {"a": True}}
_WORDS = r""". .. a b * [ ] 0 -1 : , { } ?( ) @ $ == < 'x' " \ 1 {end} {.a[?(@.b==1)]}"""
_PIECES = st.sampled_from([*_WORDS.split(), "range ", "{range .a[*]}", " ", "\n", "é"])


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=14).map("".join))
def test_any_template_prints_or_is_refused(source: str) -> None:
    """No text makes the parser or the evaluation crash."""
    with suppress(Failure):
        template = parse(source)
        assert isinstance(template.render(_DOCUMENT), str)
        assert template.values(_DOCUMENT) is not None
