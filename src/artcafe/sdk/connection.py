"""The connection of an agent to the gateway: one background loop that connects, reads, writes, and reconnects.

`sdk.session`, `sdk.outbox` and `sdk.inbox` keep the state without I/O; this module moves the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from artcafe import errors
from artcafe.sdk import backoff, dial, encoding
from artcafe.sdk.commands import CLOSED, OTHER_LOOP, OutgoingCommand, PendingReply, finish, retrieve_exception, wait
from artcafe.sdk.inbox import Inbox
from artcafe.sdk.messages import Gap, Message
from artcafe.sdk.outbox import MAX_RATE_WAIT_S, Outbox, PendingCommand, Reply
from artcafe.sdk.session import ConnectionLost, PushedRequests, Session
from artcafe.sdk.states import AgentState, StateEvent, final_kind
from artcafe.wire import frames, replies

log = logging.getLogger("artcafe")

IN_FLIGHT: Final = 256
"""Commands without a reply at a time; the next caller waits. One group commit of the server stores as many (design, decision
3)."""

SETTLE_S: Final = 30.0
"""The timeout of a command about a message of a queue."""

STALLED: Final = (
    "%d messages of %s are unacknowledged, the oldest is %d, so the server sends no more of them: ack() each message"
    " after processing it"
)


class AgentConnection:
    """The state of an agent that outlives a single connection. `run` is its loop; the program's tasks call the other methods."""

    def __init__(
        self,
        dialer: dial.Dialer,
        tenant: str,
        agent: str,
        max_unacked: int | None,
        connect_timeout_s: float,
        max_rate_wait_s: float = MAX_RATE_WAIT_S,
    ) -> None:
        self._dialer = dialer
        self.tenant, self._agent, self._max_unacked = tenant, agent, max_unacked
        self._connect_timeout_s = connect_timeout_s
        self.outbox = Outbox(max_rate_wait_s=max_rate_wait_s)
        self.inbox = Inbox(max_unacked, on_ack=self._on_ack, settle=self._settle)
        self.limits: Mapping[str, int] = {}
        self.service: str | None = None
        """The only service to sign challenges of; None until the first login if none was given."""
        self.status: str | None = None
        """The status in the agent's presence. It ends with the connection, and is set again on the next one."""
        self._status_command: PendingCommand | None = None
        self.unacked_of_ended_loops: list[Message] = []
        """The last message of each ended loop with `auto_ack`. The next loop over its channel acknowledges it."""
        self.answering: PushedRequests | None = None
        self.takes_queues = True
        """Whether the connection is sent messages of queues."""
        self.state: AgentState = "closed"
        self.on_event: Callable[[StateEvent], None] = lambda _: None
        self.inbox.on_reported = lambda gap: self.on_event(StateEvent("gap", gap=gap))
        self.failure: Exception | None = None
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._opened = asyncio.Event()  # The first login succeeded, or the loop has ended.
        self._leaving = asyncio.Event()
        self._due = asyncio.Event()  # There may be frames to write.
        self._arrived = asyncio.Event()  # There may be a message to take, or the loop has ended.
        self._progress = asyncio.Event()  # A message was taken, or a command submitted or finished.
        self._connected_at = math.inf
        self._is_warned = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that `run` runs on; None before it."""

    # --- the loop ---

    async def run(self) -> None:
        """Stay connected until `leave` or a final error, and store that error in `failure`.

        Raises only unexpected exceptions, which are stored too.
        """
        self.state = "connecting"
        try:
            await self._stay_connected()
        except ConnectionLost as exc:
            self.failure = exc.error
            if self._opened.is_set():  # Otherwise starting the agent raises it.
                log.warning("the connection has ended permanently: %s", exc.error)
        finally:
            if isinstance(unexpected := sys.exception(), Exception):
                self.failure = unexpected
            self._end()
            self.outbox.fail(self.failure or RuntimeError(CLOSED))
            self._leaving.set()
            self._opened.set()
            self._arrived.set()
            self._progress.set()

    def _end(self) -> None:
        self.state = "closed" if self.failure is None else final_kind(self.failure)
        if self.state != "closed" and self._opened.is_set():
            self.on_event(StateEvent(self.state, self.failure))

    def fail(self, error: BaseExceptionGroup[BaseException]) -> None:
        """Store an unexpected error of the background, unless one is stored. Every later call raises it."""
        self.state = "failed"
        log.error("the background of the agent has failed", exc_info=error)
        self.failure = self.failure or RuntimeError(f"the background of this Agent has failed: {error.exceptions[0]!r}")

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        failures, give_up_at = 0, loop.time() + self._connect_timeout_s
        while not self._leaving.is_set():
            self._connected_at = math.inf
            try:
                await self._serve_connection()
            except ConnectionLost as exc:
                # Count from 1 again only after a connection that lasted longer than the back-off: an agent that is closed right
                # after each login must not reconnect at once for ever.
                is_steady = loop.time() - self._connected_at > backoff.bound_s(failures or 1)
                failures = 1 if is_steady else failures + 1
                delay_s = backoff.delay_s(failures)
                if not self._should_reconnect(exc) or not (self._opened.is_set() or loop.time() + delay_s < give_up_at):
                    raise
                what, _, _ = str(exc.error).partition(";")  # The rest advises a retry, which follows.
                log.warning("%s; connecting again in %.1f s", what, delay_s)
                if self.state == "connected":
                    self.state = "lost"
                    self.on_event(StateEvent("lost", exc.error))
                await wait(self._leaving, delay_s)

    def _should_reconnect(self, lost: ConnectionLost) -> bool:
        """Return whether to reconnect. After a first login an unusable key counts as temporary: ssh-agent is restarting, or a
        hardware token is unplugged."""
        return lost.should_reconnect or (self._opened.is_set() and isinstance(lost.error, errors.KeyUnusable))

    def _new_session(self) -> Session:
        windows = self._max_unacked, self.outbox, self.inbox
        return Session(self.tenant, self._agent, *windows, self.service, self.answering, self.takes_queues)

    async def _serve_connection(self) -> None:
        """Open one connection and use it until it ends. Returns after `leave`; otherwise raises `ConnectionLost`."""
        socket, session = await self._dialer.open(self._new_session)
        self._connected_at = asyncio.get_running_loop().time()
        self.limits, self.service = session.limits, session.service
        if self._opened.is_set():
            log.info("connected again")
        self._opened.set()
        self.state = "connected"
        self.on_event(StateEvent("connected"))
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(socket, session))
                lost = await self._read(socket, session)
                writing.cancel()
        finally:
            socket.transport.abort()
            self._on_connection_lost()
        if not self._leaving.is_set():
            raise lost

    async def _read(self, socket: ClientConnection, session: Session) -> ConnectionLost:
        """Handle frames until the connection ends, and return the reason."""
        try:
            while True:
                await dial.receive(socket, session)
                self._wake()
                self._arrived.set()
                self._progress.set()
                await self._wait_for_room()
        except ConnectionClosed as exc:
            return dial.lost_by(exc, session)
        except errors.BadFrame as exc:
            await socket.close(1002, "bad frame")
            return ConnectionLost(exc, should_reconnect=False)

    async def _wait_for_room(self) -> None:
        """Wait while the buffer is full. A pending command keeps the reader going: its reply must be read."""
        while self.inbox.is_full and not len(self.outbox) and not self._leaving.is_set():
            self._progress.clear()
            await self._progress.wait()

    async def _write(self, socket: ClientConnection, session: Session) -> None:
        """Send the frames that are due, and close the socket when leaving. A lost connection ends this silently: the reader
        reports it."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._due.clear()
                for frame in session.due(loop.time()):
                    await socket.send(frame, text=True)
                self._progress.set()
                if self._leaving.is_set():
                    await socket.close()
                    return
                await wait(self._due, self.outbox.wait_s(loop.time()))

    def _on_connection_lost(self) -> None:
        if self.answering is not None:
            self.answering.on_connection_lost()
        self.outbox.on_connection_lost()
        for channel, start in self.inbox.on_connection_lost():
            self._resume(channel, start)
        if self._status_command is not None:
            self.outbox.cancel(self._status_command)
        if self.status is not None:
            # First, because a status in flight when the connection was lost is newer and must stay the last one.
            text = msgspec.Raw(msgspec.json.encode(frames.Status(self.status)))
            self._status_command = self.outbox.add("status", text, self._on_status_restored, first=True)

    def _on_status_restored(self, outcome: Reply | Exception) -> None:
        if isinstance(outcome, Exception) and not self._leaving.is_set():
            log.warning("the status is not shown any more: %s", outcome)

    def _resume(self, channel: str, start: frames.Start) -> None:
        text = msgspec.Raw(msgspec.json.encode(frames.Subscribe(channel, start, self._max_unacked)))
        self.outbox.add("subscribe", text, partial(self._on_resumed, channel), channel=channel)

    def _on_resumed(self, channel: str, outcome: Reply | Exception) -> None:
        if isinstance(outcome, replies.SubscribeReply):
            if not self.inbox.on_resumed(channel, outcome):
                self._resume(channel, "first")
        elif not self._leaving.is_set():
            self.inbox.on_resume_refused(channel)
            log.warning("%s is not received any more: %s", channel, outcome)

    def _wake(self) -> None:
        self._due.set()

    def _on_ack(self) -> None:
        self.check_loop()
        self._wake()

    # --- calls of the program ---

    @property
    def is_open(self) -> bool:
        """Whether commands can be submitted: the loop runs, and is not leaving."""
        return self.loop is not None and not self._leaving.is_set()

    async def wait_open(self) -> None:
        """Return after the first login. Raises the error that prevented it."""
        await self._opened.wait()
        if self.failure is not None:
            raise self.failure

    async def request(self, command: OutgoingCommand, timeout_s: float) -> Reply:
        """Send a command, retry it if necessary, and return its reply of the same kind.

        Raises TypeError, `Invalid` or `TooLarge` before the command is sent; later the server's error, or after `timeout_s` the
        last temporary error.
        """
        text, deadline = self._text(command), asyncio.get_running_loop().time() + timeout_s
        pending: PendingReply | None = None
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                pending = self._submit(command, text, deadline)
                return await pending.reply
        except TimeoutError as exc:
            raise (pending and pending.command.timeout_error()) or errors.Unavailable("the gateway") from exc
        finally:
            if pending is not None:
                self.cancel(pending)

    async def _settle(self, message: Message, body: frames.Nak | frames.Extend) -> None:
        """Send a command about a message of a queue. Ignore a `nak` of one that was given back already."""
        try:
            if message.life != self.inbox.connections:
                raise errors.NotHeld(body.channel, body.seq)
            await self.request(OutgoingCommand(type(body).__name__.lower(), body), SETTLE_S)
        except (errors.NotHeld, errors.NotSubscribed) as exc:
            if message.life == self.inbox.connections:
                raise
            if isinstance(body, frames.Extend):
                raise errors.NotHeld(body.channel, body.seq) from exc

    def submit(self, command: OutgoingCommand) -> PendingReply:
        """Send a command as `request` does, and return at once; `reply_to` waits for its reply."""
        return self._submit(command, self._text(command))

    def _text(self, command: OutgoingCommand) -> msgspec.Raw:
        return encoding.command_text(command.kind, command.body, self.limits.get("frame_bytes", frames.MAX_FRAME_BYTES))

    def _submit(self, command: OutgoingCommand, text: msgspec.Raw, deadline: float = math.inf) -> PendingReply:
        self._check_open()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        reply.add_done_callback(retrieve_exception)
        on_done = partial(finish, reply, command.on_reply)
        pending = self.outbox.add(
            command.kind, text, on_done, channel=command.channel, deadline=deadline, on_part=command.on_part
        )
        self._wake()
        self._progress.set()
        return PendingReply(pending, reply)

    async def reply_to(self, pending: PendingReply, timeout_s: float) -> Reply:
        """Return the reply to a command of `submit`; raises as `request` does. If this call is cancelled, the command stays in
        flight."""
        await asyncio.wait([pending.reply], timeout=timeout_s)
        if not pending.reply.done():
            self.cancel(pending)
            pending.reply.cancel()
            raise pending.command.timeout_error() or errors.Unavailable("the gateway")
        return pending.reply.result()

    def cancel(self, pending: PendingReply) -> None:
        """Stop waiting for a command. May be repeated."""
        self.outbox.cancel(pending.command)
        self._wake()  # It may have held back later commands.
        self._progress.set()

    def subscription(self, channel: str, start: frames.Start) -> OutgoingCommand:
        """Return the command that begins delivery of a channel at `start`."""
        body = frames.Subscribe(channel, start, self._max_unacked)
        return OutgoingCommand("subscribe", body, partial(self._on_subscribed, channel, start))

    def _on_subscribed(self, channel: str, start: frames.Start, reply: Reply) -> None:
        assert isinstance(reply, replies.SubscribeReply)
        self.inbox.on_subscribed(channel, start, reply)

    def continuation(self, channel: str) -> OutgoingCommand:
        """Return the command that continues a channel where it is, also if the server has ended its delivery."""
        start = self.inbox.resume_start(channel)
        if start == "cursor":
            return self.subscription(channel, start)
        return OutgoingCommand(
            "subscribe", frames.Subscribe(channel, start, self._max_unacked), partial(self._on_resumed, channel)
        )

    async def item(self, channels: Collection[str]) -> Message | Gap | None:
        """Return the next message or gap of these channels, or of all; None after `leave`. Raises `failure`."""
        while True:
            if self.failure is not None:
                raise self.failure
            if self._leaving.is_set():
                return None
            if (found := self.inbox.take(channels)) is not None:
                self._progress.set()
                return found
            self._warn_if_stalled(channels)
            self._arrived.clear()
            await self._arrived.wait()

    def take_unacked_of_ended_loops(self, channels: Collection[str]) -> list[Message]:
        """Remove and return the messages of `unacked_of_ended_loops` in these channels, or in all."""
        found = [message for message in self.unacked_of_ended_loops if self.inbox.is_in(message, channels)]
        self.unacked_of_ended_loops = [message for message in self.unacked_of_ended_loops if message not in found]
        return found

    def _warn_if_stalled(self, channels: Collection[str]) -> None:
        if not self._is_warned and (stalled := self.inbox.stalled(channels)) is not None:
            self._is_warned = True
            log.warning(STALLED, self._max_unacked, *stalled)

    def check_loop(self) -> None:
        """Raise RuntimeError on another event loop than that of `run`."""
        if self.loop is not None and asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(OTHER_LOOP)

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._leaving.is_set():
            raise RuntimeError(CLOSED)

    async def drain(self) -> None:
        """Return when every command has its reply, and every ack has been sent."""
        while (len(self.outbox) or self.inbox.has_unsent_acks()) and not self._leaving.is_set():
            self._progress.clear()
            await self._progress.wait()

    async def flush(self) -> None:
        """Return when every ack has been sent. Raises `failure`."""
        while self.inbox.has_unsent_acks():
            self._check_open()
            self._progress.clear()
            await self._progress.wait()

    def leave(self) -> None:
        """End the loop: it sends the acks that are due and closes the connection."""
        self._leaving.set()
        self._wake()
        self._arrived.set()
        self._progress.set()
