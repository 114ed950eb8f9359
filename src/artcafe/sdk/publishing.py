"""The times of a message, as a publish over the socket or over REST has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from artcafe.wire import frames


def with_times(
    body: frames.Publish,
    expires_at: datetime | None,
    expires_in_s: float | None,
    deliver_at: datetime | None,
    delay_s: float | None,
) -> frames.Publish:
    """Return a publish with its times. Raises as `moment` does."""
    return msgspec.structs.replace(
        body,
        expires_at=moment("expires_at", expires_at, "expires_in_s", expires_in_s),
        deliver_at=moment("deliver_at", deliver_at, "delay_s", delay_s),
    )


def moment(name: str, at: datetime | None, relative: str, in_s: float | None) -> str | None:
    """Return a time of a message as text: `at`, or `in_s` seconds from now; None without either.

    `name` and `relative` are the names of both arguments. Raises ValueError if both are given, or `at` has no zone.
    """
    if at is not None and in_s is not None:
        raise ValueError(f"give {name} or {relative}, not both")
    if in_s is not None:
        at = datetime.now(UTC) + timedelta(seconds=in_s)
    if at is not None and at.tzinfo is None:
        raise ValueError(f"{name} needs a time zone, such as datetime.UTC")
    return None if at is None else at.isoformat()
