"""What the log of a tenant says about the order of a queue's messages with keys (`rules.key_order`).

A message with a key is acknowledged in two steps: its end is stored as a mark beside its channel, and then it is acknowledged
in NATS. JetStream does not say which of the messages above a consumer's ack floor have ended. The marks do, to every server, and
after any fault (decision record 53).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import NatsConnectionLost, NoResponder
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.jetstream import check_answer
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import EndMark, end_mark_text, key_of, parse_end_mark

ANSWER_S: Final = 4.0
_SUBJECT: Final = b"Nats-Subject"
"""The header in which NATS names the subject of a republished message."""

TakeMark = Callable[[EndMark], None]


class KeyedMessage(NamedTuple):
    """A message of the channel by its sequence and key."""

    seq: Seq
    key: str | None


class KeyLog:
    """The messages and marks of one queue channel. Every method but `follow`'s handler raises `Unavailable`."""

    def __init__(self, tenant_log: TenantLog, channel: ChannelId) -> None:
        self._log, self._channel = tenant_log, channel
        self._consumer = QueueConsumer(tenant_log, channel)

    async def floor(self) -> Seq:
        """Return a sequence up to which every message of the channel has ended."""
        info = await self._consumer.info()
        return 0 if info is None else int(info["ack_floor"]["stream_seq"])

    async def messages(self, after: Seq) -> list[KeyedMessage]:
        """Return the next messages above a sequence, oldest first, about a megabyte of them. Empty only if there are none."""
        found = await self._log.after(self._channel, after)
        return [KeyedMessage(each.seq, key_of(each.envelope)) for each in found]

    async def marks(self, after: Seq) -> tuple[list[EndMark], Seq]:
        """Return all marks above a sequence, and the sequence of the last one."""
        marks: list[EndMark] = []
        while some := await self._log.following(subjects.marks(self._channel), after):
            after = some[-1].seq
            marks += [mark for each in some if (mark := _parsed(each.subject, each.data)) is not None]
        return marks, after

    async def is_stored(self, seq: Seq) -> bool:
        """Return whether a message has not been removed."""
        return not await self._log.is_removed(seq)

    async def follow(self, take: TakeMark) -> SubjectSubscription:
        """Call `take` with each mark as it is stored. Some may be missed, and can be read. End it by `unfollow`."""

        def on_message(message: IncomingMessage) -> bool:
            mark = _parsed(message.header(_SUBJECT), message.data)
            if mark is not None:
                take(mark)
            return True

        return await self._log.connection.subscribe(subjects.live_marks(self._channel), _on_slow_message, on_message)

    async def unfollow(self, subscription: SubjectSubscription) -> None:
        """End a subscription. May be repeated."""
        await self._log.connection.unsubscribe(subscription)

    async def store(self, mark: EndMark) -> None:
        """Store a mark. May be repeated. Raise also `LogRefused` and `QuotaFull`: it is not stored."""
        subject = subjects.end_marks(self._channel)
        try:
            answer = await self._log.connection.request(subject, end_mark_text(mark), timeout_s=ANSWER_S)
            check_answer(msgspec.json.decode(answer.data))
        except (NatsConnectionLost, TimeoutError, NoResponder) as exc:
            raise unreachable() from exc


async def store_end(tenant_log: TenantLog, channel: ChannelId, ended: Sequence[Seq]) -> None:
    """Store that messages of a channel have ended. Raise as `KeyLog.store` does."""
    await KeyLog(tenant_log, channel).store(EndMark(ended=list(ended)))


def _parsed(subject: str, data: bytes) -> EndMark | None:
    """Return the mark stored under a subject, or None if it names no ended message of this channel."""
    if subject.endswith(".ends"):
        return parse_end_mark(data)
    mark = subjects.parse_mark(Subject(subject))
    return EndMark(ended=[mark.seq]) if mark is not None and mark.kind == "dead" else None


async def _on_slow_message(_: Msg) -> None:
    raise AssertionError("the fast path takes every message")
