"""Single lookups in a tenant's log: a count of a channel's messages, and one message of a channel."""

from __future__ import annotations

from artcafe.fabric.nats.jetstream import JetStream
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.rules import subjects


async def count_above(tenant_log: TenantLog, channel: ChannelId, seq: Seq) -> tuple[Seq, int]:
    """Return the sequence of a channel's first message above `seq`, and the number of its messages from there; zeros without one.

    Any replica answers, also a lagging one. Raise `Unavailable`.
    """
    stream = JetStream(tenant_log.connection)
    return await stream.count_from(STREAM, subjects.stored(channel), seq + 1) or (0, 0)


async def read_in(tenant_log: TenantLog, channel: ChannelId, seq: Seq) -> bytes | None:
    """Return the envelope at a sequence if it is a message of the channel, or None. Raise `Unavailable`."""
    found = await JetStream(tenant_log.connection).get_from_leader(STREAM, {"seq": seq}) if seq > 0 else None
    return found.data if found is not None and found.subject == subjects.stored(channel) else None
