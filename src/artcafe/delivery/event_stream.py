"""A connection for sending only: one channel, or the inbox of an agent, from one request to its end. `delivery.streams` opens it.

The transport takes the encoded events with `chunks` at the reader's pace. What a slow reader has not taken is bounded like the
buffer of a socket: above the bound its deliveries leave their feeds, and are fed from the log afterwards.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from artcafe.delivery.delivery import Delivery
from artcafe.delivery.frame_batch import FrameBatch
from artcafe.delivery.peer import Encoding
from artcafe.errors import ArtcafeError, Internal
from artcafe.model import ChannelId, Cursor, Epoch, Principal, TenantChange
from artcafe.supervision import Supervisor
from artcafe.wire import receipts, replies
from artcafe.wire.replies import Gap

WRITE_HIGH_BYTES: Final = 256 * 1024
"""Bytes waiting for the reader in this process, as for a socket. Above, its deliveries leave their feeds."""
KEEP_ALIVE_S: Final = 15.0
"""Longest silence before a keep-alive, which is no event: proxies end connections that they take for dead."""
START, GAP, MOVED, PROBLEM, END = "start", "gap", "moved", "problem", "end"
"""Events without a message."""

Work = Callable[[], Coroutine[None, None, None]]


class EventEncoding(Encoding, Protocol):
    """How a transport encodes the events of streams."""

    keep_alive: bytes

    def event(self, name: str, data: bytes, id: str | None = None) -> bytes:
        """Return the bytes of one event with this JSON text."""
        ...

    def with_ids(self, frames: bytes, id_of: Callable[[ChannelId, Epoch | None, int], str]) -> bytes:
        """Return encoded messages and gaps with the id of each, called in their order."""
        ...


@dataclass(frozen=True, slots=True)
class StreamTransport:
    """What a transport gives to each stream."""

    encoding: EventEncoding
    until: datetime
    """The expiry of the caller's token."""
    waiting_bytes: Callable[[], int]
    """Return the bytes not yet accepted by its socket."""
    abort: Callable[[], None]
    """Close its socket at once, with unread bytes."""


class EventStream:
    """The writing part of both kinds of streams: a `delivery.peer.Peer` with its events taken by the transport."""

    def __init__(
        self, principal: Principal, transport: StreamTransport, group: asyncio.TaskGroup, supervisor: Supervisor
    ) -> None:
        """`group` owns the stream's tasks."""
        self.principal, self.transport = principal, transport
        self.until = transport.until
        self._group, self._supervisor = group, supervisor
        self.out: list[FrameBatch] = []
        self.is_paused = False
        self.descriptor: int | None = None
        self.deliveries: dict[ChannelId, Delivery] = {}
        self.reason: ArtcafeError | None = None
        """Why the stream ends; None as long as it is open."""
        self.slow_since: tuple[float, int] | None = None
        """While it is paused: the time of the reader's last read, and the number of bytes waiting then."""
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._written = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_changed = self._is_checking = False

    @property
    def encoding(self) -> EventEncoding:
        """The encoding of the transport."""
        return self.transport.encoding

    # --- what it delivers ----------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Feed every waiting delivery."""
        raise NotImplementedError

    def concerns(self, change: TenantChange) -> bool:
        """Return whether a change may end the stream, or change its deliveries."""
        raise NotImplementedError

    async def check(self) -> None:
        """Apply changes to the stream's deliveries. Raises the reason to end the stream, and `Unavailable`."""
        raise NotImplementedError

    def event_id(self, channel_id: ChannelId, epoch: Epoch | None, seq: int) -> str:
        """Return the id of the next event: of this message, or of a gap up to here."""
        raise NotImplementedError

    # --- delivery.peer.Peer --------------------------------------------------------------------------------------------

    def write(self, frames: bytes | memoryview) -> None:
        """Add encoded messages and gaps, and take the deliveries out of their feeds if too much waits for the reader."""
        if self.reason is None and frames:
            self._add(self.encoding.with_ids(bytes(frames), self.event_id))
            if self._size > WRITE_HIGH_BYTES and not self.is_paused:
                self._pause()

    def feed_soon(self) -> None:
        """Resume the deliveries in the next turn of the event loop."""
        asyncio.get_running_loop().call_soon(self._resume_if_open)

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        """Send a gap, before any message written after this call. One without an end is of another log than the next message."""
        delivery = self.deliveries[channel_id]
        epoch = epoch or delivery.epoch
        position = delivery.sent if gap.to is None else gap.to
        self.send_event(GAP, replies.content(replies.gap(channel_id, gap, epoch)), self.event_id(channel_id, epoch, position))

    def send_moved(self, channel_id: ChannelId, cursor: Cursor) -> None:
        """Send the start of a delivery after a request has set its cursor."""
        push = receipts.MovedPush(channel=channel_id, epoch=cursor.epoch, cursor=cursor.seq, moves=cursor.moves)
        self.send_event(MOVED, replies.content(receipts.moved(push)))

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = ()) -> None:
        """Send an error, with the affected channels, and continue the stream."""
        self.send_event(PROBLEM, replies.content(replies.error(error, channels=channels)))

    def close(self, reason: ArtcafeError) -> None:
        """End the stream with this reason, in place of the bytes waiting for the reader. May be repeated."""
        if self.reason is None:
            self._waiting.clear()
            self._size = 0
            self._add(self.encoding.event(END, replies.content(replies.error(reason))))
            self.reason = reason
            self.stop()

    # --- the transport's side ------------------------------------------------------------------------------------------

    def send_event(self, name: str, data: bytes, id: str | None = None) -> None:
        """Add one event."""
        if self.reason is None:
            self._add(self.encoding.event(name, data, id))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes to write, as the reader takes them: whole events, or a keep-alive. The last one is `end`."""
        while self._waiting or self.reason is None:
            if self._waiting:
                chunk = self._waiting.popleft()
                self._size -= len(chunk)
                if not self._waiting and self.is_paused:
                    self.is_paused, self.slow_since = False, None
                    self.feed_soon()
                yield chunk
                continue
            if not await self.wait_written():
                yield self.encoding.keep_alive

    async def wait_written(self) -> bool:
        """Wait until something is written, or the stream ends. Return False after a silence of `KEEP_ALIVE_S`."""
        self._written.clear()
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                return await self._written.wait()
        except TimeoutError:
            return False

    def waiting_bytes(self) -> int:
        """Return the number of bytes waiting for the reader."""
        return self._size + self.transport.waiting_bytes()

    def _add(self, events: bytes) -> None:
        self._waiting.append(events)
        self._size += len(events)
        self._written.set()

    def _pause(self) -> None:
        self.is_paused = True
        for delivery in self.deliveries.values():
            delivery.feed.leave(delivery)

    def _resume_if_open(self) -> None:
        if self.reason is None and not self.is_paused:
            self.resume()

    # --- its tasks -----------------------------------------------------------------------------------------------------

    def check_soon(self, check: Work, pace_s: float) -> None:
        """Run `check` in a task, and again after `pace_s` if this is called meanwhile."""
        self._is_changed = True
        if not self._is_checking and self.reason is None:
            self._is_checking = True
            _ = self.spawn(partial(self._check, check, pace_s))

    async def _check(self, check: Work, pace_s: float) -> None:
        try:
            while self._is_changed:
                self._is_changed = False
                await check()
                await asyncio.sleep(pace_s)
        finally:
            self._is_checking = False

    def spawn(self, work: Work) -> asyncio.Task[None]:
        """Start work in a task of the stream, ended with it."""
        task = self._group.create_task(self._supervise(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _supervise(self, work: Work) -> None:
        """End this stream, and no other, after an unexpected error."""
        with self._supervisor.contain(tenant=self.principal.tenant_id):
            await work()
            return
        self.close(Internal())

    def stop(self) -> None:
        """Deliver nothing more, and cancel the tasks. May be repeated."""
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
