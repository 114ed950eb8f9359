"""Traffic of one kind on a platform with faults: tasks that record what they see, and the ruling on it at the end."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

from artcafe.sdk.client import Client
from tests.faults.restores import RestoreEvent, Stage
from tests.faults.verdicts import Ruling
from tests.platform import Cast, Platform

WAIT_S: Final = 60.0
"""For a platform that restarts on a machine that is busy with other tests."""
PAUSE_S: Final = 0.05


class Traffic(ABC):
    """Traffic of one tenant, from `begin` until `end`."""

    name: ClassVar[str]
    agents: ClassVar[int]

    def __init__(self, platform: Platform, cast: Cast, seed: int) -> None:
        self.platform, self.cast = platform, cast
        self.chance = random.Random(f"{seed} {self.name}")
        self.progress = 0
        """Counts what was done; a test injects its fault after so many steps."""
        self.is_stopping = False
        """Begin nothing new."""
        self.nats_kills: list[float] = []
        """When nats-server was killed; the test adds to it."""
        self.nats_cuts: list[tuple[float, float]] = []
        """From when to when servers could not reach NATS; the test adds to it."""
        self.restored_at = 0.0
        """When the platform was started on a backup, in seconds since 1970; the test sets it."""
        self._tasks: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Prepare the tenant, and start all traffic."""
        self._group = group
        await self.prepare()
        for work in self.work():
            self.spawn(work)

    @abstractmethod
    async def prepare(self) -> None:
        """Make the tenant's channels and subscriptions."""

    @property
    @abstractmethod
    def all_events(self) -> list[Any]:
        """The history, of which each traffic has its own kinds of events."""

    @abstractmethod
    def work(self) -> Sequence[Coroutine[None, None, None]]:
        """Return the traffic. Each coroutine continues through faults, until `is_stopping` or `stop`."""

    @abstractmethod
    async def end(self, *, is_faulted: bool, stopped_s: float = 0.0) -> Ruling:
        """Let the traffic come to its end, and judge it. `stopped_s`: the longest time of a process's stop or absence."""

    def mark(self, event: RestoreEvent) -> None:
        """Add a part of a restore to the history."""
        self.all_events.append(event)

    async def reach(self, stage: Stage) -> None:
        """Do what a kind of traffic does at this stage of a restore in addition."""
        del stage  # not every kind does anything

    async def read_lost(self, rest: Client) -> None:
        """Read what the checker needs of the log that a restore has replaced, from a platform that runs on its files."""
        del rest  # not every kind needs any of it

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a part of the traffic, until it returns or `stop`."""
        assert self._group is not None
        self._tasks.append(self._group.create_task(work))

    def stop(self) -> None:
        """Stop everything at once."""
        for task in self._tasks:
            task.cancel()

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds. Fail after `WAIT_S`."""
        until = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < until, f"{self.name}: no {what} within {WAIT_S} s:\n{self.platform.log()[-2000:]}"
            await asyncio.sleep(PAUSE_S)

    async def advance(self, steps: int) -> None:
        """Wait until this many more steps are done."""
        goal = self.progress + steps
        await self.until(lambda: self.progress >= goal, f"{steps} more steps, of {self.progress}")


@asynccontextmanager
async def running_all(platform: Platform, kinds: Sequence[type[Traffic]], seed: int) -> AsyncIterator[list[Traffic]]:
    """Run traffic of each kind, in a tenant of its own; it ends with this block."""
    casts = [await platform.tenant_with(agents=kind.agents, channels=0) for kind in kinds]
    all_of = [kind(platform, cast, seed) for kind, cast in zip(kinds, casts, strict=True)]
    async with asyncio.TaskGroup() as group:
        try:
            for traffic in all_of:
                await traffic.begin(group)
            yield all_of
        finally:
            for traffic in all_of:
                traffic.stop()


async def end_all(all_of: Sequence[Traffic], *, is_faulted: bool, stopped_s: float = 0.0) -> dict[str, Ruling]:
    """End each traffic, and return the rulings by its name."""
    async with asyncio.TaskGroup() as group:
        ending = {each.name: group.create_task(each.end(is_faulted=is_faulted, stopped_s=stopped_s)) for each in all_of}
    return {name: task.result() for name, task in ending.items()}


async def advance_all(all_of: Sequence[Traffic], steps: int) -> None:
    """Wait until each traffic has done this many more steps."""
    async with asyncio.TaskGroup() as group:
        for traffic in all_of:
            group.create_task(traffic.advance(steps))
