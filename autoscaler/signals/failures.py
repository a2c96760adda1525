"""Why a source of signals gave nothing: one error with a reason from a closed list.

The reason is a label of metrics and a word of `explain`, so there are few and they never carry a value; the message is
for people and never carries a credential. Not here: what follows for scaling (unknown is never zero).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Failure(StrEnum):
    """Why a question to a source has no answer."""

    UNREACHABLE = "Unreachable"
    TIMEOUT = "Timeout"
    UNAUTHORIZED = "Unauthorized"
    REFUSED = "Refused"
    UNAVAILABLE = "Unavailable"
    TOO_LARGE = "TooLarge"
    MALFORMED = "Malformed"
    QUERY = "QueryFailed"
    WRONG_TIME = "WrongTime"
    CREDENTIALS = "Credentials"


# What may be otherwise in a moment. A wrong query, a refusal or too much data will be the same again.
_PASSING: Final = frozenset({Failure.UNREACHABLE, Failure.TIMEOUT, Failure.UNAVAILABLE})


class SourceError(Exception):
    """A source did not answer a question; ``failure`` says why."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure

    @property
    def is_passing(self) -> bool:
        """Whether asking again at once may help."""
        return self.failure in _PASSING
