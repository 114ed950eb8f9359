"""Convert usage to items and back: the rows of metrics, and the meter's row.

`usage_store` decides when an item is read or written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from artcafe.model import Cursor, Epoch, Record, Seq
from artcafe.rules import times
from artcafe.rules.usage import SEPARATOR, Attribution, Metric, Part, Period, known_period, metric_id
from artcafe.tables.attributes import number, text, time
from artcafe.tables.engine.values import Item, Value
from artcafe.tables.engine.writes import Assign, Change

METER: Final = "meter"
"""The sort key of the meter's row. No period begins so."""


class UsageKey(NamedTuple):
    """The row of a metric in a period, or of an agent's or channel's part of it."""

    period: Period
    metric: Metric
    part: Part | None = None

    @property
    def metric_id(self) -> str:
        return metric_id(self.period, self.metric, self.part)


class UsageRow(Record, frozen=True, kw_only=True):
    """A metric of a tenant in a period."""

    key: UsageKey
    value: int
    timestamp: datetime | None
    """When the row was last written."""
    highest: int | None = None
    """The highest value measured in the period, of a metric that is measured; `value` is the last one."""
    is_exact: bool = True
    uncounted: int | None = None
    """At most how many are missing from an inexact value; None if that is unknown."""
    first_seq: Seq | None = None
    last_seq: Seq | None = None
    epoch: Epoch | None = None
    """The first and the last message counted in it, and the log of the first: rows of hours of `messages_stored` only."""


class Lease(Record, frozen=True, kw_only=True):
    """The right to work as the meter of a tenant, until a time."""

    holder: str
    until: datetime


class MeterState(Record, frozen=True, kw_only=True):
    """The meter's row: how far a tenant's log is counted.

    `cursor` is the last message in the totals; every message stored before `as_of` is in them. `begun` is the last message before
    the first counted one: a copied tenant's log has messages that were counted before the copy. `revision` rises with every
    write.

    Parts (by agent, by channel) follow in windows: every message up to `attributed` is in them, and while a window is being
    written, `attributing` is its last message. `window` is the number of the last window. Both are sequences of the cursor's log.
    """

    cursor: Cursor
    begun: Seq = 0
    as_of: datetime | None = None
    revision: int = 0
    lease: Lease | None = None
    attributed: Seq = 0
    attributing: Seq | None = None
    window: int = 0


def meter_state_of(item: Item) -> MeterState:
    """Return the state in the meter's row."""
    holder, until = text(item, "holder"), time(item, "until")
    return MeterState(
        cursor=Cursor(epoch=Epoch(text(item, "epoch")) if "epoch" in item else None, seq=number(item, "seq")),
        begun=number(item, "begun"),
        as_of=time(item, "as_of"),
        revision=number(item, "revision"),
        lease=Lease(holder=holder, until=until) if holder and until is not None else None,
        attributed=number(item, "attributed"),
        attributing=number(item, "attributing") if "attributing" in item else None,
        window=number(item, "window"),
    )


def meter_attributes(state: MeterState) -> dict[str, Value]:
    """Return the attributes of the meter's row, without its key; None removes an attribute."""
    return {
        "epoch": state.cursor.epoch,
        "seq": state.cursor.seq,
        "begun": state.begun,
        "as_of": None if state.as_of is None else times.to_text(state.as_of),
        "revision": state.revision,
        "holder": None if state.lease is None else state.lease.holder,
        "until": None if state.lease is None else times.to_text(state.lease.until),
        "attributed": state.attributed,
        "attributing": state.attributing,
        "window": state.window,
    }


def usage_key_of(sort_key: str) -> UsageKey | None:
    """Return the key in a row's `metric_id`; None for other rows, such as those of an older system."""
    text, _, rest = sort_key.partition(SEPARATOR)
    name, *part = rest.split(SEPARATOR, 2)  # An id may contain the separator.
    period = known_period(text)
    if period is None or name not in Metric._value2member_map_:
        return None
    match part:
        case []:
            return UsageKey(period, Metric(name))
        case [by, id] if by in Attribution._value2member_map_ and id:
            return UsageKey(period, Metric(name), Part(Attribution(by), id))
    return None


def usage_row_of(item: Item, now: datetime) -> UsageRow | None:
    """Return a metric's row; None for any other row, and for an expired one."""
    key = usage_key_of(text(item, "metric_id"))
    ttl = item.get("ttl")
    if key is None or (isinstance(ttl, int) and ttl <= now.timestamp()):
        return None
    is_exact = item.get("exact") is not False
    is_bounded = not is_exact and item.get("unbounded") is not True
    return UsageRow(
        key=key,
        value=number(item, "value"),
        timestamp=time(item, "timestamp"),
        highest=number(item, "highest") if "highest" in item else None,
        is_exact=is_exact,
        uncounted=number(item, "uncounted") if is_bounded else None,
        first_seq=number(item, "first_seq") if "first_seq" in item else None,
        last_seq=number(item, "last_seq") if "last_seq" in item else None,
        epoch=Epoch(text(item, "epoch")) if "epoch" in item else None,
    )


def descriptions(key: UsageKey, now: datetime) -> list[Change]:
    """Return the changes that describe a row: its name, period, time of writing and expiry."""
    found: dict[str, str | int] = {
        "name": key.metric.value,
        "period": key.period.text,
        "timestamp": times.to_text(now.astimezone(UTC)),
    }
    expires_at = key.period.expires_at
    if expires_at is not None:
        found["ttl"] = int(expires_at.timestamp())
    return [Assign(name, value) for name, value in found.items()]
