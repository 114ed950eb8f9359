"""The iterator of `async for message in agent.messages():`."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Self, TypeVar, cast

from artcafe.errors import PayloadMismatch
from artcafe.sdk import handling
from artcafe.sdk.commands import OutgoingCommand, PendingReply
from artcafe.sdk.connection import AgentConnection
from artcafe.sdk.messages import Gap, Message
from artcafe.wire import frames

SUBSCRIBE_S: Final = 30.0
"""The timeout of each `subscribe` command of a loop."""

T = TypeVar("T", bound=Message | Gap)

Validate = Callable[[Message], Awaitable[Message | None]]
"""Returns a message with validated data, or None to skip it."""


class Messages(Generic[T]):
    """An endless iterator over the messages of the given channels, or of all subscribed channels.

    Before it yields, it subscribes to each given channel once, even if a step is cancelled, for example by a timeout: the command
    then stays in flight, and the next step waits for its reply.
    """

    def __init__(
        self,
        connection: AgentConnection,
        channels: tuple[str, ...],
        start: frames.Start,
        *,
        auto_ack: bool,
        gaps: bool,
        validate: Validate | None = None,
    ) -> None:
        """`validate` is called with each message before it is yielded. The channel "@" is the agent's inbox."""
        self._connection, self._channels, self._start = connection, channels, start
        self._auto_ack, self._gaps, self._validate = auto_ack, gaps, validate
        self._to_subscribe = deque(each for each in dict.fromkeys(channels) if each != frames.INBOX_PREFIX)
        self._pending: PendingReply | None = None
        self._handled: Message | None = None
        self._to_validate: Message | None = None
        self._loop = object()
        """The identity of this loop in `sdk.handling`, which may outlive it there."""

    def __del__(self) -> None:
        handling.end(self._loop)  # After a `break`, the program handles the message of the loop around this one, or none.
        # A loop that ended by `break` or an exception: without this, its last message would stop the cursor of every later loop.
        if self._handled is not None:
            self._connection.unacked_of_ended_loops.append(self._handled)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._connection.check_loop()
        handling.end(self._loop)
        await self.subscribe()
        if self._auto_ack:
            await self._ack_handled()
        item = await self._next()
        while isinstance(item, Gap) and not self._gaps:
            item = await self._next()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Message):
            handling.begin(item, self._connection.tenant, self._loop)
            if self._auto_ack:
                self._handled = item
        return cast(T, item)  # Without `gaps`, T is Message, and the loop above has skipped the gaps.

    async def _next(self) -> Message | Gap | None:
        """Return the next gap or validated message; None at the end. Raises the error of `validate` once for a message."""
        while True:
            item = self._to_validate or await self._connection.item(self._channels)
            if self._validate is None or not isinstance(item, Message):
                return item
            self._to_validate = item  # A step that is cancelled now leaves the message to the next one.
            try:
                valid = await self._validate(item)
            except PayloadMismatch:
                self._to_validate = None
                raise
            self._to_validate = None
            if valid is not None:
                return valid

    async def subscribe(self) -> None:
        """Subscribe to the channels, unless it is done. Raises the server's error, such as `ChannelNotFound`."""
        while self._to_subscribe:
            await self._subscribe(self._to_subscribe[0])
            self._to_subscribe.popleft()

    async def _ack_handled(self) -> None:
        """Acknowledge the previous message, and the last messages of ended loops over these channels."""
        handled = [self._handled] if self._handled is not None else []
        for message in [*handled, *self._connection.take_unacked_of_ended_loops(self._channels)]:
            await message.ack()
        self._handled = None

    async def _subscribe(self, channel: str) -> None:
        pending = self._pending = self._pending or self._connection.submit(self._subscription(channel))
        try:
            await self._connection.reply_to(pending, SUBSCRIBE_S)
        finally:
            if pending.reply.done():
                self._pending = None

    def _subscription(self, channel: str) -> OutgoingCommand:
        if self._start == "cursor":
            return self._connection.continuation(channel)
        return self._connection.subscription(channel, self._start)
