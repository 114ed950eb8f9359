"""Following channels without a consumer: live messages from the republished subject, everything missed from the log, no seam.

A channel is read once per server, however many agents listen (design, decision 4). Handing on to sockets is `delivery.hub`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.jetstream import seq_of
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.observe.logs import log
from artcafe.rules import subjects
from artcafe.rules.start_position import LogLineage
from artcafe.supervision import Supervisor

LOOK_S: Final = 5.0
"""How often the log is asked whether a channel has something newer than was seen. Republishing is at most once: a leader that
dies between storing and repeating leaves nothing behind that would show the gap until the next message."""
LOOK_CHANNELS: Final = 500
RETRY_S: Final = 0.2
"""After a look that failed: a server that has just come up may need a moment until it finds its streams."""


class ChannelSink(Protocol):
    """Who a channel is followed for."""

    def begin(self, last: Seq, life: LogLineage) -> None:
        """Everything above `last` will be handed on; `last` and below is in the log alone.

        Comes again where the reader cannot go on from what it handed on: something behind that may have been removed before it
        was read, or the log is another one, and `life` with it. What is not handed on then is to be looked for in the log.
        """

    def begun(self, life: LogLineage) -> None:
        """The log, which had not begun, has."""

    def take(self, found: list[StoredMessage]) -> None:
        """The next messages, in order."""


class ChannelReader:
    """One channel: every message above `last`, once and in order, goes to the sink in the loop turn in which `last` rises.

    While `is_sure` nothing was missed, and a live message that names none above `last` before it is the next. After a lost
    connection that has to be found out: retention may have been faster, and then a message names no other before it at all.
    """

    def __init__(self, log: TenantLog, channel: ChannelId, sink: ChannelSink) -> None:
        self.channel = channel
        self.last: Seq = 0
        self.lineage = LogLineage(None)
        self._log, self._sink = log, sink
        self._filling = asyncio.Lock()
        self._follow: SubjectSubscription | None = None
        self.is_open = self.is_sure = False

    async def open(self) -> None:
        """Begins behind the newest message. Raises `Unavailable`."""
        async with self._filling:
            self._follow = await self._log.connection.subscribe(subjects.live(self.channel), self._on_live, self._take)
            state = await self._log.state()
            last = await self._log.last_seq_of(self.channel) if state else 0
            self.is_open = True
            self._begin(last, state.lineage if state else LogLineage(None))

    async def close(self) -> None:
        """Hands nothing on any more. May be repeated."""
        self.is_open = False
        if self._follow is not None:
            await self._log.connection.unsubscribe(self._follow)

    async def catch_up(self) -> None:
        """Hands on from the log whatever is above `last`, or begins again. Raises `Unavailable`; what was read is handed on."""
        async with self._filling:
            if self.is_open:
                await self._read_missing()

    async def compare(self, life: LogLineage, newest: Seq, *, is_current: bool) -> None:
        """Read what is missing, unless a log of this life with this newest message of the channel shows that nothing is.

        `is_current`: the copy of the log that answered had come as far as its leader.
        """
        if life.epoch == self.lineage.epoch and newest == self.last > 0 and is_current:
            self.is_sure = True
        elif life.epoch != self.lineage.epoch or newest > self.last or not self.is_sure:
            await self.catch_up()

    def _begin(self, last: Seq, life: LogLineage) -> None:
        self.last, self.lineage, self.is_sure = last, life, life.epoch is not None
        self._sink.begin(last, life)

    async def _read_missing(self) -> None:
        state = await self._log.state()
        if state is None:
            raise unreachable()
        if self.lineage.epoch is None:
            self.lineage = state.lineage
            self._sink.begun(state.lineage)
        if self.lineage.epoch != state.epoch:
            log.info("reader.another_log", channel=self.channel, epoch=state.epoch)
            self._begin(await self._log.last_seq_of(self.channel), state.lineage)
            return
        found: list[StoredMessage] | None = None
        while found != []:
            found, is_whole = await self._log.after_anchor(self.channel, self.last, self.last)
            if not (is_whole or await self._is_complete()):
                self._begin(await self._log.last_seq_of(self.channel), self.lineage)
                return
            self._hand_on(found)
        self.is_sure = True

    async def _is_complete(self) -> bool:
        """Whether nothing was ever removed from the log."""
        state = await self._log.state()
        return state is not None and state.epoch == self.lineage.epoch and state.is_complete

    def _hand_on(self, found: list[StoredMessage]) -> None:
        if found:
            self._sink.take(found)
            self.last = found[-1].seq  # Behind that, so that what the sink failed to take is tried again from the log.

    def _take(self, live: IncomingMessage) -> bool:
        """Hands a live message on at once if it is the next one, as nearly all are. Those that wait for a gap to be filled stand
        before it, so it never overtakes them."""
        seq, before = seq_of(live), live.number(b"Nats-Last-Sequence")
        is_next = before <= self.last < seq and self.is_sure and self.is_open and not self._filling.locked()
        if is_next:
            self._hand_on([StoredMessage(seq, before or None, live.data)])
        return is_next

    async def _on_live(self, msg: Msg) -> None:
        headers = msg.headers or {}
        seq, before = int(headers.get("Nats-Sequence", 0)), int(headers.get("Nats-Last-Sequence", 0))
        try:
            async with self._filling:
                await self._fill_to(before)
                if seq > self.last and self.is_open:
                    self._hand_on([StoredMessage(seq, before or None, msg.data)])
        except OurFault as exc:  # the next live message, look or connection shows the gap again
            log.debug("reader.behind", channel=self.channel, error=repr(exc))

    async def _fill_to(self, to: Seq) -> None:
        """Hand on everything up to `to`, the message before a live one, or begin again if that has been removed.

        Raises `Unavailable` where neither can be known now: the live message must not be handed on then.
        """
        if not self.is_open or (self.is_sure and self.last >= to):
            return
        await self._read_missing()
        if self.last < to:
            if not await self._log.is_removed(to):
                raise unreachable()
            self._begin(await self._log.last_seq_of(self.channel), self.lineage)


class LiveChannelReader:
    """One `live` channel, of which nothing is stored: whatever comes is handed on, at most once."""

    def __init__(self, log: TenantLog, channel: ChannelId, sink: ChannelSink) -> None:
        self._connection, self._channel, self._sink = log.connection, channel, sink
        self._follow: SubjectSubscription | None = None

    async def open(self) -> None:
        """Raises `Unavailable`."""
        self._follow = await self._connection.subscribe(subjects.live(self._channel), self._on_live, self._take)
        self._sink.begin(0, LogLineage(None))

    async def close(self) -> None:
        """Hands nothing on any more. May be repeated."""
        if self._follow is not None:
            await self._connection.unsubscribe(self._follow)

    def _take(self, live: IncomingMessage) -> bool:
        self._sink.take([StoredMessage(0, None, live.data)])
        return True

    async def _on_live(self, msg: Msg) -> None:
        self._sink.take([StoredMessage(0, None, msg.data)])


class ChannelReaders:
    """Every channel of one tenant that someone on this server follows."""

    def __init__(self, log: TenantLog, *, look_s: float = LOOK_S) -> None:
        self._log, self._look_s = log, look_s
        self._readers: set[ChannelReader] = set()
        self._live: set[LiveChannelReader] = set()
        self._due = asyncio.Event()
        self.supervisor = Supervisor("tail")
        log.connection.on_up(self._doubt)

    def __len__(self) -> int:
        return len(self._readers) + len(self._live)

    async def follow(self, channel: ChannelId, sink: ChannelSink) -> ChannelReader:
        """A reader that has begun behind the channel's newest message. Raises `Unavailable`, and nothing is followed then."""
        reader = ChannelReader(self._log, channel, sink)
        self._readers.add(reader)
        try:
            await reader.open()
            return reader
        finally:
            if not reader.is_open:
                await self.unfollow(reader)

    async def follow_live(self, channel: ChannelId, sink: ChannelSink) -> LiveChannelReader:
        """A reader of a `live` channel. Raises `Unavailable`, and nothing is followed then."""
        reader = LiveChannelReader(self._log, channel, sink)
        await reader.open()
        self._live.add(reader)
        return reader

    async def unfollow(self, reader: ChannelReader | LiveChannelReader) -> None:
        """Hands nothing on any more. May be repeated."""
        if isinstance(reader, LiveChannelReader):
            self._live.discard(reader)
        else:
            self._readers.discard(reader)
        await reader.close()

    def _doubt(self) -> None:
        """Something may have been missed: nothing is handed on before the log was asked."""
        for reader in self._readers:
            reader.is_sure = False
        self._due.set()

    async def run(self) -> None:
        """Looks whether a channel has something that its reader was not shown: with each new connection and every few seconds."""
        wait_s = self._look_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._due.wait()
            self._due.clear()
            try:
                wait_s = self._look_s if await self._look() else RETRY_S
            except OurFault as exc:
                log.debug("tail.look_failed", error=repr(exc))
                wait_s = RETRY_S

    async def _look(self) -> bool:
        """Return whether the copies of the log that were asked had come as far as its leader."""
        readers = list(self._readers)
        state = await self._log.state() if readers else None
        if state is None:
            return True
        is_level = True
        for start in range(0, len(readers), LOOK_CHANNELS):
            some = readers[start : start + LOOK_CHANNELS]
            newest, end = await self._log.last_seqs_and_end([reader.channel for reader in some])
            is_level = is_level and (end >= state.last_seq or not newest)
            for reader in some:
                last = newest.get(subjects.stored(reader.channel), 0)
                with self.supervisor.contain(OurFault, channel=reader.channel):
                    await reader.compare(state.lineage, last, is_current=end >= state.last_seq)
        return is_level
