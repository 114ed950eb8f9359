"""Times as text: RFC 3339 in UTC with milliseconds, which sorts as it counts. What time it is, a clock says that is passed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d+)?(?:[Zz]|([+-](?:[01]\d|2[0-3]):[0-5]\d))",
    re.ASCII,
)


def to_text(time: datetime) -> str:
    """`2026-11-22T16:50:57.123Z`. Takes aware times only; what is finer than a millisecond is cut off."""
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    # isoformat and not strftime: glibc writes the year 999 without its zero, and then it would not sort.
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)  # which takes a third of all the time that this takes
    return utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def from_text(text: str) -> datetime:
    """The aware UTC time of any RFC 3339 text (section 5.6), to the microsecond.

    Raises ValueError for anything else, such as a time without a zone. A leap second is the second after it.
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
        raise ValueError("outside the years that there are") from exc
