"""Attributes as an item holds them, read whatever stands there: an older system's may be missing, of another kind or odd.

Which attributes a thing has is `rows`', `agent_rows`' and `people_rows`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from artcafe.rules import times
from artcafe.tables.engine.values import Item, Value

LONG_PAST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""An expiry that is missing or unreadable: already over, so that nothing lasts for ever by mistake."""

_MILLISECONDS_ABOVE: Final = 10**11
"""A number above it, as a time, is in milliseconds: as seconds it would lie after the year 5000."""

StatusT = TypeVar("StatusT", bound=StrEnum)


def text(item: Item, name: str) -> str:
    """The text of that name, or none."""
    value = item.get(name)
    return value if isinstance(value, str) else ""


def texts(item: Item, name: str) -> tuple[str, ...]:
    """The texts in a set or a list of that name; what is no text is passed over."""
    value = item.get(name)
    if isinstance(value, AbstractSet):
        return tuple(sorted(member for member in value if isinstance(member, str)))
    return tuple(member for member in value if isinstance(member, str)) if isinstance(value, list) else ()


def number(item: Item, name: str) -> int:
    """The whole number of that name, or 0."""
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def is_number(value: Value) -> bool:
    """Whether an engine can add to it."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def time(item: Item, name: str) -> datetime | None:
    """Return the time of that name; None where it is missing or unreadable.

    It is RFC 3339, or what older systems wrote: the same without a zone, meaning UTC, or a number since 1970.
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
    """Return the time after which the thing is over, which is long past where it is missing or unreadable."""
    return time(item, name) or LONG_PAST


def time_attribute(name: str, time: datetime | None) -> Item:
    """Return the attribute that keeps a time; nothing for an unknown one, so that no made-up time is stored."""
    return {} if time is None else {name: times.to_text(time)}


def _time_of_text(text: str) -> datetime:
    try:
        return times.from_text(text)
    except ValueError:
        return times.from_text(text + "Z")


def known(kind: type[StatusT], text: str, otherwise: StatusT) -> StatusT:
    """The text as one of a closed set, or what stands for one that ArtCafe doesn't know."""
    return kind(text) if text in kind._value2member_map_ else otherwise


def entries_of(item: Item, name: str) -> Mapping[str, Value]:
    """The map of that name, or an empty one."""
    value = item.get(name)
    return value if isinstance(value, Mapping) else {}


def hash_attribute(request_hash: str | None) -> Item:
    """What tells an equal repeat of the request that made a thing, where it had a key."""
    return {} if request_hash is None else {"request_hash": request_hash}
