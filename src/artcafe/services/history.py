"""Reading a channel's stored messages without receiving it: forward from a place, or back from the end."""

from __future__ import annotations

from datetime import datetime

from artcafe.fabric.fabric import Fabric
from artcafe.fabric.streams import Stored, TenantLog
from artcafe.model import Channel, ChannelId, Permission, Principal, Seq
from artcafe.rules import access
from artcafe.services.directory import Directory

Place = Seq | datetime
"""A sequence of the tenant's log, or a time."""


class History:
    """What is kept of a tenant's channels."""

    def __init__(self, directory: Directory, fabric: Fabric) -> None:
        self._directory, self._fabric = directory, fabric

    async def forward(self, principal: Principal, channel_id: str, after: Place, before: Place | None, most: int) -> list[Stored]:
        """The messages above a sequence, or stored at a time or later, oldest first, and below `before` where it is given.

        At most `most`; fewer mean that there are no more. Raises `ChannelNotFound`, `Forbidden` and `Unavailable`.
        """
        channel, log = await self._open(principal, channel_id)
        behind = await _behind(log, channel.id, after)
        end = None if before is None else await _below(log, channel.id, before)
        found: list[Stored] = []
        while behind is not None and len(found) < most:
            some = await log.after(channel.id, behind, most=most - len(found))  # which holds about a megabyte, or nothing more
            found += [one for one in some if end is None or one.seq < end]
            behind = some[-1].seq if some and (end is None or some[-1].seq < end) else None
        return found

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
