"""Copies of a tenant's streams on another NATS, unchanged. `log_rewrite` copies a log under other ids.

The target tenant is not in use meanwhile, since it does not exist yet. A copy lacks messages published here after their stream
was read; compare `CopiedStream` with the stream afterwards.
"""

from __future__ import annotations

from tempfile import TemporaryFile

import msgspec

from artcafe.errors import LogRefused
from artcafe.fabric import snapshots
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.snapshots import CHUNK_BYTES, StreamSnapshot
from artcafe.fabric.tenant_log import CONTINUES, parse_continues
from artcafe.model import Seq


class CopiedStream(msgspec.Struct, frozen=True):
    """A stream at the target: its name, its messages, and the source's last sequence at the time of the copy.

    `scheduled`: scheduled messages of a rewritten log, beside its messages.
    """

    stream: str
    messages: int
    last_seq: Seq
    was_there: bool = False
    scheduled: int = 0


class ForeignStream(Exception):
    """The target has a stream of this name from another tenant or an earlier log. Nothing was changed."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream


async def copy_stream(source: NatsConnection, target: NatsConnection, stream: str, replicas: int) -> CopiedStream:
    """Copy a stream with its sequences, times and keys. A log becomes a new log that continues the source.

    May be repeated: a complete copy is kept, and an outdated one is replaced. Raise `ForeignStream`, and as `snapshots.restore`.
    """
    now = await snapshots.current(source, stream)
    there = await snapshots.current(target, stream)
    if now is not None and there is not None:
        if (end := _copied_up_to(there, now)) is None:
            raise ForeignStream(stream)
        if end == now.last_seq == there.last_seq and there.messages == now.messages:
            return CopiedStream(stream, there.messages, now.last_seq, was_there=True)
        await snapshots.remove(target, stream)
    with TemporaryFile() as spool:
        saved = await snapshots.save(source, stream, spool.write)
        spool.seek(0)
        wanted = saved.as_continuation()
        wanted = msgspec.structs.replace(wanted, config={**wanted.config, "num_replicas": replicas})
        made = await snapshots.restore(target, wanted, iter(lambda: spool.read(CHUNK_BYTES), b""))
    if (made.last_seq, made.messages) != (saved.last_seq, saved.messages):
        raise LogRefused(0, f"the copy of {stream} has {made.messages} messages instead of {saved.messages}")
    return CopiedStream(stream, made.messages, saved.last_seq)


def _copied_up_to(there: StreamSnapshot, here: StreamSnapshot) -> Seq | None:
    """Return the last sequence up to which the target's stream is a copy of the source's, or None if it is not a copy."""
    if here.epoch is None:
        return there.last_seq if there.config.get("subjects") == here.config.get("subjects") else None
    (first, *_) = [*parse_continues(there.config.get("metadata", {}).get(CONTINUES, "")).items(), (None, 0)]
    return first[1] if first[0] == here.epoch else None
