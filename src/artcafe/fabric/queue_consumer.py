"""The durable JetStream consumer of one queue channel: made, changed, made again, and deleted. `work_queue` pulls from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from artcafe.errors import LogRefused
from artcafe.fabric.nats.jetstream import STREAM_NOT_FOUND, JetStream
from artcafe.fabric.queue_rewind import confirm_loss, is_ahead, rewind
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import ChannelId, Epoch, QueueSettings, Seq
from artcafe.rules import subjects

PULL_S: Final = 4.0
"""How long NATS keeps a pull request. It delivers messages at most this long after the request, also if this process reads them
later, because it was stopped."""
MARGIN_S: Final = 6.0
"""How long after the server's ack deadline NATS redelivers a message. The server may count the deadline from up to `PULL_S` too
late, and its nak takes some time to reach NATS."""
MAX_PENDING: Final = 65_536
"""Messages of one channel that are held, or wait for a redelivery. With as many, NATS delivers no further ones."""

CONSUMER_NOT_FOUND: Final = 10014


class MadeConsumer(NamedTuple):
    """The epoch of a consumer's log. `is_new_log`: the log was replaced, so delivered sequences may name other messages."""

    epoch: Epoch
    is_new_log: bool


class QueueProgress(NamedTuple):
    """How far a consumer is: every message up to `floor` has ended, and none above `delivered` was ever delivered."""

    floor: Seq
    delivered: Seq


class QueueBacklog(NamedTuple):
    """The messages of a queue that have not ended: `pending` were never delivered, `held` are with a subscriber, or wait for a
    redelivery.

    Every message up to `floor` has ended. `delivered_at`: the last delivery, by NATS's clock; None without one.
    """

    pending: int
    held: int
    floor: Seq
    delivered_at: datetime | None


class QueueConsumer:
    """The consumer of one channel. Every method may be repeated, and raises `Unavailable` or `LogRefused`."""

    def __init__(self, tenant_log: TenantLog, channel: ChannelId) -> None:
        self._log, self._jetstream = tenant_log, JetStream(tenant_log.connection)
        self.name = subjects.queue_consumer(channel)
        self._subject = subjects.stored(channel)

    async def make(self, settings: QueueSettings) -> MadeConsumer:
        """Create the consumer at the oldest message, or give it these settings. Create the log if it does not exist."""
        state = await self._log.ensure()
        info = await self.info()
        if info is None:
            await self._put({"deliver_policy": "all"}, settings)
            return MadeConsumer(state.epoch, is_new_log=False)
        lost = await confirm_loss(self._log, state, info) if is_ahead(info, state.last_seq) else None
        if lost is not None:
            info = await rewind(self._jetstream, self.name, lost.last_seq)
        if info["config"]["ack_wait"] != _ack_wait_ns(settings):
            await self._put(info["config"], settings)
        return MadeConsumer(state.epoch if lost is None else lost.epoch, is_new_log=lost is not None)

    async def begin_after(self, seq: Seq, settings: QueueSettings) -> None:
        """Create the consumer of a log without one, at the first message above a sequence."""
        await self._put({"deliver_policy": "by_start_sequence", "opt_start_seq": seq + 1}, settings)

    async def info(self) -> dict[str, Any] | None:
        """Return the consumer's configuration and state, or None without one."""
        try:
            return await self._jetstream.request(f"CONSUMER.INFO.{STREAM}.{self.name}", {})
        except LogRefused as exc:
            if exc.error_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise
            return None

    async def progress(self) -> QueueProgress:
        """Return how far the consumer is. A message below the floor was acknowledged, terminated or removed."""
        info = await self.info()
        if info is None:  # no agent has subscribed yet
            return QueueProgress(0, 0)
        return QueueProgress(info["ack_floor"]["stream_seq"], info["delivered"]["stream_seq"])

    async def backlog(self) -> QueueBacklog | None:
        """Return the counts of messages that have not ended, or None if no agent has subscribed yet."""
        info = await self.info()
        if info is None:
            return None
        at = info["delivered"].get("last_active")
        delivered_at = None if at is None else datetime.fromisoformat(at)
        return QueueBacklog(info["num_pending"], info["num_ack_pending"], info["ack_floor"]["stream_seq"], delivered_at)

    async def is_done(self, seq: Seq) -> bool:
        """Return whether the messages up to a sequence are acknowledged or terminated."""
        return (await self.progress()).floor >= seq

    async def delete(self) -> None:
        """Delete the consumer. Do nothing for a channel without one."""
        try:
            await self._jetstream.request(f"CONSUMER.DELETE.{STREAM}.{self.name}", {})
        except LogRefused as exc:
            if exc.error_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise

    async def _put(self, known: dict[str, Any], settings: QueueSettings) -> None:
        """Create the consumer, or update it from its configuration `known`. Two servers may do so at the same time."""
        config = {
            **known,
            "name": self.name,
            "durable_name": self.name,
            "filter_subject": self._subject,
            "ack_policy": "explicit",
            "ack_wait": _ack_wait_ns(settings),
            "max_deliver": -1,
            "max_ack_pending": MAX_PENDING,
            "replay_policy": "instant",
        }
        verb = f"CONSUMER.CREATE.{STREAM}.{self.name}.{self._subject}"
        await self._jetstream.request(verb, {"stream_name": STREAM, "config": config, "action": ""})


def _ack_wait_ns(settings: QueueSettings) -> int:
    return int((settings.ack_wait_s + MARGIN_S) * 1e9)
