"""Check the times that a publisher sets on a message: when it expires."""

from __future__ import annotations

from datetime import datetime

import msgspec

from artcafe.errors import Invalid
from artcafe.rules import times
from artcafe.wire.frames import Publish


def normal(publish: Publish) -> Publish:
    """Return the publish with its times as `times.to_text` writes them. Raises Invalid for text that is no RFC 3339 time."""
    return msgspec.structs.replace(publish, expires_at=_normal(publish.expires_at, "expires_at"))


def problem_of(publish: Publish, now: datetime) -> Invalid | None:
    """Return the error of a publish whose times are not possible now, or None."""
    if publish.expires_at is not None and publish.expires_at <= times.to_text(now):
        return Invalid("expires_at", f"is {publish.expires_at}, which has passed; give a later time, or none; nothing was stored")
    return None


def _normal(text: str | None, field: str) -> str | None:
    if text is None:
        return None
    try:
        return times.to_text(times.from_text(text))
    except ValueError:
        raise Invalid(field, "must be an RFC 3339 time such as 2026-11-22T16:50:57Z") from None
