"""One queue channel on this server: its holders, the messages they hold, and the deadlines of those.

A message has one holder at a time. It goes to the next agent in turn, and to the next of that agent's holders in turn, among
those with room in their windows. It is given back when its holder gives it back, leaves, or misses the deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import Protocol

from artcafe.delivery.channel_tracing import ChannelTracing
from artcafe.delivery.deadlines import Deadlines
from artcafe.delivery.key_gate import KeyGate
from artcafe.delivery.other_holders import AskedServers, OtherHolders
from artcafe.delivery.queue_holder import HeldMessage, Holder
from artcafe.delivery.queue_stage import Place, StartTask
from artcafe.delivery.recent_acks import RecentAcks
from artcafe.errors import NotHeld
from artcafe.fabric.key_log import KeyLog
from artcafe.fabric.tenant_log import TenantLog
from artcafe.fabric.work_queue import Confirm, QueuedMessage, WorkQueue
from artcafe.model import ChannelId, QueueSettings, Seq, TenantId
from artcafe.observe import metrics
from artcafe.rules.queues import pause_after
from artcafe.supervision import Supervisor
from artcafe.wire.envelopes import DeadLetterReason, key_of

_acked, _nacked, _expired, _returned = (metrics.QUEUE_ENDS.of(how) for how in metrics.QUEUE_OUTCOMES)


class Mover(Protocol):
    """Moves messages without a holder to the dead-letter channel, and ends them in their queue."""

    def move_undeliverable(self, feed: QueueFeed, message: QueuedMessage) -> bool:
        """Move a message that nobody may get any more, and return True; False for any other."""

    def move(self, feed: QueueFeed, message: QueuedMessage, reason: DeadLetterReason, deliveries: int) -> None:
        """Move a message after this many deliveries."""


class QueueFeed:
    """The part of a queue channel on this server. `queue_hub` makes it, and runs its work queue."""

    def __init__(
        self,
        tenant_log: TenantLog,
        tenant_id: TenantId,
        channel: ChannelId,
        settings: QueueSettings,
        confirm: Confirm,
        servers: AskedServers,
        mover: Mover,
        spawn: StartTask,
        tracing: ChannelTracing | None = None,
    ) -> None:
        self.tenant_id, self.channel, self.settings, self.tracing = tenant_id, channel, settings, tracing
        self.handle: str | None = None
        """The channel's handle, for its pushes."""
        self._mover = mover
        self.queue = WorkQueue(tenant_log, channel, settings, self, confirm)
        self._others = OtherHolders(self, servers, spawn)
        self._gate = KeyGate(self, KeyLog(tenant_log, channel), spawn)
        self.held: dict[Seq, HeldMessage] = {}
        self.recent_acks = RecentAcks()
        self.users = 0
        """Present holders, and those about to join. The hub closes the feed without any."""
        self.counts: dict[str, int] = {}
        """Messages handed out by receiver, since the last `take_counts`."""
        self._members: set[Holder] = set()
        self._ready: dict[str, dict[Holder, None]] = {}
        """The holders with room of each agent, both in the order of their turns."""
        self._room = 0
        """The room of all holders."""
        self._waiting: deque[QueuedMessage] = deque()
        """Pulled messages without a holder, because one has left or paused since the request for them."""
        self._handed: dict[Holder, list[QueuedMessage]] = {}
        """Messages of this turn of the event loop, to be handed over together."""
        self._deadlines = Deadlines[HeldMessage | QueuedMessage](
            self._give_back, self._with_deadline, lambda: partial(_is_current, set(self._waiting)), "queue_deadlines"
        )
        self._loop = asyncio.get_running_loop()
        self.supervisor = Supervisor("queue_feed")

    # --- holders -----------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many messages can be pulled now: as many as fit the windows, less the pulled messages waiting for a holder."""
        return 0 if self._gate.is_full else max(0, self._room - len(self._waiting) - len(self._others))

    @property
    def has_room(self) -> bool:
        """Whether a holder takes a message now."""
        return self._room > len(self._waiting)

    def join(self, holder: Holder) -> None:
        """Add a holder. It gets messages from now on."""
        self._members.add(holder)
        self.update(holder)

    def leave(self, holder: Holder) -> None:
        """Remove a holder, and give back its messages, to be delivered again at once. May be repeated."""
        if holder not in self._members:
            return
        self._members.remove(holder)
        self._count_room(holder, 0)
        self._handed.pop(holder, None)
        self.give_back(holder)
        self.queue.shrink()
        if not self._members:
            self._give_back_waiting()

    def _give_back_waiting(self) -> None:
        """Give back the messages that wait for a holder."""
        while self._waiting:
            self.queue.nak(self._waiting.popleft())

    def give_back(self, holder: Holder) -> None:
        """Give back the messages of a holder, to be delivered again at once. May be repeated."""
        for held in list(holder.held.values()):
            self._end(held)
            self.queue.nak(held.message)
        _returned.add(len(holder.held))
        holder.held.clear()

    def update(self, holder: Holder) -> None:
        """Note a change of a holder's room: another `max_unacked`, or `is_open`."""
        if holder in self._members:
            if holder.room < holder.counted_room:
                self.queue.shrink()
            self._count_room(holder, holder.room)
            self._give_waiting()
            self.queue.wake()

    def _count_room(self, holder: Holder, room: int) -> None:
        """Count a holder's room, and give it a turn if it has any."""
        self._room += room - holder.counted_room
        holder.counted_room = room
        of_agent = self._ready.get(holder.receiver)
        if room:
            if of_agent is None:
                of_agent = self._ready[holder.receiver] = {}
            of_agent.setdefault(holder)
        elif of_agent is not None:
            of_agent.pop(holder, None)
            if not of_agent:
                del self._ready[holder.receiver]

    def _next_holder(self) -> Holder | None:
        """Return the next holder in turn, and move it and its agent to the end; None if none has room."""
        while self._ready:
            agent = next(iter(self._ready))
            holders = self._ready.pop(agent)
            holder = next(iter(holders))
            del holders[holder]
            if holders:
                self._ready[agent] = holders
            if holder.room > 0:
                self._ready.setdefault(agent, holders)[holder] = None
                return holder
            self._count_room(holder, 0)
        return None

    # --- messages ----------------------------------------------------------------------------------------------------

    def take(self, message: QueuedMessage, place: Place | None = None) -> None:
        """Give a pulled message its holder, by `place` if given. One with a key may have to wait for an earlier one."""
        if self._keeps_holder(message):
            return
        place = place or self.place
        if self._others.may_have_it and not self.has_waiting(message.seq):
            self._others.keep(message, partial(self._admit, place))
        else:
            self._admit(place, message)

    def has_waiting(self, seq: Seq) -> bool:
        """Return whether a message of this server waits for a holder, or for its key."""
        return seq in self._gate or any(each.seq == seq for each in self._waiting)

    def _admit(self, place: Place, message: QueuedMessage) -> None:
        """Give a message to `place`, once it is the first of its key."""
        gate = self._gate_of(message)
        if gate is None and message.deliveries > self.settings.max_deliveries and key_of(message.envelope) is not None:
            gate = self._gate  # it knows the deliveries that no holder got, while the channel ordered its messages
        if gate is not None:
            gate.offer(message, place)
        else:
            place(message)

    def place(self, message: QueuedMessage) -> None:
        """Give a message to the next holder in turn, or move it to the dead-letter channel if nobody may get it any more."""
        if not self._mover.move_undeliverable(self, message):
            self._give_to_next(message)

    def hold_for(self, holder: Holder, message: QueuedMessage) -> HeldMessage | None:
        """Give a message to the holder it was fetched for, outside of the turns. Return None if it is not delivered."""
        deadline = message.taken_at + self.settings.ack_wait_s
        if self._mover.move_undeliverable(self, message):
            return None
        if deadline <= time.monotonic():  # as in `_give_to_next`
            self.queue.nak(message)
            return None
        return self._hold(message, holder, deadline)

    def _gate_of(self, message: QueuedMessage) -> KeyGate | None:
        """Return the gate of a message's key, or None for a message without one."""
        return self._gate if self.settings.key_ordered and key_of(message.envelope) is not None else None

    def _keeps_holder(self, message: QueuedMessage) -> bool:
        """Return whether a message sent by NATS is held already."""
        known = self.held.get(message.seq)
        if known is None:
            return False
        if known.deadline > time.monotonic():
            # NATS was restarted, and has forgotten its delivery. Its holder stays the same.
            known.message = self._gate.counted(message)._replace(taken_at=known.message.taken_at)
            return True
        self._release(known)
        _expired.add()
        return False

    def _give_to_next(self, message: QueuedMessage) -> None:
        """Give a message to the next holder in turn, or keep it until a holder has room."""
        deadline = message.taken_at + self.settings.ack_wait_s
        if deadline <= time.monotonic() or not self._members:
            self.queue.nak(message)  # after a stop of this process another server may have it; without members only others can
            return
        holder = self._next_holder()
        if holder is None:
            self._waiting.append(message)
            self._deadlines.add(deadline, message)
            return
        self._hold(message, holder, deadline)
        self._count_room(holder, holder.room)
        if not self._handed:
            self._loop.call_soon(self._hand_over)
        self._handed.setdefault(holder, []).append(message)

    def _hold(self, message: QueuedMessage, holder: Holder, deadline: float) -> HeldMessage:
        held = self.held[message.seq] = holder.held[message.seq] = HeldMessage(message, holder, deadline)
        self._deadlines.add(deadline, held)
        self.counts[holder.receiver] = self.counts.get(holder.receiver, 0) + 1
        if message.deliveries > 1:
            metrics.QUEUE_REDELIVERIES.of(tenant=self.tenant_id).add()
        return held

    def _give_waiting(self) -> None:
        while self._waiting and self._ready:
            self._give_to_next(self._waiting.popleft())

    def _hand_over(self) -> None:
        handed, self._handed = self._handed, {}
        for holder, messages in handed.items():
            span = None if self.tracing is None else self.tracing.start_deliver(messages)
            with self.supervisor.contain(channel=self.channel):
                holder.hand(messages)
            if span is not None:
                span.end()

    # --- ends --------------------------------------------------------------------------------------------------------

    def ack(self, holder: Holder, seq: Seq) -> None:
        """Remove a message from the queue: its holder is done. Raises `NotHeld`."""
        held = self._held_by(holder, seq)
        self._release(held)
        self.recent_acks.note(seq, holder.receiver, self.queue.epoch)
        gate = self._gate_of(held.message)
        if gate is not None:
            gate.end(held.message)
        else:
            self.queue.ack(held.message)
        _acked.add()
        if self.tracing is not None:
            self.tracing.record_ack_of(holder.receiver, held.message)

    def nak(self, holder: Holder, seq: Seq, delay_s: float | None = None) -> None:
        """Give a message back, for delivery after `delay_s`; None: after the channel's back-off. Raises `NotHeld`."""
        held = self._held_by(holder, seq)
        self._release(held)
        self._fail(held.message, self._pause_after(held.message) if delay_s is None else delay_s)
        _nacked.add()

    def reject(self, holder: Holder, seq: Seq) -> None:
        """Move a message to the dead-letter channel: its holder rejects it. Raises `NotHeld`."""
        held = self._held_by(holder, seq)
        self._release(held)
        self._mover.move(self, held.message, DeadLetterReason.REJECTED, held.message.deliveries)
        _nacked.add()

    async def extend(self, holder: Holder, seq: Seq) -> None:
        """Let a message's deadline begin again. Raises `NotHeld`, and `Unavailable` with the deadline unchanged."""
        held = self._held_by(holder, seq)
        extended = await self.queue.extend(held.message)
        if self.held.get(seq) is not held:
            raise NotHeld(self.channel, seq)
        held.message, held.deadline = extended, extended.taken_at + self.settings.ack_wait_s
        self._deadlines.add(held.deadline, held)

    def _held_by(self, holder: Holder, seq: Seq) -> HeldMessage:
        held = holder.held.get(seq)
        # The timer may be late: after a stop of this process, an ack can be read before it runs.
        if held is None or held.deadline <= time.monotonic():
            raise NotHeld(self.channel, seq)
        return held

    def _release(self, held: HeldMessage) -> None:
        """End a message's hold, and let its holder take another one."""
        del held.holder.held[held.message.seq]
        self._end(held)
        self.update(held.holder)

    def _end(self, held: HeldMessage) -> None:
        del self.held[held.message.seq]
        held.deadline = 0.0

    def _pause_after(self, message: QueuedMessage) -> int:
        return pause_after(self.settings, message.deliveries)

    # --- deadlines ---------------------------------------------------------------------------------------------------

    def _with_deadline(self) -> int:
        return len(self.held) + len(self._waiting)

    def _give_back(self, deadline: float, due: HeldMessage | QueuedMessage) -> None:
        """Give back a message past its deadline, if that was not moved."""
        if isinstance(due, QueuedMessage):
            if due in self._waiting:
                self._waiting.remove(due)
                self.queue.nak(due)
        elif due.deadline == deadline:
            self._release(due)
            self._fail(due.message, self._pause_after(due.message))
            _expired.add()

    def _fail(self, message: QueuedMessage, pause_s: float) -> None:
        """Let a message be delivered again after a pause, or move it if that was its last delivery."""
        if message.deliveries < self.settings.max_deliveries:
            self.queue.nak(message, pause_s)
        else:
            self._mover.move(self, message, DeadLetterReason.MAX_DELIVERIES, message.deliveries)

    # --- the channel -------------------------------------------------------------------------------------------------

    def change(self, settings: QueueSettings) -> None:
        """Use other settings. A shorter `ack_wait_s` also applies to messages held now."""
        was_ordered, self.settings = self.settings.key_ordered, settings
        self.queue.change(settings)
        if was_ordered and not settings.key_ordered:
            self._gate.open()
        for held in self.held.values():
            deadline = held.message.taken_at + settings.ack_wait_s
            if deadline < held.deadline:
                held.deadline = deadline
                self._deadlines.add(deadline, held)

    def forget(self) -> None:
        """Forget every held message: the log is another one, so that their acks would remove others."""
        for held in list(self.held.values()):
            self._release(held)
        self._waiting.clear()
        self._others.forget()
        self._gate.forget()

    async def flushed(self) -> None:
        """Return once NATS has every ack and nak so far. Raise `Unavailable`."""
        await self._gate.flushed()
        await self.queue.flushed()

    async def drained(self) -> None:
        """Make the last acks and naks, as `QueueSink` says."""
        await self._gate.leave()

    async def checked(self) -> None:
        """Return once each message taken so far has a holder, or must wait for one."""
        await self._others.checked()
        await self._gate.checked()

    def take_counts(self) -> dict[str, int]:
        """Return the messages handed out since the last call, by receiver."""
        counts, self.counts = self.counts, {}
        return counts

    def close(self) -> None:
        """Give back everything. May be repeated."""
        for holder in list(self._members):
            self.leave(holder)
        self._give_back_waiting()
        self._deadlines.close()
        self._others.close()
        self._gate.close()
        self.queue.close()


def _is_current(waiting: set[QueuedMessage], deadline: float, of: HeldMessage | QueuedMessage) -> bool:
    return of in waiting if isinstance(of, QueuedMessage) else of.deadline == deadline
