"""Responses of the usage routes, as frozen structs."""

from __future__ import annotations

from datetime import datetime

import msgspec


class UsageBound(msgspec.Struct, frozen=True, omit_defaults=True):
    """How inexact a value is.

    Either at most `missing` are missing (None: an unknown number), or what `servers` servers counted in `seconds` seconds is.
    """

    missing: int | None = None
    servers: int | None = None
    seconds: int | None = None


class UsageItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A metric of a tenant in a period, or the part of an agent or a channel in it."""

    name: str
    value: int | None
    """None: unknown, because nothing was counted in the period."""
    period: str
    timestamp: datetime | None
    """When the value was last written."""
    exact: bool
    """Whether everything before `Usage.as_of` is certainly counted, once."""
    bound: UsageBound | None = None
    highest: int | None = None
    """The highest value in the period, of a metric that is measured."""
    agent: str | None = None
    channel: str | None = None
    agent_handle: str | None = None
    channel_handle: str | None = None
    """The handle that the agent or channel has now."""


class Usage(msgspec.Struct, frozen=True):
    """What a tenant used. Everything before `as_of` is counted in it; None if nothing was counted yet."""

    items: tuple[UsageItem, ...]
    as_of: datetime | None


class RecountComparison(msgspec.Struct, frozen=True):
    """A period as counted in its row, and as found in the log. A count of None: there is no row."""

    period: str
    verdict: str
    """`equal`, `removed` (fewer messages are stored than were counted, and as many were removed), `uncertain` (the difference is
    within the bound of the row) or `different`."""
    counted_messages: int | None
    found_messages: int
    counted_bytes: int | None
    found_bytes: int
    removed: int
    counted_first_seq: int | None
    counted_last_seq: int | None
    found_first_seq: int | None
    found_last_seq: int | None


class Recounted(msgspec.Struct, frozen=True):
    """The comparison of a tenant's log with its usage, up to the sequence `up_to`."""

    period: str
    equal: bool
    whole: bool
    """Whether every message of the period is still in the log."""
    as_of: datetime | None
    up_to: int
    messages_read: int
    compared: tuple[RecountComparison, ...]
    sums: tuple[RecountComparison, ...]
    """Longer periods whose rows are not the sum of those in `compared`."""


class UsagePage(msgspec.Struct, frozen=True):
    """One page of the response; `UsageCalls.get` follows all pages."""

    items: tuple[UsageItem, ...]
    next_cursor: str | None
    as_of: datetime | None
