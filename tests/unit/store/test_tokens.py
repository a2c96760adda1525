"""Resume tokens."""

from __future__ import annotations

import pytest

from grove_server.store import tokens
from grove_server.store.errors import TokenInvalidError


@pytest.mark.parametrize("version", [0, 1, 2**40, tokens.VERSION_MAX])
def test_a_token_carries_epoch_and_version(version: int) -> None:
    """What was put in comes out, and the text has the declared length."""
    token = tokens.mint(2**63 - 1, version)
    assert len(token) == tokens.TEXT_LENGTH
    assert tokens.parse(token) == (2**63 - 1, version)


def test_any_single_wrong_character_is_noticed() -> None:
    """The checksum sees every change of one character."""
    token = tokens.mint(1, 2)
    for place, character in enumerate(token):
        wrong = token[:place] + ("B" if character == "A" else "A") + token[place + 1 :]
        with pytest.raises(TokenInvalidError):
            tokens.parse(wrong)
