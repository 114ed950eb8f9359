"""Pages of a channel's stored messages, read without a subscription: forward from a position, or backward from the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.errors import Invalid
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import Channel, ChannelId, Epoch, Permission, Principal, Seq
from artcafe.rules import access, start_position, times
from artcafe.rules.start_position import LogLineage
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.wire.replies import Gap

Place = Seq | datetime
"""A sequence of the tenant's log, or a time."""

PAGE_BYTES: Final = 512 * 1024
"""Size limit of a page, except for a page of one larger message: a page is one frame on the gateway, and clients accept frames of
1 MiB (docs/gateway.md)."""


def place(text: str, field: str) -> Place:
    """Parse a position in the log. Raises `Invalid` for `field` if the text is neither a sequence nor a time."""
    if text.isascii() and text.isdigit() and len(text) <= 16:
        return int(text)
    try:
        return times.from_text(text)
    except ValueError:
        raise Invalid(field, "must be a sequence such as 41, or an RFC 3339 time such as 2026-11-22T16:50:57Z") from None


class Past(NamedTuple):
    """A page of a channel's messages, the gap left by retention in the requested range, and whether more messages follow."""

    messages: Sequence[StoredMessage]
    gap: Gap | None
    has_more: bool
    epoch: Epoch | None
    """The epoch of the sequences; None if nothing was stored yet."""


class MessageHistory:
    """Reads stored messages of channels."""

    def __init__(self, record_cache: RecordCache, fabric: Fabric, retention: Retention) -> None:
        self._record_cache, self._fabric, self._retention = record_cache, fabric, retention

    async def page(self, principal: Principal, channel_id: str, after: Place | None, before: Place | None, most: int) -> Past:
        """Return at most `most` messages.

        With `after`, messages above that sequence, or stored at that time or later, oldest first; without it, newest first. With
        `before`, only messages below that sequence, or stored before that time. Raises `ChannelNotFound`, `Forbidden` and
        `Unavailable`.
        """
        channel, log = await self._open(principal, channel_id)
        end = None if before is None else await _below(log, channel.id, before)
        if after is None:
            return await self._back(channel, log, end, most)
        behind = await _behind(log, channel.id, after)
        while True:
            found = await _forward(log, channel.id, behind, end, most + 1)
            # Read the gap after the messages: retention records a removal before it removes anything.
            life, gap = await self._gone(channel, log, after)
            if gap is None or gap.to is None or behind is None or behind >= gap.to:
                break
            behind = gap.to
        shown = _fitting(found, most)
        return Past(shown, gap, len(found) > len(shown), life.epoch)

    async def _back(self, channel: Channel, log: TenantLog, end: Seq | None, most: int) -> Past:
        """Return the newest messages below `end`. Removed messages are below all stored ones, so only the last page has a gap."""
        found = await log.before(channel.id, end, most=most + 1, most_bytes=PAGE_BYTES)
        life, gap = await self._gone(channel, log, 0)
        kept = [one for one in found if gap is None or gap.to is None or one.seq > gap.to]
        shown = _fitting(kept, most)
        has_more = len(kept) > len(shown)
        if gap is not None and gap.to is not None and end is not None:
            gap = Gap(1, min(gap.to, end - 1), gap.reason) if end > 1 else None
        return Past(shown, None if has_more else gap, has_more, life.epoch)

    async def _gone(self, channel: Channel, log: TenantLog, after: Place) -> tuple[LogLineage, Gap | None]:
        """Return the log's lineage, and the gap left by retention above a position."""
        removed_to, removed_before = await self._retention.removal(channel.tenant_id, channel.id)
        state = await log.state()
        life = state.lineage if state else LogLineage(None)
        if isinstance(after, datetime):
            # Retention removes the oldest first: nothing since `after` is gone if all removed messages or a stored one are older.
            if removed_before is not None and removed_before <= after:
                return life, None
            if await log.last_seqs([channel.id], until=after):
                return life, None
            after = 0  # it is unknown which of the removed messages were stored since then
        removed = life.to_seq(removed_to)
        return life, Gap(after + 1, removed, start_position.RETENTION) if removed > after else None

    async def _open(self, principal: Principal, channel_id: str) -> tuple[Channel, TenantLog]:
        access.check(principal, access.Action.READ_MESSAGES)
        channel = await self._record_cache.channel(principal.tenant_id, channel_id)
        await self._record_cache.check_managed(principal, channel, Permission.RECEIVE, access.Action.READ_MANAGED)
        return channel, await self._fabric.tenant(principal.tenant_id).connected_log()


async def _forward(log: TenantLog, channel_id: ChannelId, behind: Seq | None, end: Seq | None, most: int) -> list[StoredMessage]:
    """Return messages above a sequence and below `end`, oldest first: `most`, or more than a page holds, or all."""
    found: list[StoredMessage] = []
    size = 0
    while behind is not None and len(found) < most and size <= PAGE_BYTES:
        some = await log.after(channel_id, behind, most=most - len(found))  # up to about 1 MB a read
        found += [one for one in some if end is None or one.seq < end]
        size = sum(len(one.envelope) for one in found)
        behind = some[-1].seq if some and (end is None or some[-1].seq < end) else None
    return found


def _fitting(found: Sequence[StoredMessage], most: int) -> Sequence[StoredMessage]:
    """Return the first messages that fit a page, but at least one if there is any."""
    size = 0
    for at, one in enumerate(found[:most]):
        size += len(one.envelope)
        if size > PAGE_BYTES and at > 0:
            return found[:at]
    return found[:most]


async def _behind(log: TenantLog, channel_id: ChannelId, place: Place) -> Seq | None:
    """Return the last sequence before a position; None if nothing was stored at that time or later."""
    if not isinstance(place, datetime):
        return place
    first = await log.since(channel_id, place)
    return None if first is None else first - 1


async def _below(log: TenantLog, channel_id: ChannelId, place: Place) -> Seq | None:
    """Return the first sequence at or after a position; None if all do."""
    return await log.since(channel_id, place) if isinstance(place, datetime) else place
