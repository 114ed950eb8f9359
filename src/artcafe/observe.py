"""Logs and the clock: how the platform is watched. Events with fields, never a token, a key or a payload."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Clock = Callable[[], datetime]
"""Aware UTC time. One is passed in wherever time decides something."""

SECRET_FIELDS: Final = frozenset(
    {"access_token", "authorization", "data", "key", "payload", "public_key", "secret", "signature", "token"}
)
"""Fields that are replaced by their length in every log line, whoever wrote it."""

log: FilteringBoundLogger = structlog.get_logger()


def now() -> datetime:
    """The real clock."""
    return datetime.now(UTC)


class Origin(NamedTuple):
    """Whence something is asked: the address that was observed, and the request's id; None where it is not a request."""

    address: str | None
    request_id: str | None


def origin() -> Origin:
    """Of what this task does now, as the door that let it in has bound it to the context of the log."""
    bound = structlog.contextvars.get_contextvars()
    return Origin(bound.get("address"), bound.get("request_id"))


def bind_origin(address: str | None) -> None:
    """Says for the rest of this task, in its log too, from which address it was asked; a task that it starts inherits it."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(address=address)


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for field in SECRET_FIELDS.intersection(event):
        event[field] = f"<{len(str(event[field]))} characters>"
    return event


def configure(level: str = "info", *, json: bool = False, stream: TextIO = sys.stderr) -> None:
    """Sets up logging for the process: lines for a person, or JSON lines for a collector."""
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
