"""Pages of a channel's stored messages, read without a subscription: forward from a position, or backward from the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.errors import Invalid
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import Channel, ChannelId, Epoch, Principal, Seq
from artcafe.rules import access, start_position, times
from artcafe.rules.start_position import LogLineage
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.wire.replies import Gap

LogPosition = Seq | datetime
"""A sequence of the tenant's log, or a time."""

PAGE_BYTES: Final = 512 * 1024
"""Size limit of a page, except for a page of one larger message: a page is one frame on the gateway, and clients accept frames of
1 MiB (docs/gateway.md)."""


def parse_position(text: str, field: str) -> LogPosition:
    """Parse a position in the log. Raises `Invalid` for `field` if the text is neither a sequence nor a time."""
    if text.isascii() and text.isdigit() and len(text) <= 16:
        return int(text)
    try:
        return times.from_text(text)
    except ValueError:
        raise Invalid(field, "must be a sequence such as 41, or an RFC 3339 time such as 2026-11-22T16:50:57Z") from None


class HistoryPage(NamedTuple):
    """A page of a channel's messages, the gap left by retention in the requested range, and whether more messages follow."""

    channel: Channel
    messages: Sequence[StoredMessage]
    gap: Gap | None
    has_more: bool
    epoch: Epoch | None
    """The epoch of the sequences; None if nothing was stored yet."""


class MessageHistory:
    """Reads stored messages of channels."""

    def __init__(self, record_cache: RecordCache, fabric: Fabric, retention: Retention) -> None:
        self._record_cache, self._fabric, self._retention = record_cache, fabric, retention

    async def list(
        self, principal: Principal, channel_id: str, after: LogPosition | None, before: LogPosition | None, limit: int
    ) -> HistoryPage:
        """Return at most `limit` messages of the channel with this id or handle.

        With `after`, messages above that sequence, or stored at that time or later, oldest first; without it, newest first. With
        `before`, only messages below that sequence, or stored before that time. Raises `ChannelNotFound`, `Forbidden` and
        `Unavailable`.
        """
        channel, log = await self._open(principal, channel_id)
        end = None if before is None else await _below(log, channel.id, before)
        if after is None:
            return await self._newest_first(channel, log, end, limit)
        after_seq = await _seq_before(log, channel.id, after)
        while True:
            found = await _forward(log, channel.id, after_seq, end, limit + 1)
            # Read the gap after the messages: retention records a removal before it removes anything.
            lineage, gap = await self._retention_gap(channel, log, after)
            if gap is None or gap.to is None or after_seq is None or after_seq >= gap.to:
                break
            after_seq = gap.to
        shown = _fitting(found, limit)
        return HistoryPage(channel, shown, gap, len(found) > len(shown), lineage.epoch)

    async def _newest_first(self, channel: Channel, log: TenantLog, end: Seq | None, limit: int) -> HistoryPage:
        """Return the newest messages below `end`. Removed messages are below all stored ones, so only the last page has a gap."""
        found = await log.before(channel.id, end, most=limit + 1, most_bytes=PAGE_BYTES)
        lineage, gap = await self._retention_gap(channel, log, 0)
        kept = [one for one in found if gap is None or gap.to is None or one.seq > gap.to]
        shown = _fitting(kept, limit)
        has_more = len(kept) > len(shown)
        if gap is not None and gap.to is not None and end is not None:
            gap = Gap(1, min(gap.to, end - 1), gap.reason) if end > 1 else None
        return HistoryPage(channel, shown, None if has_more else gap, has_more, lineage.epoch)

    async def _retention_gap(self, channel: Channel, log: TenantLog, after: LogPosition) -> tuple[LogLineage, Gap | None]:
        """Return the log's lineage, and the gap left by retention above a position."""
        removed_to, removed_before = await self._retention.removal(channel.tenant_id, channel.id)
        state = await log.state()
        lineage = state.lineage if state else LogLineage(None)
        if isinstance(after, datetime):
            # Retention removes the oldest first: nothing since `after` is gone if all removed messages or a stored one are older.
            if removed_before is not None and removed_before <= after:
                return lineage, None
            if await log.last_seqs([channel.id], until=after):
                return lineage, None
            after = 0  # it is unknown how many of the removed messages were stored since then
        removed = lineage.to_seq(removed_to)
        return lineage, Gap(after + 1, removed, start_position.RETENTION) if removed > after else None

    async def readable(self, principal: Principal, channel_id: str) -> Channel:
        """Return the channel with this id or handle, if the principal may read its messages.

        Raises `ChannelNotFound`, `Forbidden` and `Unavailable`.
        """
        access.check(principal, access.Action.READ_MESSAGES)
        channel = await self._record_cache.destination(principal, channel_id)
        await self._record_cache.check_receives(principal, channel)
        return channel

    async def _open(self, principal: Principal, channel_id: str) -> tuple[Channel, TenantLog]:
        channel = await self.readable(principal, channel_id)
        return channel, await self._fabric.tenant(principal.tenant_id).connected_log()


async def _forward(
    log: TenantLog, channel_id: ChannelId, after_seq: Seq | None, end: Seq | None, limit: int
) -> list[StoredMessage]:
    """Return messages above a sequence and below `end`, oldest first: at most `limit`, with no more reads above `PAGE_BYTES`."""
    found: list[StoredMessage] = []
    size = 0
    while after_seq is not None and len(found) < limit and size <= PAGE_BYTES:
        some = await log.after(channel_id, after_seq, most=limit - len(found))  # up to about 1 MB a read
        found += [one for one in some if end is None or one.seq < end]
        size = sum(len(one.envelope) for one in found)
        after_seq = some[-1].seq if some and (end is None or some[-1].seq < end) else None
    return found


def _fitting(found: Sequence[StoredMessage], limit: int) -> Sequence[StoredMessage]:
    """Return the first messages up to a page's size, and at least one if there is any."""
    size = 0
    for at, one in enumerate(found[:limit]):
        size += len(one.envelope)
        if size > PAGE_BYTES and at > 0:
            return found[:at]
    return found[:limit]


async def _seq_before(log: TenantLog, channel_id: ChannelId, position: LogPosition) -> Seq | None:
    """Return the last sequence before a position; None if nothing was stored at that time or later."""
    if not isinstance(position, datetime):
        return position
    first = await log.since(channel_id, position)
    return None if first is None else first - 1


async def _below(log: TenantLog, channel_id: ChannelId, position: LogPosition) -> Seq | None:
    """Return the first sequence at or after a position; None if every message is earlier."""
    return await log.since(channel_id, position) if isinstance(position, datetime) else position
