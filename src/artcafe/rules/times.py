"""Times as text: RFC 3339 in UTC with milliseconds, sortable as text. The current time comes from an injected clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d+)?(?:[Zz]|([+-](?:[01]\d|2[0-3]):[0-5]\d))",
    re.ASCII,
)
_TO_SECONDS: Final = slice(1, 1 + len("2026-11-22T16:50:57"))
_TO_MILLISECONDS: Final = slice(1, 1 + len("2026-11-22T16:50:57.123"))
"""Parts of a time as msgspec encodes it, after its quote."""
_encode: Final = msgspec.json.Encoder().encode


def to_text(time: datetime) -> str:
    """Return the time as `2026-11-22T16:50:57.123Z`. Accepts aware times only; truncates to milliseconds."""
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    # Every message gets a time: msgspec formats one in 0.3 µs, `isoformat` in 2. strftime omits the leading zero of year 999.
    text = _encode(time.astimezone(UTC))
    return f"{text[_TO_SECONDS].decode()}.000Z" if time.microsecond == 0 else f"{text[_TO_MILLISECONDS].decode()}Z"


def from_text(text: str) -> datetime:
    """Return the aware UTC time of any RFC 3339 text (section 5.6), to the microsecond.

    Raises ValueError for other text, such as a time without a zone. A leap second becomes the following second.
    """
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError("not an RFC 3339 time")
    day, minute, second, fraction, zone = match.groups()
    leap = second == "60"
    time = datetime.fromisoformat(f"{day}T{minute}:{'59' if leap else second}{fraction or ''}{zone or '+00:00'}")
    try:
        return (time + timedelta(seconds=int(leap))).astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("a year out of range") from exc
