"""Messages, loops over them, and receipts for synchronous programs (`artcafe.sync`)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Self, TypeVar, overload

from artcafe.sdk import event_streams, handling, iteration, messages, pull, tracked_receipts
from artcafe.sdk.blocking import Call, call
from artcafe.sdk.messages import Gap, Receipt

T = TypeVar("T")
ItemT = TypeVar("ItemT")


class Message(messages.Message):
    """`artcafe.Message` for synchronous programs: its methods block."""

    def __init__(self, message: messages.Message) -> None:
        """`message` is the received one, which settles it."""
        vars(self).update(vars(message))
        self._message = message

    @property
    def data(self) -> Any:
        return self._message.data

    @property
    def is_settled(self) -> bool:
        return self._message.is_settled

    def ack(self, *, cumulative: bool = False) -> None:  # type: ignore[override]  # It blocks.
        call(self._message.ack(cumulative=cumulative))

    def nak(self, delay_s: float | None = None, *, dead: bool = False) -> None:  # type: ignore[override]  # It blocks.
        call(self._message.nak(delay_s, dead=dead))

    def extend(self) -> None:  # type: ignore[override]  # It blocks.
        call(self._message.extend())

    def reply(  # type: ignore[override]  # It blocks.
        self,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        timeout_s: float = 30.0,
    ) -> Receipt:
        return call(self._message.reply(data, key=key, headers=headers, reply_to=reply_to, timeout_s=timeout_s))


class TypedMessage(Message, Generic[T]):
    """`artcafe.TypedMessage` for synchronous programs."""

    @property
    def data(self) -> T:
        value: T = self._message.data
        return value


class PulledMessage(Message):
    """A message of `Agent.pull` for synchronous programs."""

    _message: pull.PulledMessage

    @property
    def receipt(self) -> str | None:
        return self._message.receipt

    @property
    def held_until(self) -> datetime | None:
        return self._message.held_until


class Pulled(Sequence[PulledMessage]):
    """The result of `Agent.pull` for synchronous programs."""

    def __init__(self, pulled: pull.Pulled) -> None:
        self._pulled = pulled
        self._messages = tuple(map(PulledMessage, pulled))
        self.gaps, self.has_more, self.epoch = pulled.gaps, pulled.has_more, pulled.epoch

    @overload
    def __getitem__(self, index: int) -> PulledMessage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[PulledMessage]: ...

    def __getitem__(self, index: int | slice) -> PulledMessage | Sequence[PulledMessage]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def ack(self) -> None:
        """Acknowledge every message of this pull in one request. May be repeated."""
        call(self._pulled.ack())


class TrackedReceipt:
    """`artcafe.TrackedReceipt` for synchronous programs."""

    def __init__(self, receipt: tracked_receipts.TrackedReceipt) -> None:
        self._receipt = receipt

    @property
    def published(self) -> Receipt:
        return self._receipt.published

    @property
    def reason(self) -> str | None:
        return self._receipt.reason

    @property
    def open(self) -> int | None:
        return self._receipt.open

    @property
    def seq(self) -> int | None:
        return self._receipt.seq

    @property
    def message_id(self) -> str | None:
        return self._receipt.message_id

    @property
    def outcome(self) -> tracked_receipts.Recipient | None:
        return self._receipt.outcome

    @property
    def recipients(self) -> Mapping[str, tracked_receipts.Recipient]:
        return self._receipt.recipients

    @property
    def is_reached(self) -> bool:
        return self._receipt.is_reached

    def wait(self, timeout_s: float | None = None) -> Self:
        """Return when the receipt has ended. Raises TimeoutError after `timeout_s`."""
        call(self._receipt.wait(timeout_s))
        return self

    def __iter__(self) -> Iterator[tracked_receipts.Recipient]:
        changes = aiter(self._receipt)
        while (change := call(_next(changes))) is not None:
            yield change


async def _next(items: Any) -> Any:
    return await anext(items, None)


class Steps(ABC, Generic[ItemT]):
    """An iterator over asynchronous items, for synchronous programs. A step that is interrupted loses no item."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items
        self._kept: Any = None
        """What arrived while a step was interrupted."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        return self.next()

    def next(self, timeout_s: float | None = None) -> ItemT:
        """Return the next item. Raises TimeoutError after `timeout_s`, and StopIteration at the end.

        After a timeout the loop continues: no item is skipped.
        """
        item, self._kept = self._kept, None
        if item is None:
            step = Call(self._step(timeout_s))
            try:
                item = step.result()
            except (KeyboardInterrupt, SystemExit):
                self._kept = step.cancel()
                raise
        if item is None:
            raise StopIteration
        return self._wrapped(item)

    async def _step(self, timeout_s: float | None) -> Any:
        async with asyncio.timeout(timeout_s):
            return await anext(self._items, None)

    @abstractmethod
    def _wrapped(self, item: Any) -> ItemT:
        """Return the form of an item for synchronous programs."""


class Messages(Steps[ItemT]):
    """An endless iterator over messages, for synchronous programs, which ends when the agent is closed."""

    def __init__(self, items: iteration.Messages[Any], tenant: str, wrap: Callable[[messages.Message], Message]) -> None:
        super().__init__(items)
        self._tenant, self._wrap = tenant, wrap
        self._loop = object()

    def __del__(self) -> None:
        handling.end(self._loop)

    def next(self, timeout_s: float | None = None) -> ItemT:
        """Return the next item. Raises TimeoutError after `timeout_s`, and StopIteration when the agent is closed.

        After a timeout the loop continues: no message is skipped.
        """
        handling.end(self._loop)
        return super().next(timeout_s)

    def _wrapped(self, item: Any) -> ItemT:
        found: Any = item
        if isinstance(item, messages.Message):
            found = self._wrap(item)
            handling.begin(found, self._tenant, self._loop)
        return found  # type: ignore[no-any-return]  # The agent chose the iterator and the wrapper for ItemT.


class MessageStream(Steps[Message | Gap]):
    """`MessageStream` for synchronous programs."""

    def __init__(self, stream: event_streams.MessageStream) -> None:
        super().__init__(stream)
        self._stream = stream

    @property
    def last_id(self) -> str | None:
        """The position after the last item, for another stream. None before the first event."""
        return self._stream.last_id

    def close(self) -> None:
        """Close the connection. The next step would open another one."""
        call(self._stream.aclose())

    def _wrapped(self, item: Any) -> Message | Gap:
        return Message(item) if isinstance(item, messages.Message) else item
