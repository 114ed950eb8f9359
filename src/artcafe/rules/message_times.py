"""Check the times that a publisher sets on a message: when it is delivered, and when it expires."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from artcafe.errors import Invalid
from artcafe.rules import times
from artcafe.wire.frames import Publish

MOST_AHEAD: Final = timedelta(days=30)
"""How far ahead a message may be scheduled. Usage rows of hours are kept for 35 days, in which it is counted."""
LATE: Final = timedelta(seconds=5)
"""A message that is due so little ago is delivered at once: clocks differ, and a publish takes time to arrive."""
_FIRST: Final = times.to_text(datetime(1970, 1, 1, tzinfo=UTC))
"""The earliest time of a message id. An earlier `deliver_at` cannot be the repeat of a scheduled message either."""


def normal(publish: Publish) -> Publish:
    """Return the publish with its times as `times.to_text` writes them. Raises Invalid for text that is no RFC 3339 time,
    and for a `deliver_at` before 1970."""
    expires_at, deliver_at = _normal(publish.expires_at, "expires_at"), _normal(publish.deliver_at, "deliver_at")
    if deliver_at is not None and deliver_at < _FIRST:
        raise _passed(deliver_at)
    return msgspec.structs.replace(publish, expires_at=expires_at, deliver_at=deliver_at)


def problem_of(publish: Publish, now: datetime) -> Invalid | None:
    """Return the error of a publish whose times are not possible now, or None. The times are `normal`."""
    at, until = publish.deliver_at, publish.expires_at
    if until is not None and until <= times.to_text(now):
        return Invalid("expires_at", f"is {until}, which has passed; give a later time, or none; nothing was stored")
    if at is None:
        return None
    if at < times.to_text(now - LATE):
        return _passed(at)
    if at > times.to_text(now + MOST_AHEAD):
        return Invalid("deliver_at", f"is {at}; it must be at most {MOST_AHEAD.days} days ahead; nothing was stored")
    if until is not None and until <= at:
        return Invalid("expires_at", f"is {until}, before the message is delivered ({at}); give a later time; nothing was stored")
    return None


def _passed(deliver_at: str) -> Invalid:
    what = "which has passed; give a later time, or none to deliver now; nothing was stored"
    return Invalid("deliver_at", f"is {deliver_at}, {what}")


def _normal(text: str | None, field: str) -> str | None:
    if text is None:
        return None
    try:
        return times.to_text(times.from_text(text))
    except ValueError:
        raise Invalid(field, "must be an RFC 3339 time such as 2026-11-22T16:50:57Z") from None
