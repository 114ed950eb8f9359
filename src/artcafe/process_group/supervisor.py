"""The supervisor of several server processes: starts them, restarts dead ones, replaces them one by one, and ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from artcafe.config import Settings
from artcafe.errors import PlansInvalid, SettingInvalid, StartRefused
from artcafe.fabric.fabric import Broker
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.process_group.handover import Acceptor
from artcafe.process_group.messages import Boot, Serving
from artcafe.process_group.reload import reread
from artcafe.process_group.server_process import ServerProcess
from artcafe.process_group.shared_memory import SharedMemory
from artcafe.resources import Addresses

TICK_S: Final = 1.0
MORE_COLUMNS: Final = 2
"""Additional columns of the shared limits: for a replacement, and for a restart of the replaced process meanwhile."""
RESTART_MIN_S: Final = 0.5
RESTART_MAX_S: Final = 30.0
SETTLED_S: Final = 60.0
"""A process that dies after this time is restarted without an increased delay."""
MOST_FIRST_STARTS: Final = 4
"""Starts of one process before the group gives up, if no process ever became ready."""
START_S: Final = 120.0
"""Time for a replacement to become ready: it may wait for NATS or DynamoDB."""
DRAIN_S: Final = 20.0
"""Time for a process to drain: the gateway takes up to 4 s, and REST 5 s."""

UNCHANGED: Final = "the processes go on as they are"


@dataclass(frozen=True, slots=True)
class Shared:
    """Resources shared by the processes of a group."""

    nats: Broker
    addresses: Addresses
    denied: Sequence[str] = ()
    """The permissions on the tables that were denied to the supervisor."""


class ProcessSupervisor:
    """Runs `size` server processes. The listeners, NATS and the data folder are the caller's."""

    def __init__(self, settings: Settings, size: int, shared: Shared, reload: Callable[[], Settings]) -> None:
        """`reload` reads the settings anew for a rolling restart, and raises `SettingInvalid` for wrong ones."""
        self._settings, self._size, self._shared, self._reload = settings, size, shared, reload
        self._processes: dict[int, ServerProcess] = {}
        """The current process by number. During a rolling restart a replacement is entered once it is ready."""
        self._replacing: ServerProcess | None = None
        self._acceptors: list[Acceptor] = []
        self._followers: asyncio.TaskGroup | None = None
        self._memory = SharedMemory(size + MORE_COLUMNS)
        self._roll = asyncio.Event()
        self._is_stopping = self._was_any_ready = False
        self._all_ready = asyncio.Event()
        self._serving = 0

    def metrics_text(self) -> bytes:
        """Return the metrics of the group in Prometheus's text format."""
        return self._memory.metrics.text()

    def serving(self) -> list[ServerProcess]:
        """Return the processes ready to take connections."""
        return [each for each in self._processes.values() if each.is_serving]

    def roll(self) -> None:
        """Replace the processes one by one. A call during a rolling restart starts another one after it."""
        if not self._is_stopping:
            self._roll.set()

    async def run(
        self,
        acceptors: Sequence[Acceptor],
        until: asyncio.Event,
        ready: Callable[[], None],
        more: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        """Run the group until the event is set, then end it in order. `ready` is called once, when every process serves, and
        `more` run until then.

        Raises `StartRefused` if no process ever becomes ready.
        """
        self._acceptors = list(acceptors)
        async with asyncio.TaskGroup() as self._followers:
            try:
                async with asyncio.TaskGroup() as group:
                    loops = [group.create_task(self._keep(number)) for number in range(1, self._size + 1)]
                    loops += [group.create_task(each()) for each in (self._tick, self._roll_on_request, *more)]
                    await self._first_of(self._all_ready, until)
                    if not until.is_set():
                        ready()
                    await until.wait()
                    self._is_stopping = True
                    for loop in loops:
                        loop.cancel()
            finally:
                self._is_stopping = True
                await self._end_all()
        self._memory.close()

    @staticmethod
    async def _first_of(*events: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(event.wait()) for event in events]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    # --- one process -----------------------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Start the process of this number, and restart it whenever it ends."""
        process = await self._start_after(number, None)
        failures = 0
        while True:
            await process.ended.wait()
            if self._processes[number] is process:
                failures = 0 if time.monotonic() - process.began > SETTLED_S else failures + 1
                delay_s = _delay_s(failures)
                metrics.PROCESS_RESTARTS.of().add()
                log.error("process.ended", process=number, pid=process.pid, problem=process.end, restart_s=delay_s)
                self._give_up(process, failures)
                await asyncio.sleep(delay_s)
            process = await self._start_after(number, process)

    async def _start_after(self, number: int, ended: ServerProcess | None) -> ServerProcess:
        """Start a process in the place of the ended one, or of none, and try again until the system allows it.

        Return the process of this number: that of a rolling restart, if it was faster.
        """
        failures = 0
        while self._processes.get(number) is ended:
            started = await self._start(number)
            if started is None:
                failures += 1
                await asyncio.sleep(_delay_s(failures))
            elif self._processes.get(number) is ended:
                self._processes[number] = started
            else:
                await self._end(started)
        return self._processes[number]

    def _give_up(self, process: ServerProcess, failures: int) -> None:
        """Raise `StartRefused` if another start is unlikely to succeed."""
        if self._was_any_ready:
            return
        if process.refused is not None:
            raise StartRefused(process.refused.problem, process.refused.remedy)
        if failures >= MOST_FIRST_STARTS:
            raise StartRefused(
                f"none of {self._size} server processes became ready, and number {process.boot.number} ended {failures} times,"
                f" at last with: {process.end}",
                "what it logged stands above; with --processes 1 it fails in the open",
            )

    async def _start(self, number: int) -> ServerProcess | None:
        """Start a process, and follow it until it ends. Return None if the system allows no new process.

        Raises `StartRefused` in that case if no process has ever become ready.
        """
        boot = Boot(
            self._settings.model_dump_json(),
            number,
            self._size,
            self._shared.addresses.url,
            self._shared.addresses.gateway_url,
            list(self._shared.nats.urls),
            self._shared.nats.is_embedded,
            list(self._shared.denied),
            self._memory.take_column(number),
            self._memory.columns,
            metrics.LAYOUT,
        )
        try:
            process = await ServerProcess.start(boot, self._memory.descriptor)
        except OSError as exc:
            self._memory.free_column(boot.column)
            remedy = "are the machine's processes or memory used up?"
            if not self._was_any_ready:
                raise StartRefused(f"a server process cannot be started: {exc}", remedy) from exc
            log.error("process.not_started", process=number, problem=str(exc), remedy=remedy)
            return None
        log.info("process.started", process=number, pid=process.pid)
        assert self._followers is not None, "run comes first"
        self._followers.create_task(self._follow(process))
        return process

    async def _follow(self, process: ServerProcess) -> None:
        try:
            await process.follow(self._changed)
        finally:
            self._memory.free_column(process.boot.column)

    def _all(self) -> list[ServerProcess]:
        """Return every process, including a replacement that is still starting."""
        return [*self._processes.values(), *([self._replacing] if self._replacing else [])]

    def _changed(self) -> None:
        """Notify processes and acceptors: a process has begun or stopped serving."""
        serving = len(self.serving())
        self._was_any_ready = self._was_any_ready or serving > 0
        self._serving = serving
        metrics.PROCESSES.of().set(serving)
        for each in self._all():
            each.send(Serving(serving))
        for acceptor in self._acceptors:
            acceptor.resume()
        if serving == self._size:
            self._all_ready.set()

    async def _tick(self) -> None:
        """Every second: detect silent processes, and notify all of a new address of nats-server."""
        while True:
            await asyncio.sleep(TICK_S)
            for process in list(self._processes.values()):
                if process.tick():
                    log.warning("process.silent", process=process.boot.number, pid=process.pid)
                    self._changed()
            for process in self._all():
                process.move_nats(self._shared.nats.urls)

    # --- a rolling restart -----------------------------------------------------------------------------------------------------

    async def _roll_on_request(self) -> None:
        while True:
            await self._roll.wait()
            self._roll.clear()
            await self._replace_all()

    async def _replace_all(self) -> None:
        """Start a new process for each, and end the old one once the new one is ready. Stop at the first failure: the
        remaining processes continue."""
        try:
            self._settings = reread(self._settings, self._reload)
        except (SettingInvalid, PlansInvalid) as exc:
            log.error("group.not_restarted", problem=str(exc), effect=UNCHANGED)
            return
        log.info("group.restarting", processes=self._size)
        for number in range(1, self._size + 1):
            if not await self._replace(number):
                return
        log.info("group.restarted", processes=self._size)

    async def _replace(self, number: int) -> bool:
        """Replace a process by a new one. Return False, with the old one unchanged, if the new one does not become ready."""
        new = self._replacing = await self._start(number)
        if new is None:
            log.error("group.restart_stopped", process=number, problem="it was not started", effect=UNCHANGED)
            return False
        try:
            if not await self._becomes_ready(new):
                log.error("group.restart_stopped", process=number, problem=new.end, effect=UNCHANGED)
                return False
            old, self._processes[number] = self._processes.get(number), new
        finally:
            self._replacing = None
            if self._processes.get(number) is not new:
                new.kill()
                await new.ended.wait()
        self._changed()
        if old is not None:  # None if the system has allowed no process of this number so far.
            await self._end(old)
        log.info("process.replaced", process=number, old=old and old.pid, new=new.pid)
        return True

    @staticmethod
    async def _becomes_ready(process: ServerProcess) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await ProcessSupervisor._first_of(process.ready, process.ended)
        return process.is_serving

    # --- the end ---------------------------------------------------------------------------------------------------------------

    async def _end_all(self) -> None:
        """Drain and end all processes at the same time."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._was_any_ready:
            log.info("group.draining", processes=len(self._processes))
        async with asyncio.TaskGroup() as group:
            for process in self._all():
                group.create_task(self._end(process))

    async def _end(self, process: ServerProcess) -> None:
        """Drain a process, and kill it after `DRAIN_S` or when this is cancelled."""
        process.drain()
        try:
            async with asyncio.timeout(DRAIN_S):
                await process.ended.wait()
        except TimeoutError:
            log.warning("process.slow_to_end", process=process.boot.number, pid=process.pid, waited_s=DRAIN_S)
        finally:
            if not process.ended.is_set():
                process.kill()
        await process.ended.wait()


def _delay_s(failures: int) -> float:
    """Return the delay before the next start, after this number of failures in succession."""
    doublings = min(max(0, failures - 1), 10)  # More would change nothing, and 1,024 would overflow.
    return min(RESTART_MAX_S, RESTART_MIN_S * 2.0**doublings)
