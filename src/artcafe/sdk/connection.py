"""The line to the gateway: the one background loop that connects, reads, writes, and comes back when a connection ends.

What is sent and kept is decided without I/O in `sdk.session`, `sdk.outbox` and `sdk.inbox`; this carries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from artcafe import errors
from artcafe.sdk import backoff, dial, encoding
from artcafe.sdk.inbox import Inbox
from artcafe.sdk.messages import Gap, Message
from artcafe.sdk.outbox import Outbox, PendingCommand, Reply
from artcafe.sdk.session import ConnectionLost, Session
from artcafe.wire import frames, replies

log = logging.getLogger("artcafe")

IN_FLIGHT: Final = 256
"""Commands that wait for their answer at once; the next caller waits for a place. One group commit of the server takes as many
(design, decision 3)."""


@dataclass(frozen=True, slots=True)
class OutgoingCommand:
    """What the program asks of the server; `on_reply` gets the reply in its turn among the frames."""

    kind: str
    body: frames.Body
    on_reply: Callable[[Reply], None] = lambda _: None

    @property
    def channel(self) -> str | None:
        """Whose delivery it begins; None for all but `subscribe`."""
        return self.body.channel if isinstance(self.body, frames.Subscribe) else None


@dataclass(frozen=True, slots=True)
class PendingReply:
    """A command on its way, and the future of its reply."""

    ask: PendingCommand
    reply: asyncio.Future[Reply]


class AgentConnection:
    """Everything of an agent that outlives a connection. `run` is its loop; the rest is called from the program's tasks."""

    def __init__(self, dialer: dial.Dialer, tenant: str, agent: str, max_unacked: int | None, connect_timeout_s: float) -> None:
        self._dialer = dialer
        self._tenant, self._agent, self._max_unacked = tenant, agent, max_unacked
        self._connect_timeout_s = connect_timeout_s
        self.outbox = Outbox()
        self.inbox = Inbox(max_unacked, on_ack=self._acked)
        self.limits: Mapping[str, int] = {}
        self.service: str | None = None
        """The only service whose challenges are signed, once it is known."""
        self.status: str | None = None
        """What the agent's presence shows; it ends with a connection, and is set again on the next one."""
        self._status_again: PendingCommand | None = None
        self.left_over: list[Message] = []
        """The last message of each loop with `auto_ack` that has ended: acknowledged when another loop asks for the next one."""
        self.failure: Exception | None = None
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._opened = asyncio.Event()  # The first login succeeded, or the line has ended.
        self._leaving = asyncio.Event()
        self._due = asyncio.Event()  # There may be something to write.
        self._arrived = asyncio.Event()  # There may be something to take, or never again.
        self._moved = asyncio.Event()  # Something was taken, asked or answered.
        self._live_since = math.inf
        self._is_warned = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that this runs on, once it does."""

    # --- the loop ---

    async def run(self) -> None:
        """Stays connected until `leave`, or until the line ends for good; then `failure` says why. It raises nothing but what
        nobody foresaw, which ends the `async with` as in any task group."""
        try:
            await self._stay_connected()
        except ConnectionLost as exc:
            self.failure = exc.error
            if self._opened.is_set():  # Else whoever enters the agent hears of it.
                log.warning("the connection has ended for good: %s", exc.error)
        finally:
            self.outbox.fail(self.failure or RuntimeError(CLOSED))
            self._leaving.set()
            self._opened.set()
            self._arrived.set()
            self._moved.set()

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        failures, give_up_at = 0, loop.time() + self._connect_timeout_s
        while not self._leaving.is_set():
            self._live_since = math.inf
            try:
                await self._serve_connection()
            except ConnectionLost as exc:
                # It begins anew only behind a connection that held longer than was waited for it: who is closed right after
                # each login must not come back at once for ever.
                is_steady = loop.time() - self._live_since > backoff.bound_s(failures or 1)
                failures = 1 if is_steady else failures + 1
                delay_s = backoff.delay_s(failures)
                if not self._should_reconnect(exc) or not (self._opened.is_set() or loop.time() + delay_s < give_up_at):
                    raise
                what, _, _ = str(exc.error).partition(";")  # What follows tells a caller what to do, and this does it.
                log.warning("%s; connecting again in %.1f s", what, delay_s)
                await _wait(self._leaving, delay_s)

    def _should_reconnect(self, lost: ConnectionLost) -> bool:
        """Whether to connect again. A key that has signed before is taken to be away for a while: ssh-agent is started anew, or a
        token is not plugged in."""
        return lost.should_reconnect or (self._opened.is_set() and isinstance(lost.error, errors.KeyUnusable))

    def _new_session(self) -> Session:
        return Session(self._tenant, self._agent, self._max_unacked, self.outbox, self.inbox, self.service)

    async def _serve_connection(self) -> None:
        """One connection, from its opening to its end. Returns after `leave`; else raises `ConnectionLost`."""
        socket, session = await self._dialer.open(self._new_session)
        self._live_since = asyncio.get_running_loop().time()
        self.limits, self.service = session.limits, session.service
        if self._opened.is_set():
            log.info("connected again")
        self._opened.set()
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(socket, session))
                lost = await self._read(socket, session)
                writing.cancel()
        finally:
            socket.transport.abort()
            self._lost()
        if not self._leaving.is_set():
            raise lost

    async def _read(self, socket: ClientConnection, session: Session) -> ConnectionLost:
        """Takes in frames until the connection ends; returns why it did."""
        try:
            while True:
                await dial.receive(socket, session)
                self._wake()
                self._arrived.set()
                self._moved.set()
                await self._room()
        except ConnectionClosed as exc:
            return dial.ended(exc, session)
        except errors.BadFrame as exc:
            await socket.close(1002, "bad frame")
            return ConnectionLost(exc, should_reconnect=False)

    async def _room(self) -> None:
        """Waits while the program has enough to do. While it waits for an answer itself, that must be read."""
        while self.inbox.is_full and not len(self.outbox) and not self._leaving.is_set():
            self._moved.clear()
            await self._moved.wait()

    async def _write(self, socket: ClientConnection, session: Session) -> None:
        """Sends what is due, and closes when leaving. Ends quietly with the connection: the reader says why it ended."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._due.clear()
                for frame in session.due(loop.time()):
                    await socket.send(frame, text=True)
                self._moved.set()
                if self._leaving.is_set():
                    await socket.close()
                    return
                await _wait(self._due, self.outbox.wait_s(loop.time()))

    def _lost(self) -> None:
        self.outbox.lost()
        for channel, start in self.inbox.lost():
            self._resume(channel, start)
        if self._status_again is not None:
            self.outbox.drop(self._status_again)
        if self.status is not None:
            # First: a status that was on its way when the connection was lost is a newer one, and stays the last.
            text = msgspec.Raw(msgspec.json.encode(frames.Status(self.status)))
            self._status_again = self.outbox.add("status", text, self._on_status_again, first=True)

    def _on_status_again(self, outcome: Reply | Exception) -> None:
        if isinstance(outcome, Exception) and not self._leaving.is_set():
            log.warning("the status is not shown any more: %s", outcome)

    def _resume(self, channel: str, start: frames.Start) -> None:
        text = msgspec.Raw(msgspec.json.encode(frames.Subscribe(channel, start, self._max_unacked)))
        self.outbox.add("subscribe", text, partial(self._resumed, channel), channel=channel)

    def _resumed(self, channel: str, outcome: Reply | Exception) -> None:
        if isinstance(outcome, replies.SubscribeReply):
            if not self.inbox.resumed(channel, outcome):
                self._resume(channel, "first")
        elif not self._leaving.is_set():
            self.inbox.not_resumed(channel)
            log.warning("%s is not received any more: %s", channel, outcome)

    def _wake(self) -> None:
        self._due.set()

    def _acked(self) -> None:
        self.check_loop()
        self._wake()

    # --- for the program ---

    async def opened(self) -> None:
        """Returns after the first login. Raises what prevented it."""
        await self._opened.wait()
        if self.failure is not None:
            raise self.failure

    async def ask(self, command: OutgoingCommand, timeout_s: float) -> Reply:
        """Send a command, again when need be, and return its reply, of the same kind.

        Raise TypeError, `Invalid` or `TooLarge` before anything is sent; later the server's error, or after `timeout_s` the last
        one that was temporary.
        """
        text = self._text(command)
        pending: PendingReply | None = None
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                pending = self._submit(command, text)
                return await pending.reply
        except TimeoutError as exc:
            raise (pending and pending.ask.unanswered()) or errors.Unavailable("the gateway") from exc
        finally:
            if pending is not None:
                self._withdraw(pending)

    def submit(self, command: OutgoingCommand) -> PendingReply:
        """Send a command as `ask` does, and return at once; `reply_to` waits for its reply."""
        return self._submit(command, self._text(command))

    def _text(self, command: OutgoingCommand) -> msgspec.Raw:
        return encoding.command_text(command.kind, command.body, self.limits.get("frame_bytes", frames.MAX_FRAME_BYTES))

    def _submit(self, command: OutgoingCommand, text: msgspec.Raw) -> PendingReply:
        self._check_open()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        reply.add_done_callback(_look_at)
        settle = partial(_settle, reply, command.on_reply)
        ask = self.outbox.add(command.kind, text, settle, channel=command.channel)
        self._wake()
        self._moved.set()
        return PendingReply(ask, reply)

    async def reply_to(self, pending: PendingReply, timeout_s: float) -> Reply:
        """Return the reply to a command of `submit`; raises as `ask` does. Cancelled, it leaves the command on its way."""
        await asyncio.wait([pending.reply], timeout=timeout_s)
        if not pending.reply.done():
            self._withdraw(pending)
            pending.reply.cancel()
            raise pending.ask.unanswered() or errors.Unavailable("the gateway")
        return pending.reply.result()

    def _withdraw(self, pending: PendingReply) -> None:
        self.outbox.drop(pending.ask)
        self._wake()  # It may have held others back.
        self._moved.set()

    def subscription(self, channel: str, start: frames.Start) -> OutgoingCommand:
        """The command that begins a channel at `start`."""
        body = frames.Subscribe(channel, start, self._max_unacked)
        return OutgoingCommand("subscribe", body, partial(self._subscribed, channel, start))

    def _subscribed(self, channel: str, start: frames.Start, reply: Reply) -> None:
        assert isinstance(reply, replies.SubscribeReply)
        self.inbox.joined(channel, start, reply)

    def continuation(self, channel: str) -> OutgoingCommand:
        """The command that makes a channel go on where it stands, also where the server has ended its delivery."""
        start = self.inbox.start_again(channel)
        if start == "cursor":
            return self.subscription(channel, start)
        return OutgoingCommand("subscribe", frames.Subscribe(channel, start, self._max_unacked), partial(self._resumed, channel))

    async def item(self, channels: Collection[str]) -> Message | Gap | None:
        """The next message or gap of these channels, or of all; None after `leave`. Raises what ended the line."""
        while True:
            if self.failure is not None:
                raise self.failure
            if self._leaving.is_set():
                return None
            if (found := self.inbox.take(channels)) is not None:
                self._moved.set()
                return found
            self._warn_if_stalled(channels)
            self._arrived.clear()
            await self._arrived.wait()

    def left_over_in(self, channels: Collection[str]) -> list[Message]:
        """Take the messages out of `left_over` that are of these channels, or all."""
        found = [message for message in self.left_over if not channels or message.channel in channels]
        self.left_over = [message for message in self.left_over if message not in found]
        return found

    def _warn_if_stalled(self, channels: Collection[str]) -> None:
        if not self._is_warned and (stalled := self.inbox.stalled(channels)) is not None:
            self._is_warned = True
            log.warning(
                "%d messages of %s are unacknowledged, the oldest is %d, so the server sends no more of them: ack() each message"
                " when it is dealt with",
                self._max_unacked,
                *stalled,
            )

    def check_loop(self) -> None:
        """Raise RuntimeError on another event loop than the one that this runs on."""
        if self.loop is not None and asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(ANOTHER_LOOP)

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._leaving.is_set():
            raise RuntimeError(CLOSED)

    async def drained(self) -> None:
        """Return when no command waits for its answer, and every ack has been sent."""
        while (len(self.outbox) or self.inbox.has_unsent_acks()) and not self._leaving.is_set():
            self._moved.clear()
            await self._moved.wait()

    async def flushed(self) -> None:
        """Return when every ack has been sent. Raise what ended the line."""
        while self.inbox.has_unsent_acks():
            self._check_open()
            self._moved.clear()
            await self._moved.wait()

    def leave(self) -> None:
        """Ends the loop: what is acknowledged is sent and the connection closed."""
        self._leaving.set()
        self._wake()
        self._arrived.set()
        self._moved.set()


CLOSED: Final = "this Agent is closed: use it within its 'async with'"
ANOTHER_LOOP: Final = (
    "this Agent runs on another event loop: call it from there (asyncio.run_coroutine_threadsafe hands a call over to it)"
)


def _look_at(reply: asyncio.Future[Reply]) -> None:
    """Keep asyncio from logging an error that the loop over messages raises at its next step, or that nobody waits for."""
    if not reply.cancelled():
        reply.exception()


def _settle(answer: asyncio.Future[Reply], on_reply: Callable[[Reply], None], outcome: Reply | Exception) -> None:
    if isinstance(outcome, Exception):
        if not answer.done():
            answer.set_exception(outcome)
        return
    on_reply(outcome)
    if not answer.done():
        answer.set_result(outcome)


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Returns when the event is set or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
