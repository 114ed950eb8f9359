"""The public class `Agent`: publish, subscribe, iterate over messages. `sdk.connection` manages its connection."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, overload

from artcafe import errors
from artcafe.sdk import dial, encoding
from artcafe.sdk.agent_handlers import HandlingAgent
from artcafe.sdk.agent_publishing import Publishing
from artcafe.sdk.client import Client
from artcafe.sdk.commands import OutgoingCommand
from artcafe.sdk.connection import AgentConnection
from artcafe.sdk.consumers import validated
from artcafe.sdk.http import place
from artcafe.sdk.iteration import Messages
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.messages import Gap, Message, Subscribed
from artcafe.sdk.outbox import MAX_RATE_WAIT_S, Reply
from artcafe.sdk.pull import Pulled
from artcafe.sdk.records import History, KeptMessage
from artcafe.sdk.requests import MAX_PENDING, Answering, RequestingAgent
from artcafe.sdk.retries import MAX_RETRY_S
from artcafe.sdk.typed import Reader, TypedMessage, reader_of
from artcafe.wire import frames, replies

log = logging.getLogger("artcafe")

T = TypeVar("T")


class Agent(HandlingAgent, RequestingAgent, Publishing):
    """An agent of a tenant, connected while its `async with` block runs, or from `start` until `close`.

    `url` is the gateway's address, or the REST address, which names the gateway. Several addresses, in a sequence or separated by
    commas, let the agent continue at another server if one does not answer. `key` is the path of a private key, the path of a
    `.pub` file whose private half ssh-agent holds, or any `Signer`. `service` is the service name that challenges must contain;
    without it, the name in the first login is required from then on. Missing arguments are read from ARTCAFE_URL, ARTCAFE_TENANT,
    ARTCAFE_AGENT, ARTCAFE_KEY and ARTCAFE_SERVICE. Raises `Invalid` and `KeyUnusable`. Entering raises as `start` does.

    A lost connection is opened again, commands in flight are retried, and no message is yielded twice. A final error, such as a
    revoked agent, is raised by every pending and later call. Leaving the block sends the acks and waits for publishes of other
    tasks, for at most `close_timeout_s`.

    `max_unacked` is the number of messages of a channel that the server sends before it waits for an `ack`. None: it does not
    wait. A program that is slower than its channels then leaves the socket unread, until the server closes it and delivers again.

    A command above a rate limit of the tenant is repeated after the time that the server gives, if that is at most
    `max_rate_wait_s` and within the command's timeout; otherwise it raises `RateExceeded`. With 0 it never waits. Later publishes
    wait behind it, because they keep their order. `pull` and `client` repeat requests as `Client` does, at most for
    `max_retry_s`.

    `max_requests` is the number of requests of others that the agent answers at once (at most 64), if it has a handler for them
    (`on_request`).

    With `queues=False` the connection is sent no messages of `queue` channels, and so holds none: for programs that `pull` them.
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
        max_requests: int = frames.MAX_REQUESTS,
        queues: bool = True,
        connect_timeout_s: float = 15.0,
        close_timeout_s: float = 5.0,
        max_rate_wait_s: float = MAX_RATE_WAIT_S,
        max_retry_s: float = MAX_RETRY_S,
    ) -> None:
        self.tenant, self.agent = _given("tenant", tenant), _given("agent", agent)
        # Encode the login here: the background loop has no caller to raise an encoding error to.
        encoding.command_text("challenge", frames.Challenge(self.tenant, self.agent), frames.MAX_FRAME_BYTES)
        windows = frames.Connect(max_unacked=max_unacked, max_requests=max_requests)
        encoding.command_text("connect", windows, frames.MAX_FRAME_BYTES)
        key = _given("key") if key is None else key
        signer = load_signer(key) if isinstance(key, str | Path) else key
        url = url or _given("url")
        dialer = dial.Dialer(url, signer, open_s=min(dial.OPEN_S, connect_timeout_s))
        self._signer = signer
        self._new_client = partial(Client, url, max_rate_wait_s=max_rate_wait_s, max_retry_s=max_retry_s)
        self._service, self._max_requests = service or os.environ.get("ARTCAFE_SERVICE") or None, max_requests
        self._connect = partial(AgentConnection, dialer, self.tenant, self.agent, max_unacked, connect_timeout_s, max_rate_wait_s)
        self._takes_queues = queues
        self._close_timeout_s = close_timeout_s
        self._is_warned = False
        self._registrations, self._state_handlers, self._ended = {}, [], asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._connection, self._answering = self._new_connection(self._group)

    def _new_connection(self, group: asyncio.TaskGroup) -> tuple[AgentConnection, Answering]:
        """Return the state of one start, whose handlers run in `group`."""
        connection = self._connect()
        connection.service, connection.takes_queues = self._service, self._takes_queues
        connection.inbox.publish = self.publish
        answering = connection.answering = Answering(connection, group, self._max_requests, self._request_handler)
        self._request_slots, self._logging_in = asyncio.Semaphore(MAX_PENDING), asyncio.Lock()
        return connection, answering

    def __repr__(self) -> str:
        return f"Agent(tenant={self.tenant!r}, agent={self.agent!r})"

    @property
    def service(self) -> str | None:
        """The name of the service that the agent logs in to; None before the first login if none was given."""
        return self._connection.service

    @property
    def limits(self) -> Mapping[str, replies.LimitState]:
        """The last known state of the tenant's limits, by name: of those that the server pushed, at 80 % and 100 %, or that
        refused a command. `TenantClient.limits` reads all of them."""
        return MappingProxyType(self._connection.outbox.limits)

    async def subscribe(self, channel: str, start: frames.Start = "cursor", *, timeout_s: float = 30.0) -> Subscribed:
        """Start to receive a channel. Existing subscriptions of the agent are delivered without this call.

        `start`: "cursor" (after the last acknowledged message), "new" (after the newest), "first" (the oldest stored), or a
        sequence. Any start but the cursor discards the channel's buffered messages. Raises the server's error, such as
        `ChannelNotFound`. May be repeated.
        """
        self._check_entered()
        reply = await self._connection.request(self._connection.subscription(channel, start), timeout_s)
        assert isinstance(reply, replies.SubscribeReply)
        return Subscribed(channel, reply.epoch, reply.cursor, reply.last)

    async def set_status(self, status: str | None, *, timeout_s: float = 30.0) -> None:
        """Show a status of 1 to 64 characters in the agent's presence until its last connection closes; None removes it.

        It is set again after a reconnect. May be repeated. Raises `Invalid`.
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
        """Return a page of a channel's stored messages, at most `limit` (200). It acknowledges nothing.

        With `after` (a sequence, or an aware time) oldest first from there; without it newest first, back from `before` or from
        the end. If `has_more` is set, the next page starts at the last message's `seq`. May be repeated. Raises the server's
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

    @overload
    def messages(
        self, *channels: str, type: type[T], start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[False] = False
    ) -> Messages[TypedMessage[T]]: ...

    @overload
    def messages(
        self, *channels: str, type: type[T], start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[True]
    ) -> Messages[TypedMessage[T] | Gap]: ...

    def messages(
        self, *channels: str, type: Any = None, start: frames.Start = "cursor", auto_ack: bool = False, gaps: bool = False
    ) -> Messages[Any]:
        """Iterate over the messages of the given channels, after subscribing to them, or of all subscribed channels.

        The loop runs until the agent is closed. Several loops over one channel share its messages: each message goes to one loop.
        Messages of a channel arrive in order. With `auto_ack` a message is acknowledged when the next one is requested; the last
        message before a `break` is acknowledged by the next such loop over its channel, if any.

        Each loop over given channels subscribes to each of them once, so it raises `ChannelNotFound` for a deleted channel, and
        `Conflict` for a paused subscription. By default a channel that is already received continues where it is; any other
        `start` is as for `subscribe`. A step may be cancelled, for example by a timeout: the next step continues, and no message
        is skipped.

        Messages that will not come, such as those removed by retention, are logged as a warning. With `gaps` the loop also yields
        a `Gap` in their place.

        With `type` the data of each message is a value of that type, as for `on`. A message that does not match goes to the dead
        letters of its queue; in other channels the function of `on_failure` gets it, and without one the step raises
        `PayloadMismatch`, whose `received` is the message, and the next step continues after it. The channel "@" stands for
        the agent's inbox.
        """
        if start != "cursor" and not channels:
            raise ValueError("start needs channels")
        self._check_entered()
        validate = None if type is None else partial(self._validated, reader_of(type))
        return Messages(self._connection, channels, start, auto_ack=auto_ack, gaps=gaps, validate=validate)

    async def _validated(self, read: Reader, message: Message) -> Message | None:
        return await validated(message, read, self._on_failure)

    async def pull(self, *, limit: int = 50, wait_s: float = 0, channel: str | None = None) -> Pulled:
        """Return at most `limit` (200) messages of all subscribed channels, or of one, over REST: without a socket, and so also
        outside of the agent's block, for programs that run for a moment. Call `aclose` after the last one then.

        It acknowledges nothing: messages come again until their `ack`. With `wait_s` (at most 25), it waits for a first message.
        An agent may have two waiting pulls at a time. The login is renewed as needed. Raises the server's error, and `Invalid`
        if `url` is a gateway's. May be repeated.

            agent = Agent()
            try:
                for message in await agent.pull(wait_s=20):
                    await handle(message.data)
                    await message.ack()
            finally:
                await agent.aclose()
        """
        client = await self.client()
        return await client.tenant(self.tenant).inbox(self.agent).pull(limit=limit, wait_s=wait_s, channel=channel)

    async def client(self) -> Client:
        """Return the REST client of this agent, also outside of its block. It logs in at the first call, and again when its token
        is refused; `aclose` closes it. Raises as `pull` does.
        """
        async with self._logging_in:
            if self._client is None:
                self._client = await self._logged_in()
        return self._client

    async def _logged_in(self) -> Client:
        client, is_open = self._new_client(), False
        try:
            await client.login(self.tenant, self.agent, self._signer, service=self._connection.service)
            is_open = True
        finally:
            if not is_open:
                await client.__aexit__(None, None, None)
        return client

    async def flush(self, *, timeout_s: float = 30.0) -> None:
        """Return when every ack so far has been written to the connection. Raises `Unavailable` after `timeout_s`.

        The ack of a message after an unacknowledged one is not sent, and this does not wait for it. After a lost connection an
        ack is sent when the server has repeated its message. May be repeated.
        """
        self._check_entered()
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.flush()
        except TimeoutError as exc:
            raise errors.Unavailable("the gateway") from exc


def _given(name: str, value: str | None = None) -> str:
    """Return the argument, or the value of its environment variable. Raises `Invalid` if both are missing."""
    variable = f"ARTCAFE_{name.upper()}"
    found = value or os.environ.get(variable)
    if not found:
        raise errors.Invalid(name, f"pass it as an argument, or set {variable}")
    return found
