"""Usage: the metrics of a tenant, the periods they are counted in, and the keys of their rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from artcafe.errors import Invalid


class Metric(StrEnum):
    """A metric of a tenant; the value is the `name` of its rows."""

    MESSAGES_STORED = "messages_stored"
    """Messages stored in the tenant's log, each once."""
    BYTES_STORED = "bytes_stored"
    """Bytes of those messages: data, headers and sender, as they are stored."""
    MESSAGES_LIVE = "messages_live"
    """Messages published to `live` channels."""
    DELIVERIES = "deliveries"
    """Messages sent to sockets of agents and people, one for each socket."""
    REQUESTS = "requests"
    """Commands on sockets, except `ack` and those before the first `connect`."""
    API_CALLS = "api_calls"
    """REST requests of the tenant's people and agents."""
    CONNECTION_MINUTES = "connection_minutes"
    """Minutes that sockets were open, summed over all sockets."""
    PEAK_CONNECTIONS = "peak_connections"
    """The highest number of sockets open at one time."""
    # The following are measured, not summed: a period's value is the last one in it, and its row also has the highest.
    AGENTS = "agents"
    """Agents in the tenant."""
    CHANNELS = "channels"
    """Channels in the tenant."""
    STORAGE_BYTES = "storage_bytes"
    """Disk space of the tenant's messages."""


MAXIMA: Final = frozenset({Metric.PEAK_CONNECTIONS})
"""Metrics whose value in a period is the highest one measured in it."""


class PeriodKind(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


KEPT: Final[Mapping[PeriodKind, timedelta | None]] = {
    PeriodKind.HOUR: timedelta(days=35),
    PeriodKind.DAY: timedelta(days=400),
    PeriodKind.MONTH: None,
}
"""How long after its end a period's rows are kept. Hours: a month and some days to dispute its bill; days: a year and a month, to
compare a month with the same one a year ago. Months stay."""

_FORMATS: Final = {PeriodKind.HOUR: "%Y-%m-%dT%H", PeriodKind.DAY: "%Y-%m-%d", PeriodKind.MONTH: "%Y-%m"}
_LENGTHS: Final = {PeriodKind.HOUR: 13, PeriodKind.DAY: 10, PeriodKind.MONTH: 7}
_KINDS: Final = {length: kind for kind, length in _LENGTHS.items()}
_TEXT: Final = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d)(?:T(\d\d))?)?", re.ASCII)


class Period(NamedTuple):
    """An hour, day or month of UTC. `text` is `2026-11-28T10`, `2026-11-28` or `2026-11`."""

    text: str

    @property
    def kind(self) -> PeriodKind:
        return _KINDS[len(self.text)]

    @property
    def start(self) -> datetime:
        """Return the first moment of the period."""
        year, month, day, hour = _numbers(self.text)
        return datetime(year, month, day, hour, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """Return the first moment after the period."""
        start = self.start
        if self.kind is PeriodKind.HOUR:
            return start + timedelta(hours=1)
        if self.kind is PeriodKind.DAY:
            return start + timedelta(days=1)
        return (start + timedelta(days=31)).replace(day=1)

    @property
    def expires_at(self) -> datetime | None:
        """Return when its rows expire; None if they stay."""
        kept = KEPT[self.kind]
        return None if kept is None else self.end + kept

    def contains(self, other: Period) -> bool:
        """Return whether `other` is this period or a part of it."""
        return other.text.startswith(self.text)

    def enclosing(self) -> tuple[Period, ...]:
        """Return this period and the longer ones around it, such as an hour, its day and its month."""
        return tuple(Period(self.text[:length]) for length in _KINDS if length <= len(self.text))


def period_of(moment: datetime, kind: PeriodKind) -> Period:
    """Return the period of a kind that contains an aware moment."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return Period(moment.astimezone(UTC).strftime(_FORMATS[kind]).rjust(_LENGTHS[kind], "0"))


def parse_period(text: str, field: str = "period") -> Period:
    """Return the period of a text. Raises Invalid for any other text, and for a day or hour that does not exist."""
    period = known_period(text)
    if period is None:
        raise Invalid(field, "must be an existing month, day or hour of UTC, such as 2026-11, 2026-11-28 or 2026-11-28T10")
    return period


def known_period(text: str) -> Period | None:
    """Return the period of a text, or None if it is not one."""
    if not _TEXT.fullmatch(text):
        return None
    try:
        _ = Period(text).end  # Of year 9999, the last month, day and hour end out of range.
    except (ValueError, OverflowError):
        return None
    return Period(text)


def _numbers(text: str) -> tuple[int, int, int, int]:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a period")
    year, month, day, hour = match.groups()
    return int(year), int(month), int(day or 1), int(hour or 0)


class Attribution(StrEnum):
    """What a part of a metric is attributed to."""

    AGENT = "agent"
    """The sender: an agent's id, or `usr:` and a person's."""
    CHANNEL = "channel"
    """The channel: its id as in its subject (`subjects.token`), which is the id itself for every id made by ArtCafe."""


ATTRIBUTED_PERIODS: Final = frozenset({PeriodKind.DAY, PeriodKind.MONTH})
"""Periods with attributed rows. Hours have none: each sender and channel would write two more rows in every hour."""


class Part(NamedTuple):
    """One agent's or one channel's part of a metric."""

    by: Attribution
    id: str


SEPARATOR: Final = "#"


def metric_id(period: Period, metric: Metric, part: Part | None = None) -> str:
    """Return the sort key of a row: `2026-11#messages_stored`, or `2026-11#messages_stored#agent#agt_…` for a part."""
    whole = f"{period.text}{SEPARATOR}{metric.value}"
    return whole if part is None else f"{parts_prefix(period, metric, part.by)}{part.id}"


def parts_prefix(period: Period, metric: Metric, by: Attribution) -> str:
    """Return the beginning of the sort keys of all parts of a metric in a period."""
    return f"{period.text}{SEPARATOR}{metric.value}{SEPARATOR}{by.value}{SEPARATOR}"
