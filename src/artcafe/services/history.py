"""Reading a channel's stored messages without receiving it: forward from a place, or back from the end."""

from __future__ import annotations

from datetime import datetime

from artcafe.fabric.fabric import Fabric
from artcafe.fabric.streams import Stored, TenantLog
from artcafe.model import Channel, ChannelId, Cursor, Permission, Principal, Seq
from artcafe.rules import access, starts
from artcafe.services.directory import Directory
from artcafe.services.retention import Retention
from artcafe.wire.frames import Gap

Place = Seq | datetime
"""A sequence of the tenant's log, or a time."""


class History:
    """What is kept of a tenant's channels."""

    def __init__(self, directory: Directory, fabric: Fabric, retention: Retention) -> None:
        self._directory, self._fabric, self._retention = directory, fabric, retention

    async def forward(
        self, principal: Principal, channel_id: str, after: Place, before: Place | None, most: int
    ) -> tuple[list[Stored], Gap | None]:
        """The messages above a sequence, or stored at a time or later, oldest first, and below `before` where it is given.

        At most `most`; fewer mean that there are no more. With them, what retention took above the sequence. Raises
        `ChannelNotFound`, `Forbidden` and `Unavailable`.
        """
        channel, log = await self._open(principal, channel_id)
        behind = await _behind(log, channel.id, after)
        end = None if before is None else await _below(log, channel.id, before)
        found: list[Stored] = []
        while behind is not None and len(found) < most:
            some = await log.after(channel.id, behind, most=most - len(found))  # which holds about a megabyte, or nothing more
            found += [one for one in some if end is None or one.seq < end]
            behind = some[-1].seq if some and (end is None or some[-1].seq < end) else None
        gap = None if isinstance(after, datetime) else await self._gap(channel, log, after)
        return [one for one in found if gap is None or gap.to is None or one.seq > gap.to], gap

    async def _gap(self, channel: Channel, log: TenantLog, after: Seq) -> Gap | None:
        """What is gone above a sequence; asked behind the messages, since it is noted before anything is removed."""
        removed_to = await self._retention.removed_to(channel.tenant_id, channel.id)
        if removed_to.seq <= after:
            return None
        state = await log.state()
        _, gap = starts.behind(after + 1, Cursor(), state.life if state else starts.Life(None), 0, removed_to)
        return gap

    async def backward(self, principal: Principal, channel_id: str, before: Place | None, most: int) -> list[Stored]:
        """The messages below a sequence or a time, newest first, at most `most`; without `before` the newest of all.

        Raises `ChannelNotFound`, `Forbidden` and `Unavailable`.
        """
        channel, log = await self._open(principal, channel_id)
        end = None if before is None else await _below(log, channel.id, before)
        return await log.before(channel.id, end, most=most)

    async def _open(self, principal: Principal, channel_id: str) -> tuple[Channel, TenantLog]:
        access.check(principal, access.Action.READ_MESSAGES)
        channel = await self._directory.channel(principal.tenant_id, channel_id)
        await self._directory.check_managed(principal, channel, Permission.RECEIVE, access.Action.READ_MANAGED)
        room = self._fabric.room(principal.tenant_id)
        await room.link.wait_up()
        return channel, room.log


async def _behind(log: TenantLog, channel_id: ChannelId, place: Place) -> Seq | None:
    """The sequence above which the place begins; None where nothing is there yet."""
    if not isinstance(place, datetime):
        return place
    first = await log.since(channel_id, place)
    return None if first is None else first - 1


async def _below(log: TenantLog, channel_id: ChannelId, place: Place) -> Seq | None:
    """The sequence at which the place ends what is below it; None where all is below it."""
    return await log.since(channel_id, place) if isinstance(place, datetime) else place
