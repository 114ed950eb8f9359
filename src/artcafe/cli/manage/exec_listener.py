"""The messages of `artcafe agent listen --exec`, each or a batch of them given to a command.

A message is acknowledged when the command exits with 0. After anything else a queue gets it back, and a message of any other
channel is tried again here, with a back-off, before its successors: as functions of `Agent.on` do (decision 55). It is not built
on these, because it receives every channel of the agent, also those subscribed to later, and passes on several messages at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Final

from artcafe.cli.manage.command_runner import CommandRunner
from artcafe.cli.terminal.payload import one_line, position_text
from artcafe.errors import NotHeld
from artcafe.sdk import backoff
from artcafe.sdk.commands import wait
from artcafe.sdk.messages import Message
from artcafe.sdk.outcome import Outcome

log = logging.getLogger("artcafe")

MAX_LIVE: Final = 1024
"""Messages of a `live` channel that wait for the command; further ones are dropped, as by the SDK. No window limits them."""


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """How messages are given to the command: at most `parallel` processes, and up to `batch` messages of a channel for each."""

    parallel: int
    batch: int
    extend_s: float
    give_up: int | None
    count: int | None

    @property
    def window(self) -> int:
        """The unacknowledged messages of a channel that the server may send. In a queue these are held, so there are no more
        than processes can take."""
        return self.parallel * self.batch


@dataclass(slots=True)
class _Lane:
    """The messages of one channel that wait for a process, and its number of workers."""

    waiting: deque[Message] = field(default_factory=deque)
    workers: int = 0


class ExecListener:
    """Takes messages, and gives them to a command until they are settled."""

    def __init__(self, options: ExecOptions, runner: CommandRunner) -> None:
        self._options, self._runner = options, runner
        self._lanes: dict[str, _Lane] = {}
        self._slots = asyncio.Semaphore(options.parallel)
        self._held: set[Message] = set()
        """Messages of queues that are not settled yet."""
        self._closing, self._counted = asyncio.Event(), asyncio.Event()
        self._settled = self._running = 0
        self._dropped = 0

    async def take(self, messages: AsyncIterable[Message], group: asyncio.TaskGroup) -> None:
        """Take messages until their end, or until `count` are settled. Workers run in `group`. Raises the error of `messages`."""
        taken = 0
        async for message in messages:
            self._add(message, group)
            taken += 1
            if taken == self._options.count:
                await self._counted.wait()
                return

    def close(self) -> None:
        """Start no further process, and try no message again. What has not been settled is delivered again."""
        self._closing.set()
        if self._running:
            log.info("waits for %d running command%s; another signal kills them", self._running, "s" if self._running > 1 else "")

    async def extend(self) -> None:
        """Extend the deadlines of messages of queues until cancelled, also while they wait for a process."""
        while True:
            await asyncio.sleep(self._options.extend_s)
            for message in list(self._held):
                await self._extend(message)

    async def _extend(self, message: Message) -> None:
        outcome = Outcome()
        with outcome:
            await message.extend()
        if isinstance(outcome.error, NotHeld):
            self._held.discard(message)
        elif outcome.error is not None:  # The deadline is unchanged; the next round tries again.
            log.debug("%s was not extended: %s", _named([message]), outcome.error)

    def _add(self, message: Message, group: asyncio.TaskGroup) -> None:
        lane = self._lanes.setdefault(message.channel_id, _Lane())
        if message.seq is None and len(lane.waiting) >= MAX_LIVE:
            self._drop(message)
            return
        lane.waiting.append(message)
        if message.deliveries is not None:
            self._held.add(message)
        if lane.workers < self._options.parallel:
            lane.workers += 1
            group.create_task(self._work(lane))

    def _drop(self, message: Message) -> None:
        if self._dropped == 0:
            log.warning(
                "%d messages of %s wait for the command: further ones of this live channel are dropped", MAX_LIVE, message.channel
            )
        self._dropped += 1
        self._count(1)

    async def _work(self, lane: _Lane) -> None:
        """Handle the messages of a channel, as long as some wait."""
        while lane.waiting:
            size = min(len(lane.waiting), self._options.batch)
            batch = [lane.waiting.popleft() for _ in range(size)]
            await self._handle(batch)
            self._held.difference_update(batch)
            self._count(size)
        lane.workers -= 1

    def _count(self, number: int) -> None:
        self._settled += number
        if self._options.count is not None and self._settled >= self._options.count:
            self._counted.set()

    async def _handle(self, batch: list[Message]) -> None:
        """Give the messages to the command until they are acknowledged or given back, or the agent closes."""
        tries = 0
        while not self._closing.is_set():
            async with self._slots:
                batch = [each for each in batch if each.deliveries is None or each in self._held]
                if self._closing.is_set() or not batch:
                    return
                failure = await self._run(batch)
            tries += 1
            if failure is not None:
                log.error("%s: the command %s (attempt %d)", _named(batch), failure, tries)
            if failure is not None and batch[0].deliveries is not None:
                await self._give_back(batch)
                return
            if failure is None or tries == self._options.give_up:
                await self._acknowledge(batch, has_failed=failure is not None)
                return
            await wait(self._closing, backoff.delay_s(tries))

    async def _run(self, batch: list[Message]) -> str | None:
        self._running += 1
        try:
            return await self._runner.run("".join(f"{one_line(each.json)}\n" for each in batch).encode())
        finally:
            self._running -= 1

    async def _acknowledge(self, batch: list[Message], *, has_failed: bool) -> None:
        if has_failed:
            log.error("%s: given up and acknowledged after %d attempts", _named(batch), self._options.give_up)
        for message in batch:
            await message.ack()

    async def _give_back(self, batch: list[Message]) -> None:
        for message in batch:
            outcome = Outcome()
            with outcome:
                await message.nak()
            if outcome.error is not None and not isinstance(outcome.error, NotHeld):  # The deadline gives it back, too.
                log.warning("%s was not given back: %s", _named([message]), outcome.error)


def _named(batch: list[Message]) -> str:
    """Return the channel and sequences of messages of one channel."""
    first, last = position_text(batch[0].seq), position_text(batch[-1].seq)
    return f"{batch[0].channel} {first}" + (f" to {last} ({len(batch)} messages)" if len(batch) > 1 else "")
