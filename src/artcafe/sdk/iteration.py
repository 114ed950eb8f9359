"""The loop over messages: `async for message in agent.messages():`."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Self, TypeVar, cast

from artcafe.sdk.connection import AgentConnection, OutgoingCommand, PendingReply
from artcafe.sdk.messages import Gap, Message
from artcafe.wire import frames

SUBSCRIBE_S: Final = 30.0
"""How long a loop waits for the reply to each of its `subscribe` commands."""

T = TypeVar("T", bound=Message | Gap)


class Messages(Generic[T]):
    """An endless iterator over the messages of some channels, or of all that the agent is subscribed to.

    It subscribes to the channels that it was given before it yields anything: to each once, however often a step is cancelled,
    such as by a timeout. The command stays on its way then, and the next step waits for its reply.
    """

    def __init__(
        self, connection: AgentConnection, channels: tuple[str, ...], start: frames.Start, *, auto_ack: bool, gaps: bool
    ) -> None:
        self._connection, self._channels, self._start = connection, channels, start
        self._auto_ack, self._gaps = auto_ack, gaps
        self._unjoined = deque(dict.fromkeys(channels))
        self._pending: PendingReply | None = None
        self._handled: Message | None = None

    def __del__(self) -> None:
        # A loop that ended by `break` or an exception: its last message would hold the cursor for every later loop.
        if self._handled is not None:
            self._connection.left_over.append(self._handled)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._connection.check_loop()
        while self._unjoined:
            await self._join(self._unjoined[0])
            self._unjoined.popleft()
        if self._auto_ack:
            await self._ack_handled()
        item = await self._connection.item(self._channels)
        while isinstance(item, Gap) and not self._gaps:
            item = await self._connection.item(self._channels)
        if item is None:
            raise StopAsyncIteration
        if self._auto_ack and isinstance(item, Message):
            self._handled = item
        return cast(T, item)  # Without `gaps`, T is Message, and gaps were passed over above.

    async def _ack_handled(self) -> None:
        """Acknowledge the message before, and the last ones of loops over these channels that have ended."""
        handled = [self._handled] if self._handled is not None else []
        for message in [*handled, *self._connection.left_over_in(self._channels)]:
            await message.ack()
        self._handled = None

    async def _join(self, channel: str) -> None:
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
