"""Messages that were on their way to a channel or an inbox when its messages were removed: they are removed after its rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from artcafe.errors import OurFault
from artcafe.model import ChannelId, TenantId
from artcafe.observe.logs import log


class PurgedLogs(Protocol):
    """Removes messages."""

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Remove every message of a channel. May be repeated. Raises `Unavailable`."""
        ...


async def purge_late(logs: PurgedLogs, tenant_id: TenantId, channels: Iterable[ChannelId]) -> None:
    """Remove the messages of deleted channels that were accepted before the deletion and stored after the first removal.

    The deletion is complete, so a failure is only logged: nobody would repeat it.
    """
    for channel_id in channels:
        try:
            await logs.purge(tenant_id, channel_id)
        except OurFault as exc:
            log.warning("late_messages.left", tenant=tenant_id, channel=channel_id, error=str(exc))
