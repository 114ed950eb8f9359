"""The agent as a program sees it: publish, subscribe, iterate. The connection behind it is `sdk.connection`'s."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, overload

from artcafe import errors
from artcafe.sdk import dial, encoding
from artcafe.sdk.connection import CLOSED, AgentConnection, OutgoingCommand
from artcafe.sdk.http import place
from artcafe.sdk.iteration import Messages
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.messages import Gap, Message, Receipt, Subscribed
from artcafe.sdk.outbox import Reply
from artcafe.sdk.records import History, KeptMessage
from artcafe.wire import frames, replies

LONGEST_TIMEOUT_S: Final = 540.0
"""A key stores one message within 10 minutes (contract, section 5); repeating a publish ends before that."""


class Agent:
    """An agent of a tenant, connected for as long as its `async with` lasts, which it can do once.

    `url` is the gateway's address, or the REST address, which names the gateway; or several, in a sequence or between commas, so
    that the agent goes on at another server when one does not answer. `key` is the path of a private key, or of a `.pub` file
    whose other half ssh-agent holds, or any `Signer`. `service` is the name that the server must give itself in the challenge;
    without it, the name in the first login counts for as long as this lives. What is not given comes from ARTCAFE_URL,
    ARTCAFE_TENANT, ARTCAFE_AGENT, ARTCAFE_KEY and ARTCAFE_SERVICE. Raises `Invalid` and `KeyUnusable`; entering it raises what
    prevents the login, `Unavailable` where nobody answers for `connect_timeout_s`.

    A connection that is lost comes back by itself, with what was on its way, and nothing surfaces twice. When it ends for good
    (the agent was revoked, say), that error comes out of whatever waits here, and of every later call. Leaving sends what is
    acknowledged, and waits for publishes of other tasks, for `close_timeout_s` at most.

    `max_unacked` is how many messages of a channel are sent before the server waits for an `ack`. None: it does not wait; then
    a program that is slower than its channels leaves the socket unread, until the server closes it and begins again.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        tenant: str | None = None,
        agent: str | None = None,
        key: str | Path | Signer | None = None,
        service: str | None = None,
        max_unacked: int | None = 64,
        connect_timeout_s: float = 15.0,
        close_timeout_s: float = 5.0,
    ) -> None:
        self.tenant, self.agent = _given("tenant", tenant), _given("agent", agent)
        # The login is sent in the background, where nobody could be told that it cannot be.
        encoding.command_text("challenge", frames.Challenge(self.tenant, self.agent), frames.MAX_FRAME_BYTES)
        encoding.command_text("connect", frames.Connect(max_unacked=max_unacked), frames.MAX_FRAME_BYTES)
        key = _given("key") if key is None else key
        signer = load_signer(key) if isinstance(key, str | Path) else key
        dialer = dial.Dialer(url or _given("url"), signer, open_s=min(dial.OPEN_S, connect_timeout_s))
        self._connection = AgentConnection(dialer, self.tenant, self.agent, max_unacked, connect_timeout_s)
        self._connection.service = service or os.environ.get("ARTCAFE_SERVICE") or None
        self._close_timeout_s = close_timeout_s
        self._group = asyncio.TaskGroup()
        self._running: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Agent(tenant={self.tenant!r}, agent={self.agent!r})"

    @property
    def service(self) -> str | None:
        """The name of the service that the agent logs in to; None before its first login, where it was given none."""
        return self._connection.service

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("an Agent is entered once; make another one")
        self._connection.loop = asyncio.get_running_loop()
        await self._group.__aenter__()
        self._running = self._group.create_task(self._connection.run())
        is_open = False
        try:
            await self._connection.wait_open()
            is_open = True
        finally:
            if not is_open:
                await self._stop()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_timeout_s):
                    if exc_type is None:
                        await self._connection.drain()
                    self._connection.leave()
                    if self._running is not None:
                        await asyncio.wait([self._running])
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """Ends the background at once. The group never hears of the body's error: it would wrap it into an ExceptionGroup."""
        self._connection.leave()
        if self._running is not None:
            self._running.cancel()
        await self._group.__aexit__(None, None, None)

    async def publish(
        self,
        channel: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        timeout_s: float = 30.0,
    ) -> Receipt:
        """Store a message in a channel; it is on disk when this returns.

        `data` is what msgspec writes as JSON and reads back as it was, so no nan, sets or bytes; or `msgspec.Raw` with JSON text,
        which is delivered as it is. After a lost connection or a temporary error the message is published again, for `timeout_s`
        (540 at most), under the same `key`, so that it is stored once; without one, a key is made. Publishes of several tasks
        leave in the order of their calls, 256 at most on the way, and return as they are answered.

        Raise the server's error when trying again is no use, and when the time is over the last one: `OutcomeUnknown` where the
        message may have been stored (publishing again with the same `key` is safe), else it was not. Raise `TooLarge`, `Invalid`
        and TypeError before anything is sent; publishes of other tasks go on.
        """
        if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
            raise ValueError(f"timeout_s must be above 0 and at most {LONGEST_TIMEOUT_S:g}")
        self._check_entered()
        text = encoding.data_text(data, self._connection.limits.get("json_depth", frames.MAX_DEPTH))
        body = frames.Publish(channel, text, uuid.uuid4().hex if key is None else key, headers, reply_to)
        reply = await self._connection.request(OutgoingCommand("publish", body), timeout_s)
        assert isinstance(reply, replies.PublishReply)
        return Receipt(reply.seq, reply.message_id, reply.duplicate)

    async def subscribe(self, channel: str, start: frames.Start = "cursor", *, timeout_s: float = 30.0) -> Subscribed:
        """Receive a channel from here on; an agent's subscriptions that stand already need no call.

        `start` is where: "cursor" (behind what was last acknowledged), "new" (behind the newest), "first" (the oldest kept), or
        a sequence. Any but the cursor leaves out what waits here unread of the channel. Raises the server's error, such as
        `ChannelNotFound`. May be repeated.
        """
        self._check_entered()
        reply = await self._connection.request(self._connection.subscription(channel, start), timeout_s)
        assert isinstance(reply, replies.SubscribeReply)
        return Subscribed(channel, reply.epoch, reply.cursor, reply.last)

    async def set_status(self, status: str | None, *, timeout_s: float = 30.0) -> None:
        """Shows a status, 1 to 64 characters, in the agent's presence until its last connection ends; None takes it away.

        A connection that comes back sets it again. May be repeated. Raises `Invalid`.
        """
        self._check_entered()
        await self._connection.request(OutgoingCommand("status", frames.Status(status), self._on_status), timeout_s)

    def _on_status(self, reply: Reply) -> None:
        assert isinstance(reply, replies.StatusReply)
        self._connection.status = reply.status

    async def history(
        self,
        channel: str,
        *,
        after: int | datetime | str | None = None,
        before: int | datetime | str | None = None,
        limit: int = 50,
        timeout_s: float = 30.0,
    ) -> History:
        """A page of what a channel keeps, `limit` messages (200) at most; nothing is received or acknowledged by it.

        With `after` (a sequence, or an aware time) oldest first from there; without it newest first, back from `before` or from
        the end. Where `has_more` is set, the next page is behind the last message's `seq`. May be repeated. Raises the server's
        error, such as `ChannelNotFound`, or `Forbidden` for a managed channel that the agent may not receive.
        """
        self._check_entered()
        body = frames.History(channel, place(after), place(before), limit)
        reply = await self._connection.request(OutgoingCommand("history", body), timeout_s)
        assert isinstance(reply, replies.HistoryReply)
        gap = None if reply.gap is None else Gap(channel, reply.gap.from_, reply.gap.to, reply.gap.reason)
        return History(tuple(map(KeptMessage.of, reply.messages)), gap, reply.more, reply.epoch)

    @overload
    def messages(
        self, *channels: str, start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[False] = False
    ) -> Messages[Message]: ...

    @overload
    def messages(
        self, *channels: str, start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[True]
    ) -> Messages[Message | Gap]: ...

    def messages(
        self, *channels: str, start: frames.Start = "cursor", auto_ack: bool = False, gaps: bool = False
    ) -> Messages[Message] | Messages[Message | Gap]:
        """Iterate over the messages of these channels, subscribing to them first, or of all that the agent is subscribed to.

        The loop goes on until the agent is closed. Each message goes to one loop: several over the same channel share it.
        Messages of a channel come in order. With `auto_ack` a message is acknowledged when the next one is asked for, so the
        last before a `break` is acknowledged by the next such loop over its channel, if there is one.

        Every loop over named channels subscribes to each of them once, so it raises `ChannelNotFound` where the channel is gone,
        and `Conflict` where the subscription is paused. A channel that is received already goes on where it stands; any other
        `start` is as for `subscribe`. A step may be cancelled, by a timeout for example: the next one goes on from there, and
        nothing is skipped.

        Messages that will not come (retention took them) are logged as a warning, and with `gaps` also stand as `Gap`s among
        the messages, where they are missing.
        """
        if start != "cursor" and not channels:
            raise ValueError("start is for named channels")
        self._check_entered()
        return Messages(self._connection, channels, start, auto_ack=auto_ack, gaps=gaps)

    async def flush(self, *, timeout_s: float = 30.0) -> None:
        """Return when every ack made so far has been written to the connection. Raise `Unavailable` after `timeout_s`.

        An ack behind a message that lacks one stays here, and is not waited for. After a lost connection an ack leaves when the
        server has sent its message again. May be repeated.
        """
        self._check_entered()
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.flush()
        except TimeoutError as exc:
            raise errors.Unavailable("the gateway") from exc

    def _check_entered(self) -> None:
        if self._running is None:
            raise RuntimeError(CLOSED)
        self._connection.check_loop()


def _given(name: str, value: str | None = None) -> str:
    """The argument, or the environment's word for it. Raises `Invalid`."""
    variable = f"ARTCAFE_{name.upper()}"
    found = value or os.environ.get(variable)
    if not found:
        raise errors.Invalid(name, f"give it, or set {variable}")
    return found
