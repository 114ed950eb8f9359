"""Structured logs: events with fields, never a token, a key or a payload."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from artcafe.observe.line_renderers import json_line, plain_line
from artcafe.observe.redaction import redacted

log: FilteringBoundLogger = structlog.get_logger()


class _StreamLogger(structlog.PrintLogger):
    """Prints lines, and drops a line instead of raising OSError: the terminal was closed, or the disk is full."""

    def msg(self, message: str) -> None:
        """Print a line."""
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class ThrottledEvent:
    """An event that a peer can cause at any rate: the first is logged, then at most one line a minute with their count."""

    __slots__ = ("_count", "_event", "_logged_at", "_monotonic")

    EVERY_S: ClassVar[float] = 60.0

    def __init__(self, event: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._event, self._monotonic = event, monotonic
        self._count = 0
        self._logged_at: float | None = None

    def warn(self, **fields: object) -> None:
        """Count the event, and log it with these fields if a minute has passed since the last line."""
        self._count += 1
        now = self._monotonic()
        if self._logged_at is None or now - self._logged_at >= self.EVERY_S:
            log.warning(self._event, **fields, count=self._count)
            self._logged_at, self._count = now, 0


def configure(level: str = "info", *, json: bool = False, stream: TextIO = sys.stderr, process: int | None = None) -> None:
    """Set up logging for the process: lines for people, or JSON lines for a collector. Warnings of libraries are included."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([] if process is None else [partial(_add_process, process)]),
            structlog.processors.format_exc_info,
            _redact,  # After every processor that adds text of others: a traceback may quote a secret.
            structlog.processors.add_log_level,
            _add_time,
            json_line if json else structlog.dev.ConsoleRenderer() if stream.isatty() else plain_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _StreamLogger(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward(logging.WARNING))


def _add_process(process: int, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.setdefault("process", process)
    return event


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: redacted(value, name) for name, value in event.items()}


def _add_time(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the time as structlog's `TimeStamper(fmt="iso", utc=True)` does, in a quarter of its time."""
    event["timestamp"] = f"{datetime.now(UTC).isoformat(timespec='microseconds')[:-6]}Z"
    return event


class _Forward(logging.Handler):
    """Forwards libraries' log records to our log, with its redaction. Records below warning are dropped: some contain
    payloads."""

    def emit(self, record: logging.LogRecord) -> None:
        say = log.error if record.levelno >= logging.ERROR else log.warning
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # the library's format and arguments do not match
            message = str(record.msg)
        with contextlib.suppress(ValueError):  # the log is closed; `handleError` would print the record unredacted
            say("library.said", library=record.name, message=message, exc_info=record.exc_info)
