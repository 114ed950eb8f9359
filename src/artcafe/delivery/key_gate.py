"""The messages with keys of one queue channel on this server: each waits here until it is the first of its key.

NATS delivers a message to one server at a time. That server holds it back until the log shows the end of every earlier
message of its key, on any server. So no server leads, and none must be asked (decision record 53).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from artcafe.delivery.queue_stage import FRESH_S, Passes, Place, StartTask
from artcafe.errors import LogRefused, OurFault, QuotaFull
from artcafe.fabric.key_log import KeyLog
from artcafe.fabric.work_queue import QueuedMessage, WorkQueue
from artcafe.model import QueueSettings, Seq
from artcafe.observe.logs import log
from artcafe.rules.key_order import KeyOrder
from artcafe.supervision import Supervisor
from artcafe.wire.envelopes import EndMark

MOST_WAITING: Final = 4096
"""Messages waiting for earlier ones of their keys on a server. With as many, or `MOST_BYTES`, it pulls no further ones."""
MOST_BYTES: Final = 16 << 20
MOST_IN_MARK: Final = 1000
"""Sequences in one mark."""
TICK_S: Final = 0.5
POLL_S: Final = 2.0
"""How often the marks are read while messages wait: one may have been missed with a connection."""
COMPARE_S: Final = 10.0
"""How often the ack floor and the first messages of keys are looked up while messages wait."""
MOST_COMPARED: Final = 64
RETRY_S: Final = 0.2


class KeyedFeed(Protocol):
    """The feed of the channel."""

    settings: QueueSettings
    queue: WorkQueue

    @property
    def held(self) -> Mapping[Seq, object]:
        """The messages with holders on this server."""

    @property
    def has_room(self) -> bool:
        """Whether a holder takes a message now."""

    def place(self, message: QueuedMessage) -> None:
        """Give a message to the next holder in turn."""


class _Waiting:
    """A message with possibly earlier ones of its key. `is_checked`: the log showed an earlier one."""

    __slots__ = ("is_checked", "message", "place")

    def __init__(self, message: QueuedMessage, place: Place) -> None:
        self.message, self.place = message, place
        self.is_checked = False


class KeyGate:
    """Holds messages back, and stores the ends of acknowledged ones. Its task runs from the first message on."""

    def __init__(self, feed: KeyedFeed, key_log: KeyLog, spawn: StartTask) -> None:
        self._feed, self._log, self._spawn = feed, key_log, spawn
        self._order: KeyOrder | None = None
        self._marks_to: Seq = 0
        """The marks up to here were read."""
        self._waiting: dict[Seq, _Waiting] = {}
        self._candidates: set[Seq] = set()
        """Waiting messages, possibly the first of their keys, or ended, now."""
        self._bytes = 0
        """Size of the waiting messages."""
        self._ending: dict[Seq, QueuedMessage] = {}
        """Acknowledged messages with ends to be stored."""
        self._returning: dict[Seq, QueuedMessage] = {}
        """Messages to be given back, without a holder."""
        self._unseen: dict[Seq, int] = {}
        """By message: how many of its deliveries no holder got."""
        self._wake, self._passes = asyncio.Event(), Passes()
        self._is_running = self._is_closing = False
        self._polled_at = self._compared_at = self._kept_at = float("-inf")
        self.supervisor = Supervisor("key_gate")

    # --- the feed's side ---------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether no further messages should be pulled."""
        return len(self._waiting) >= MOST_WAITING or self._bytes >= MOST_BYTES

    def __contains__(self, seq: Seq) -> bool:
        """Return whether a message waits here, or its end is still to be stored."""
        return seq in self._waiting or seq in self._ending

    def offer(self, message: QueuedMessage, place: Place) -> None:
        """Give a delivered message with a key to `place` once it is the first of its key, or after a wait to the feed."""
        if message.seq in self._ending:  # NATS was restarted, and has forgotten its delivery
            self._ending[message.seq] = message
            return
        waiting = self._waiting.get(message.seq)
        if waiting is not None:
            waiting.message = message
            self._candidates.add(message.seq)
            self._wake.set()
            return
        order = self._order
        is_first = order is not None and message.deliveries == 1 and order.is_first(message.seq)
        if is_first and (self._feed.has_room or place != self._feed.place):
            place(message)
            return
        self._waiting[message.seq] = _Waiting(message, place)
        self._candidates.add(message.seq)
        self._bytes += len(message.envelope)
        self._start()

    def end(self, message: QueuedMessage) -> None:
        """Acknowledge a message, once its end is stored. If that takes too long, it is delivered again instead."""
        self._ending[message.seq] = message
        self._start()

    def counted(self, message: QueuedMessage) -> QueuedMessage:
        """Return a message with the number of its deliveries to holders instead of all its deliveries."""
        unseen = self._unseen.get(message.seq, 0)
        return message._replace(deliveries=max(1, message.deliveries - unseen)) if unseen else message

    async def checked(self) -> None:
        """Return once each message so far has a holder or must wait for another one, at the latest after `ANSWER_S`."""
        new = {seq for seq, waiting in self._waiting.items() if not waiting.is_checked}
        await self._passes.wait_until(lambda: not any(seq in self._waiting and not self._waiting[seq].is_checked for seq in new))

    async def flushed(self) -> None:
        """Return once the ends so far are stored, or after `ANSWER_S`."""
        ending = set(self._ending)
        await self._passes.wait_until(lambda: ending.isdisjoint(self._ending))

    def forget(self) -> None:
        """Forget every message and everything read: the log is another one."""
        self._order = None
        self._waiting.clear()
        self._candidates.clear()
        self._ending.clear()
        self._returning.clear()
        self._unseen.clear()
        self._bytes = 0

    def open(self) -> None:
        """Let all messages pass: the channel orders none any more. Those that no holder has room for are given back."""
        self._order = None  # what ends from now on has no mark, and is read again if the channel orders its messages again
        self._candidates.update(self._waiting)
        self._wake.set()

    def close(self) -> None:
        """Stop, and let `leave` do the rest. May be repeated."""
        self._is_closing = True
        self._wake.set()

    async def leave(self) -> None:
        """Give back waiting messages, and store the last ends, after `close` and the last message. Raise `Unavailable`."""
        for seq in list(self._waiting):
            self._return(self._take(seq).message)
        while self._ending or self._returning:
            await self._store()

    def _start(self) -> None:
        self._wake.set()
        if not (self._is_running or self._is_closing):
            self._is_running = True
            self._spawn(self.supervisor.keep(self._run))

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        subscription = None
        try:
            while not self._is_closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S if self._waiting else None):
                        await self._wake.wait()
                self._wake.clear()
                with self.supervisor.contain():
                    try:
                        if subscription is None:
                            subscription = await self._log.follow(self._note)
                        await self._store()
                        await self._admit()
                        await self._keep()
                    except (OurFault, TimeoutError) as exc:
                        log.debug("key_gate.waits", error=repr(exc))
                        await asyncio.sleep(RETRY_S)
                        self._wake.set()
                self._passes.note()
        finally:
            if subscription is not None:
                await self._log.unfollow(subscription)

    # --- ends --------------------------------------------------------------------------------------------------------

    async def _store(self) -> None:
        """Store ends and then acknowledge those messages; give back others, noted as never held. Raise
        `Unavailable`."""
        now = time.monotonic()
        for seq in [seq for seq, message in self._ending.items() if now >= self._feed.queue.exclusive_until(message)]:
            del self._ending[seq]  # NATS delivers it again, and another server may have it by now
        ended = dict(list(self._ending.items())[:MOST_IN_MARK])
        returned = dict(list(self._returning.items())[:MOST_IN_MARK])
        if not ended and not returned:
            return
        unseen = [(seq, self._unseen.get(seq, 0) + 1) for seq in returned]
        mark = EndMark(ended=list(ended), unseen=unseen)
        try:
            await self._log.store(mark)
        except (LogRefused, QuotaFull) as exc:
            # The work is done. Until the ack floor has passed it, other servers take this message for an unfinished one.
            log.warning("key_gate.end_not_stored", messages=len(ended), error=str(exc))
        for seq, message in ended.items():
            if self._ending.pop(seq, None) is not None:
                self._feed.queue.ack(message)
        for seq, message in returned.items():
            if self._returning.pop(seq, None) is not None:
                self._feed.queue.nak(message)
        self._note(mark)

    def _note(self, mark: EndMark) -> None:
        """Apply a mark from this server or another."""
        for seq, count in mark.unseen:
            self._unseen[seq] = max(count, self._unseen.get(seq, 0))
        for seq in mark.ended:
            self._unseen.pop(seq, None)
            following = None if self._order is None else self._order.end(seq)
            for each in (seq, following):
                if each in self._waiting:
                    self._candidates.add(each)
                    self._wake.set()

    def _return(self, message: QueuedMessage) -> None:
        """Give back a message without a holder, for another server with room."""
        self._returning[message.seq] = message
        self._wake.set()

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _admit(self) -> None:
        """Give each waiting message, if it is the first of its key now, to a holder. Raise `Unavailable`."""
        order = await self._read_order()
        candidates, self._candidates = sorted(self._candidates), set()
        waiting = [self._waiting[seq] for seq in candidates if seq in self._waiting]
        first = waiting if order is None else [each for each in waiting if self._is_first(order, each)]
        try:
            await self._extend([each for each in first if time.monotonic() - each.message.taken_at > FRESH_S])
        except OurFault:
            self._candidates.update(each.message.seq for each in first)
            raise
        for each in first:
            if self._waiting.get(each.message.seq) is each:
                self._admit_one(each)

    def _is_first(self, order: KeyOrder, waiting: _Waiting) -> bool:
        """Return whether a message is the first of its key. End one that has ended, and let any other wait."""
        seq = waiting.message.seq
        if order.is_ended(seq):  # its ack was lost, or retention has removed it
            self._feed.queue.ack(self._take(seq).message)
        elif order.is_first(seq):
            return True
        elif seq > order.read_to:  # it came while the log was read
            self._candidates.add(seq)
            self._wake.set()
        else:
            self._let_wait(waiting)
        return False

    def _let_wait(self, waiting: _Waiting) -> None:
        """Note a message waiting for an earlier one."""
        if not waiting.is_checked:
            waiting.is_checked, waiting.place = True, self._feed.place
            # It was never the first, so no holder got any of its deliveries.
            seq = waiting.message.seq
            self._unseen[seq] = max(self._unseen.get(seq, 0), waiting.message.deliveries - 1)

    def _admit_one(self, waiting: _Waiting) -> None:
        message = self._take(waiting.message.seq).message
        if waiting.place == self._feed.place and not self._feed.has_room:
            self._return(message)  # the holders of another server may have room
        elif time.monotonic() < self._feed.queue.exclusive_until(message):
            waiting.place(self.counted(message))

    def _take(self, seq: Seq) -> _Waiting:
        was_full = self.is_full
        waiting = self._waiting.pop(seq)
        self._bytes -= len(waiting.message.envelope)
        if was_full and not self.is_full:
            self._feed.queue.wake()
        return waiting

    async def _read_order(self) -> KeyOrder | None:
        """Return the order; None if the channel orders nothing any more: then only the counts of deliveries are read. Raise
        `Unavailable`."""
        if self._feed.settings.key_ordered:
            await self._read()
        elif self._waiting:
            self._marks_to = self._marks_to or await self._log.floor()
            await self._read_marks()
        if not self._feed.settings.key_ordered:  # also if it was switched off during the read
            self._order = None
        return self._order

    async def _read(self) -> KeyOrder:
        """Return the order, read up to the new messages; with every mark if one of them may have ended before."""
        new = [self._waiting[seq] for seq in self._candidates if seq in self._waiting and not self._waiting[seq].is_checked]
        order = self._order
        is_new = order is None
        if order is None:
            floor = await self._log.floor()
            order, self._marks_to = KeyOrder(floor), floor
        target = max((each.message.seq for each in new), default=0)
        while order.read_to < max(target, order.unread_to):
            found = await self._log.messages(order.read_to)
            for seq, key in found:
                if key is not None:
                    order.add(seq, key)
            order.reach(found[-1].seq if found else max(target, order.unread_to))
        self._order = order
        is_repeated = any(each.message.deliveries > 1 for each in new)
        if is_new or is_repeated or (self._waiting and time.monotonic() > self._polled_at + POLL_S):
            await self._read_marks()
        return order

    async def _read_marks(self) -> None:
        marks, self._marks_to = await self._log.marks(self._marks_to)
        for mark in marks:
            self._note(mark)
        self._polled_at = time.monotonic()

    # --- waiting messages ----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Extend waiting messages, and look for ends without a mark, such as removals by retention."""
        now = time.monotonic()
        if not self._waiting or now < self._kept_at + TICK_S:
            return
        self._kept_at = now
        for seq in [seq for seq, each in self._waiting.items() if now >= self._feed.queue.exclusive_until(each.message)]:
            self._take(seq)  # as in `_store`
        half_s = self._feed.settings.ack_wait_s / 2
        await self._extend([each for each in self._waiting.values() if now - each.message.taken_at > half_s])
        order = self._order
        if order is None or now < self._compared_at + COMPARE_S:
            return
        self._compared_at = now
        order.raise_floor(await self._log.floor())
        known = {*self._waiting, *self._feed.held}
        blockers = {first for seq in self._waiting if (first := order.blocker(seq)) is not None and first not in known}
        for first in list(blockers)[:MOST_COMPARED]:
            if not await self._log.is_stored(first):
                order.end(first)
        self._candidates.update(self._waiting)
        self._wake.set()

    async def _extend(self, waiting: Collection[_Waiting]) -> None:
        """Let the deadlines of messages begin again. Raise `Unavailable`."""
        some = list(waiting)[:MOST_WAITING]
        if some:
            taken_at = await self._feed.queue.extend_each([each.message for each in some])
            for each in some:
                each.message = each.message._replace(taken_at=taken_at)
