"""A server process of a group: `python -m artcafe.process_group.worker`, started by the supervisor alone.

It ends when the supervisor closes the connection socket or dies.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import signal
import socket
import sys
from typing import Final, TypeVar

from artcafe.config import Settings
from artcafe.connection_source import HandedConnections
from artcafe.errors import StartRefused, Unavailable
from artcafe.listeners import ListenerSettings, allow_descriptors
from artcafe.observe import metrics
from artcafe.observe.clock import now
from artcafe.observe.logs import configure, log
from artcafe.process_group.group_metrics import count_in_column
from artcafe.process_group.handover import Receiver
from artcafe.process_group.messages import Boot, Draining, MessageChannel, NatsMoved, Ready, Refused, Report, Serving, ToProcess
from artcafe.resources import Addresses
from artcafe.rules.shared_limits import peer_limits, size_bytes
from artcafe.server import serve_handed

try:
    from uvloop import new_event_loop
except ImportError:  # It does not exist for this platform; the standard loop does the same, slower.
    from asyncio import new_event_loop  # type: ignore[assignment]  # The loop of asyncio is the more general type.

REPORT_S: Final = 1.0
ORPHAN_S: Final = 20.0
"""Time to drain after the supervisor's death; then SIGALRM ends the process."""
REFUSED: Final = 3
"""The exit status of `cli.terminal.exit_codes`."""

AnyError = TypeVar("AnyError", bound=BaseException)


class Worker:
    """One server process, from its boot message to its end."""

    def __init__(self, boot: Boot, channel: MessageChannel[ToProcess], receiver: Receiver, shared: mmap.mmap) -> None:
        """`shared` are the group's limits and metrics."""
        self._boot, self._channel, self._receiver = boot, channel, receiver
        self._settings = Settings.model_validate_json(boot.settings)
        configure(self._settings.log_level, json=self._settings.log_json, process=boot.number)
        memory = memoryview(shared)
        limits = peer_limits(memory, boot.column, boot.columns)
        metrics.CELLS.name_tenants(self._settings.metrics_tenants)
        if not count_in_column(memory[size_bytes(boot.columns) :], boot.column, boot.metrics_layout):
            log.warning("metrics.not_shared", remedy="stop the supervisor and start it again: it is of another version")
        self._front = ListenerSettings.of(self._settings, now(), allow_descriptors(), limits)
        self._nats_urls = list(boot.nats_urls)
        self._serving = 0
        self._until = asyncio.Event()

    async def run(self) -> None:
        """Serve until the supervisor drains this process or dies. Raises `StartRefused`, possibly in an ExceptionGroup."""
        boot = self._boot
        handed = HandedConnections(
            self._front,
            Addresses(boot.url, boot.gateway_url),
            self._nats_urls,
            boot.is_embedded,
            self._receiver,
            {"processes": self._check_group},
            (boot.number, boot.processes),
            boot.denied,
        )
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(each) for each in (self._report(), self._await_end(), self._listen())]
            serving = group.create_task(serve_handed(self._settings, self._until, self._ready, handed))
            loops[2].add_done_callback(lambda _: self._orphan(serving))
            await serving
            for loop in loops:
                loop.cancel()

    def _ready(self, _: Addresses) -> None:
        gc.collect()
        gc.freeze()  # What the start has made stays: the collector need not look at it again.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):  # Until here, a signal ends the process at once.
            loop.add_signal_handler(number, self._drain)
        self._channel.send(Ready())

    def _drain(self) -> None:
        """Drain because of a signal, and notify the supervisor."""
        self._channel.send(Draining())
        self._until.set()

    async def _await_end(self) -> None:
        await self._receiver.ended.wait()
        self._until.set()

    async def _report(self) -> None:
        while True:
            self._channel.send(Report(self._front.connections.count))
            await asyncio.sleep(REPORT_S)

    async def _listen(self) -> None:
        """Handle messages until the supervisor closes the channel or dies."""
        async for message in self._channel.messages():
            match message:
                case Serving(count):
                    self._serving = count
                case NatsMoved(urls):
                    self._nats_urls[:] = urls
                case Boot():
                    raise AssertionError("boot comes once")

    def _orphan(self, serving: asyncio.Task[None]) -> None:
        """Drain after the supervisor's death; an embedded nats-server has ended with it."""
        if serving.done():
            return
        log.warning("process.orphaned", effect="it ends")
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_S)  # SIGALRM ends a process that has no handler for it.
        if self._until.is_set():
            return
        self._until.set()
        if not self._serving:
            serving.cancel()

    async def _check_group(self) -> None:
        """Raise Unavailable unless every process of the group serves."""
        if self._serving < self._boot.processes:
            raise Unavailable.from_text(f"{self._serving} of {self._boot.processes} server processes serve")


async def _run(channel_fd: int, connections_fd: int, shared_fd: int) -> int:
    """Return the exit status."""
    channel: MessageChannel[ToProcess] = await MessageChannel.open(socket.socket(fileno=channel_fd), ToProcess)
    boot = await channel.receive()
    if not isinstance(boot, Boot):  # The supervisor is gone.
        return REFUSED
    try:
        worker = Worker(boot, channel, Receiver(socket.socket(fileno=connections_fd)), mmap.mmap(shared_fd, 0))
        await worker.run()
    except (StartRefused, BaseExceptionGroup) as exc:
        refused = _first(exc, StartRefused)
        if refused is None:
            raise
        channel.send(Refused(refused.problem, refused.remedy))
        return REFUSED
    finally:
        channel.close()
    return 0


def _first(exc: BaseException, kind: type[AnyError]) -> AnyError | None:
    """Return the first exception of a kind: task groups wrap what ended them, one around another."""
    if isinstance(exc, BaseExceptionGroup):
        return next((found for each in exc.exceptions if (found := _first(each, kind))), None)
    return exc if isinstance(exc, kind) else None


def main() -> None:
    """Run the process, with the descriptors and the number from the command line."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # It is for the supervisor, which replaces this process.
    channel_fd, connections_fd, shared_fd, number = map(int, sys.argv[1:])
    configure(process=number)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        status = runner.run(_run(channel_fd, connections_fd, shared_fd))
    sys.exit(status)


if __name__ == "__main__":
    main()
