"""Read attributes of any content: in rows of an older system they may be missing, malformed or of another type.

The attributes of each record are defined in `rows`, `agent_rows` and `people_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from artcafe.rules import handles, times
from artcafe.tables.engine.values import Item, Value

LONG_PAST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The default for a missing or unreadable expiry: already expired, so that nothing is valid forever by mistake."""

_MILLISECONDS_ABOVE: Final = 10**11
"""Times above this number are milliseconds: as seconds they would be later than the year 5000."""

StatusT = TypeVar("StatusT", bound=StrEnum)


def text(item: Item, name: str) -> str:
    """Return a text attribute, or an empty text."""
    value = item.get(name)
    return value if isinstance(value, str) else ""


def texts(item: Item, name: str) -> tuple[str, ...]:
    """Return the texts in a set or list attribute, skipping members of other types."""
    value = item.get(name)
    if isinstance(value, AbstractSet):
        return tuple(sorted(member for member in value if isinstance(member, str)))
    return tuple(member for member in value if isinstance(member, str)) if isinstance(value, list) else ()


def number(item: Item, name: str) -> int:
    """Return an integer attribute, or 0."""
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def is_number(value: Value) -> bool:
    """Return whether an engine can add to the value."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def time(item: Item, name: str) -> datetime | None:
    """Return a time attribute, or None if it is missing or unreadable.

    Accepts RFC 3339 and the older systems' formats: RFC 3339 without a zone, meaning UTC, and a number of seconds or milliseconds
    since 1970.
    """
    value = item.get(name)
    try:
        if isinstance(value, str):
            return _time_of_text(value)
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return datetime.fromtimestamp(float(value / 1000 if value > _MILLISECONDS_ABOVE else value), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def expiry(item: Item, name: str) -> datetime:
    """Return an expiry attribute; an already expired time if it is missing or unreadable."""
    return time(item, name) or LONG_PAST


def time_attribute(name: str, time: datetime | None) -> Item:
    """Return a time as an attribute, or no attribute for an unknown time: no made-up time is stored."""
    return {} if time is None else {name: times.to_text(time)}


def _time_of_text(text: str) -> datetime:
    try:
        return times.from_text(text)
    except ValueError:
        return times.from_text(text + "Z")


def known(kind: type[StatusT], text: str, otherwise: StatusT) -> StatusT:
    """Return the text as a member of an enum, or the default for an unknown text."""
    return kind(text) if text in kind._value2member_map_ else otherwise


def entries_of(item: Item, name: str) -> Mapping[str, Value]:
    """Return a map attribute, or an empty map."""
    value = item.get(name)
    return value if isinstance(value, Mapping) else {}


def hash_attribute(request_hash: str | None) -> Item:
    """Return the request hash as an attribute, if the request had a key.

    It identifies an equal repeat of the creating request.
    """
    return {} if request_hash is None else {"request_hash": request_hash}


def handle_of(item: Item) -> str | None:
    """Return the handle attribute; None if it is missing, or is no handle."""
    handle = text(item, "handle")
    return handle if handles.is_handle(handle) else None


def handle_attribute(handle: str | None) -> Item:
    """Return a handle as an attribute, if there is one."""
    return {} if handle is None else {"handle": handle}
