"""How a fake pod behaves, read from its ``fake.grove.io/*`` annotations. Pure.

Annotations come from the pod's template; those of the pod itself override them one by one. A value that cannot be read
counts as the default and is reported in words, so that the runtime can say so in an event: a typo in a simulation must
not stop the system that is being simulated.

===================  =========  ====================================================================================
annotation           default    meaning
===================  =========  ====================================================================================
``start-delay``      ``0s``     from being bound to a node to Running
``ready-delay``      ``0s``     from each start of the containers to Ready
``crash-after``      never      from each start of the containers to their end
``crash-times``      no limit   how many starts end that way; the next one keeps running
``exit-code``        ``1``      what the containers exit with when they end (0 to 255)
``stop-delay``       ``0s``     from being asked to stop to gone; the grace period of the pod ends it earlier
``ignore-sigterm``   ``false``  ``true``: only the end of the grace period stops the pod
===================  =========  ====================================================================================

Durations are written as in Kubernetes (``1m30s``, ``250ms``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grove_server.resources.duration import DurationError, parse_duration
from grove_server.resources.violations import quoted

PREFIX: Final = "fake.grove.io/"
# A year: longer waits are typing errors, and the due time stays a sane number.
DELAY_MAX_S: Final = 365 * 24 * 3600.0
CRASH_TIMES_MAX: Final = 1_000_000
EXIT_CODE_MAX: Final = 255
# The default of terminationGracePeriodSeconds in Kubernetes.
GRACE_PERIOD_DEFAULT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the containers of a fake pod do; None means never (``crash_after_s``) or without limit (``crash_times``)."""

    start_delay_s: float = 0.0
    ready_delay_s: float = 0.0
    crash_after_s: float | None = None
    crash_times: int | None = None
    exit_code: int = 1
    stop_delay_s: float = 0.0
    ignores_sigterm: bool = False
    grace_period_s: float = GRACE_PERIOD_DEFAULT_S
    restart_policy: str = "Always"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBehaviour:
    """A behaviour and, in words, the annotations that could not be read."""

    behaviour: Behaviour
    problems: tuple[str, ...] = ()


class _ValueError(ValueError):
    """An annotation's value is not what it should be; the text says what it should be."""


def _delay_s(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except DurationError as error:
        raise _ValueError("must be a duration such as 1m30s") from error
    if not 0 <= seconds <= DELAY_MAX_S:
        raise _ValueError("must be between 0s and 8760h")
    return seconds


def _whole_number(text: str, most: int) -> int:
    # Not int(): it takes spaces, signs, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise _ValueError(f"must be a whole number from 0 to {most}")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise _ValueError("must be true or false")
    return text == "true"


_READERS: Final[Mapping[str, tuple[str, Callable[[str], float | int | bool]]]] = {
    "start-delay": ("start_delay_s", _delay_s),
    "ready-delay": ("ready_delay_s", _delay_s),
    "crash-after": ("crash_after_s", _delay_s),
    "crash-times": ("crash_times", lambda text: _whole_number(text, CRASH_TIMES_MAX)),
    "exit-code": ("exit_code", lambda text: _whole_number(text, EXIT_CODE_MAX)),
    "stop-delay": ("stop_delay_s", _delay_s),
    "ignore-sigterm": ("ignores_sigterm", _flag),
}


def read_behaviour(
    template_annotations: Mapping[str, str], pod_annotations: Mapping[str, str], pod_spec: Mapping[str, Any]
) -> ReadBehaviour:
    """Return how a pod behaves; annotations that are unknown or unreadable are listed as problems."""
    annotations = {**template_annotations, **pod_annotations}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key in sorted(annotations):
        if not key.startswith(PREFIX):
            continue
        reader = _READERS.get(key.removeprefix(PREFIX))
        if reader is None:
            known = ", ".join(_READERS)
            problems.append(f"{key}: unknown; known are {known}")
            continue
        field, read = reader
        text = annotations[key]
        try:
            values[field] = read(text)
        except _ValueError as error:
            problems.append(f"{key}: {error}, got {quoted(text)}; the default is used")
    grace_period_s = pod_spec.get("terminationGracePeriodSeconds")
    if grace_period_s is not None:
        values["grace_period_s"] = float(grace_period_s)
    restart_policy = pod_spec.get("restartPolicy")
    if restart_policy:
        values["restart_policy"] = restart_policy
    return ReadBehaviour(behaviour=Behaviour(**values), problems=tuple(problems))
