"""Logs: structlog to standard error, one event per line, JSON unless a terminal reads it.

Rules: an event is a constant in snake_case and past tense (``set_applied``), values are keys, never formatted into it.
Keys come from one list: request_id, method, code, reason, duration_s, peer, identity, namespace, name, kind, gang,
node, resource_version. Objects as ``namespace/name``. info: state changed; warning: less well; error: a person
must act. Libraries and pure rooms never log.

Standard output stays free for the ready line. Lines of the standard library's loggers pass through the same renderer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TextIO, cast

import orjson
import structlog

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

# Longer values are cut: a line must stay a line, whoever chose the value.
VALUE_LENGTH_MAX: Final = 2_000


class Logger(Protocol):
    """What the server's rooms use of a logger."""

    def bind(self, **values: object) -> Logger:
        """Return a logger that adds these values to every line."""

    def debug(self, event: str, **values: object) -> None:
        """Say what only a developer wants to know."""

    def info(self, event: str, **values: object) -> None:
        """Say that state changed."""

    def warning(self, event: str, **values: object) -> None:
        """Say that the server goes on, but less well."""

    def error(self, event: str, **values: object) -> None:
        """Say that a person must act."""

    def exception(self, event: str, **values: object) -> None:
        """Say that a person must act, with the traceback of the exception being handled."""


def get_logger(room: str) -> Logger:
    """Return the logger of a room; lines carry its name as ``room``."""
    # structlog's proxies are typed Any; the protocol above is what is used of them.
    return cast("Logger", structlog.get_logger(room=room))


def _cut_long_values(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > VALUE_LENGTH_MAX and key != "exception":
            event[key] = f"{value[:VALUE_LENGTH_MAX]}… ({len(value)} characters)"
    return event


def set_up_logs(*, log_format: LogFormat | None = None, level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Configure logging for the process; format None means console on a terminal and JSON elsewhere."""
    target = stream if stream is not None else sys.stderr
    if log_format is None:
        log_format = "console" if target.isatty() else "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _cut_long_values,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    _set_up_foreign_logs(target, shared, renderer, level)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )


def _set_up_foreign_logs(
    target: TextIO,
    shared: Sequence[structlog.typing.Processor],
    renderer: structlog.typing.Processor,
    level: LogLevel,
) -> None:
    """Let lines of the standard library's loggers look like ours."""
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # grpc reports on its own loggers what the pipeline reports better (a handler's exception, with its text).
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    logging.getLogger("grpc.aio").setLevel(logging.CRITICAL)


def _to_json(event: Mapping[str, object], **_options: object) -> str:
    return orjson.dumps(event, default=str).decode()


def bind_context(values: Mapping[str, object]) -> None:
    """Add values to every line of the current task."""
    structlog.contextvars.bind_contextvars(**values)


def clear_context() -> None:
    """Forget what was bound in the current task."""
    structlog.contextvars.clear_contextvars()
