"""Reading channels without a consumer: live messages from the republished subject, missed ones from the log, in one gapless
order.

Each channel is read once for the whole server, however many agents subscribe (design, decision 4); `delivery` fans it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.inbox_router import InboxRouter, OnMessage, Unsubscribe
from artcafe.fabric.log_state import NO_LOG, CheckedEnd, LogEnd, LogState
from artcafe.fabric.nats.client import FastHandler, IncomingMessage
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.jetstream import seq_of
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.fabric.recent_live import RecentLiveMessages
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.observe.logs import log
from artcafe.rules import subjects
from artcafe.rules.inboxes import owner_of
from artcafe.rules.start_position import LogLineage
from artcafe.supervision import Supervisor

CHECK_CHANNELS: Final = 500
RETRY_S: Final = 0.2
"""Delay after a failed check. A server that has just started may need a moment to find its streams."""


Subscribe = Callable[[ChannelId, OnMessage, FastHandler], Awaitable[Unsubscribe]]


class ChannelSink(Protocol):
    """The receiver of one channel's messages."""

    def begin(self, last: Seq, lineage: LogLineage) -> None:
        """Begin after `last`: every later message will be passed to `take`, and `last` and earlier ones are in the log only.

        Called again when the reader cannot continue from its position: messages after it may have been removed unread, or the
        log, and with it `lineage`, is another one. Look in the log for the messages in between.
        """

    def record_first_epoch(self, lineage: LogLineage) -> None:
        """Note the lineage of a log created since `begin`."""

    def take(self, found: list[StoredMessage]) -> None:
        """Take the next messages, in order."""


class ChannelReader:
    """The reader of one channel: passes every message above `last` to the sink once and in order, and raises `last` in the same
    loop turn.

    While `is_sure`, no message was missed, and a live message without a predecessor above `last` is the next one. After a lost
    connection this must be checked with the log: retention may have removed missed messages, and then a live message names no
    predecessor at all.
    """

    def __init__(self, log: TenantLog, channel: ChannelId, sink: ChannelSink, subscribe: Subscribe, checked: CheckedEnd) -> None:
        """`subscribe` begins to pass the channel's live messages to a callback, as `NatsConnection.subscribe` does."""
        self.channel = channel
        self.last: Seq = 0
        self.lineage = LogLineage(None)
        self._log, self._sink, self._subscribe, self._checked = log, sink, subscribe, checked
        self._filling = asyncio.Lock()
        self._unsubscribe: Unsubscribe | None = None
        self.is_open = self.is_sure = False
        self.is_checked = False
        """Whether the last check has found nothing missing, and nothing has failed since."""

    async def open(self) -> None:
        """Begin after the newest message. Raise `Unavailable`."""
        async with self._filling:
            self._unsubscribe = await self._subscribe(self.channel, self._on_live, self._take)
            state = await self._log.state()
            last = await self._log.last_seq_of(self.channel) if state else 0
            self.is_open = True
            self._begin(last, state.lineage if state else LogLineage(None))

    async def close(self) -> None:
        """Stop reading. May be repeated."""
        self.is_open = False
        if self._unsubscribe is not None:
            await self._unsubscribe()

    async def catch_up(self) -> None:
        """Pass on all messages in the log above `last`, or begin again. Raise `Unavailable`, after passing on the messages read
        so far."""
        async with self._filling:
            if self.is_open:
                await self._read_missing()

    async def compare(self, lineage: LogLineage, newest: Seq, *, is_current: bool) -> None:
        """Catch up, unless `lineage` and `newest`, the channel's newest message in the log, prove that nothing is missing.

        `is_current`: the reporting replica was as far as the leader.
        """
        self.is_checked = False
        if lineage.epoch == self.lineage.epoch and newest == self.last > 0 and is_current:
            self.is_sure = True
        if lineage.epoch != self.lineage.epoch or newest > self.last or not self.is_sure:
            await self.catch_up()
        else:
            self.is_checked = is_current

    def _begin(self, last: Seq, lineage: LogLineage) -> None:
        self.last, self.lineage, self.is_sure, self.is_checked = last, lineage, lineage.epoch is not None, False
        self._sink.begin(last, lineage)

    async def _read_missing(self) -> None:
        state = await self._log.state()
        if state is None:
            raise unreachable()
        if self.lineage.epoch is None:
            self.lineage = state.lineage
            self._sink.record_first_epoch(state.lineage)
        if self.lineage.epoch != state.epoch:
            log.info("channel_reader.another_log", channel=self.channel, epoch=state.epoch)
            self._begin(await self._log.last_seq_of(self.channel), state.lineage)
            return
        found: list[StoredMessage] | None = None
        while found != []:
            found, is_whole = await self._log.after_anchor(self.channel, self.last, self.last)
            if not (is_whole or await self._is_complete()):
                self._begin(await self._log.last_seq_of(self.channel), self.lineage)
                return
            self._pass_on(found)
        self.is_sure = True

    async def _is_complete(self) -> bool:
        """Return whether no message was ever removed from the log."""
        state = await self._log.state()
        return state is not None and state.epoch == self.lineage.epoch and state.is_complete

    def _pass_on(self, found: list[StoredMessage]) -> None:
        if found:
            was_checked, self.is_checked = self.is_checked, False
            self._sink.take(found)
            # Last, so that messages that the sink failed to take are read again from the log.
            self.last, self.is_checked = found[-1].seq, was_checked

    def _take(self, live: IncomingMessage) -> bool:
        """Pass on a live message at once if it is the next one, as nearly all are. It never overtakes messages that wait for a
        gap to be filled, since it is not the next one then."""
        seq, before = seq_of(live), live.number(b"Nats-Last-Sequence")
        is_next = before <= self.last < seq and self.is_sure and self.is_open and not self._filling.locked()
        if is_next:
            self._pass_on([StoredMessage(seq, before or None, live.data, live)])
            self._checked.note(seq)
        return is_next

    async def _on_live(self, msg: Msg) -> None:
        headers = msg.headers or {}
        seq, before = int(headers.get("Nats-Sequence", 0)), int(headers.get("Nats-Last-Sequence", 0))
        try:
            async with self._filling:
                await self._fill_to(before)
                if seq > self.last and self.is_open:
                    self._pass_on([StoredMessage(seq, before or None, msg.data)])
        except OurFault as exc:  # the next live message, check or connection shows the gap again
            self.is_checked = False
            log.debug("channel_reader.behind", channel=self.channel, error=repr(exc))

    async def _fill_to(self, to: Seq) -> None:
        """Pass on all messages up to `to`, the predecessor of a live one, or begin again if that has been removed.

        Raise `Unavailable` if neither is certain now. The live message must not be passed on then.
        """
        if not self.is_open or (self.is_sure and self.last >= to):
            return
        await self._read_missing()
        if self.last < to:
            if not await self._log.is_removed(to):
                raise unreachable()
            self._begin(await self._log.last_seq_of(self.channel), self.lineage)


class LiveChannelReader:
    """The reader of one `live` channel, which is not stored: passes on what arrives, at most once."""

    def __init__(self, log: TenantLog, channel: ChannelId, sink: ChannelSink, recent: RecentLiveMessages) -> None:
        self._connection, self._channel, self._sink, self._recent = log.connection, channel, sink, recent
        self._subscription: SubjectSubscription | None = None

    async def open(self) -> None:
        """Subscribe to the channel. Raise `Unavailable`."""
        self._subscription = await self._connection.subscribe(subjects.live(self._channel), self._on_live, self._take)
        self._sink.begin(0, LogLineage(None))

    async def close(self) -> None:
        """Stop reading. May be repeated."""
        if self._subscription is not None:
            await self._connection.unsubscribe(self._subscription)

    def _take(self, live: IncomingMessage) -> bool:
        self._recent.add(self._channel, live.data)
        self._sink.take([StoredMessage(0, None, live.data)])
        return True

    async def _on_live(self, msg: Msg) -> None:
        self._recent.add(self._channel, msg.data)
        self._sink.take([StoredMessage(0, None, msg.data)])


class ChannelReaders:
    """The readers of one tenant's channels on this server."""

    def __init__(self, log: TenantLog) -> None:
        self._log = log
        self._readers: set[ChannelReader] = set()
        self._live: set[LiveChannelReader] = set()
        self.recent_live = RecentLiveMessages()
        """The messages of `live` channels that readers passed on, and those that this server published."""
        self._due, self._checked = asyncio.Event(), CheckedEnd()
        self.inboxes = InboxRouter(log, self._due, self._checked)
        self.supervisor = Supervisor("channel_readers")
        log.connection.on_up(self._mark_unsure)

    def __len__(self) -> int:
        return len(self._readers) + len(self._live)

    async def follow(self, channel: ChannelId, sink: ChannelSink) -> ChannelReader:
        """Return a reader that begins after the channel's newest message. Raise `Unavailable`; no reader is left then."""
        subscribe = self._subscribe if owner_of(channel) is None else self.inboxes.subscribe
        reader = ChannelReader(self._log, channel, sink, subscribe, self._checked)
        self._readers.add(reader)
        try:
            await reader.open()
            return reader
        finally:
            if not reader.is_open:
                await self.unfollow(reader)

    async def _subscribe(self, channel: ChannelId, on_message: OnMessage, fast: FastHandler) -> Unsubscribe:
        connection = self._log.connection
        return partial(connection.unsubscribe, await connection.subscribe(subjects.live(channel), on_message, fast))

    async def follow_live(self, channel: ChannelId, sink: ChannelSink) -> LiveChannelReader:
        """Return a reader of a `live` channel. Raise `Unavailable`; no reader is left then."""
        reader = LiveChannelReader(self._log, channel, sink, self.recent_live)
        await reader.open()
        self._live.add(reader)
        return reader

    async def unfollow(self, reader: ChannelReader | LiveChannelReader) -> None:
        """Stop a reader. May be repeated."""
        if isinstance(reader, LiveChannelReader):
            self._live.discard(reader)
        else:
            self._readers.discard(reader)
        await reader.close()

    def _mark_unsure(self) -> None:
        """Note that messages may have been missed: check the log before passing on more."""
        for reader in self._readers:
            reader.is_sure = reader.is_checked = False
        self._due.set()

    @property
    def is_following(self) -> bool:
        """Whether there is anything to be checked with the log."""
        return bool(self._readers) or len(self.inboxes) > 0

    def lacks_nothing(self, end: LogEnd) -> bool:
        """Return whether no message of a log that ends here is missing, as far as was checked."""
        is_checked = end == NO_LOG or all(reader.is_checked for reader in self._readers)
        return is_checked and self._checked.is_at(end) and not self.inboxes.is_comparing

    def check_soon(self) -> None:
        """Check the log for missed messages."""
        self._due.set()

    async def run(self) -> None:
        """Check for missed messages after each new connection, for new connections of agents, and when `check_soon` is called."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                is_done = await self._check()
            except OurFault as exc:
                log.debug("channel_readers.check_failed", error=repr(exc))
                is_done = False
            if not is_done:
                await asyncio.sleep(RETRY_S)
                if self._log.connection.is_up:  # Otherwise the next connection has the log checked.
                    self._due.set()

    async def _check(self) -> bool:
        """Check every channel and inbox. Return whether the replicas that answered were as far as the leader."""
        if not self.is_following:
            return True
        new, state, is_compared = await self.inboxes.begin_check(), await self._log.state(), False
        with self.supervisor.contain(OurFault):
            await self.inboxes.compare(new, state)
            is_compared = True
        end = NO_LOG if state is None else state.end
        is_current = state is None or self.lacks_nothing(end) or await self._compare(state)
        if is_current and is_compared:
            self._checked.set(end)
        return is_current

    async def _compare(self, state: LogState) -> bool:
        """Compare every channel with the log. Return whether the replicas that answered were as far as the leader."""
        readers, is_current = list(self._readers), True
        for start in range(0, len(readers), CHECK_CHANNELS):
            some = readers[start : start + CHECK_CHANNELS]
            newest, end = await self._log.last_seqs_and_end([reader.channel for reader in some])
            is_this_current = end >= state.last_seq or (not newest and self._log.replicas == 1)
            is_current = is_current and (is_this_current or not newest)
            for reader in some:
                last = newest.get(subjects.stored(reader.channel), 0)
                with self.supervisor.contain(OurFault, channel=reader.channel):
                    await reader.compare(state.lineage, last, is_current=is_this_current)
        return is_current
