"""The supervisor's view of one server process: start, messages, handed connections, end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from typing import Final

from artcafe.observe.logs import log
from artcafe.process_group.handover import send
from artcafe.process_group.messages import (
    Boot,
    Draining,
    MessageChannel,
    NatsMoved,
    Ready,
    Refused,
    Report,
    ToProcess,
    ToSupervisor,
)

MODULE: Final = "artcafe.process_group.worker"
SILENT_TICKS: Final = 5
"""Seconds without a heartbeat before a process gets no more connections and the group is not ready."""
HUNG_TICKS: Final = 30
"""Seconds without a heartbeat before a process is killed: its event loop hangs. Acknowledged messages are stored."""


class ServerProcess:
    """A process of the group, running `process_group.worker` in its own interpreter."""

    def __init__(self, boot: Boot, process: Process, channel: MessageChannel[ToSupervisor], connections: socket.socket) -> None:
        """For `start`."""
        self.boot = boot
        self.pid = process.pid
        self.began = time.monotonic()
        self.refused: Refused | None = None
        self.ready, self.ended = asyncio.Event(), asyncio.Event()
        self._process, self._channel, self._connections = process, channel, connections
        self._nats_urls = boot.nats_urls
        self._is_open = False
        self._reported = self._since_report = self._silent = 0

    @classmethod
    async def start(cls, boot: Boot, shared: int) -> ServerProcess:
        """Start the process. `shared` is the descriptor of the group's shared limits. Raises OSError.

        It has a session of its own, so that Ctrl-C at the terminal reaches the supervisor alone. It ends when the supervisor
        does, whose ends of both sockets then close.
        """
        ours, theirs = socket.socketpair()
        give, take = socket.socketpair()
        try:
            give.setblocking(False)
            passed = (theirs.fileno(), take.fileno(), shared)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", MODULE, *map(str, passed), str(boot.number),
                stdin=DEVNULL, pass_fds=passed, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            ours.close()
            give.close()
            raise
        finally:
            theirs.close()
            take.close()
        channel: MessageChannel[ToSupervisor] = await MessageChannel.open(ours, ToSupervisor)
        channel.send(boot)
        return cls(boot, process, channel, give)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Read the process's messages until it has ended. Call `changed` whenever it begins or stops serving."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(changed))
            await self._process.wait()
            await asyncio.wait([listening], timeout=1)  # Its last words are still in the socket.
            listening.cancel()
        self._is_open = False
        self._channel.close()
        self._connections.close()
        self.ended.set()
        changed()

    async def _listen(self, changed: Callable[[], None]) -> None:
        async for message in self._channel.messages():
            match message:
                case Ready():
                    self._is_open = True
                    self.ready.set()
                    changed()
                case Report(connections):
                    self._reported, self._since_report = connections, 0
                    was_silent, self._silent = self._silent >= SILENT_TICKS, 0
                    if was_silent:
                        changed()
                case Draining():
                    self._is_open = False
                    changed()
                case Refused():
                    self.refused = message

    # --- what it does ----------------------------------------------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        """Whether it takes connections."""
        return self._is_open and self._silent < SILENT_TICKS

    @property
    def load(self) -> int:
        """Number of its connections: the last reported number, plus those handed over since."""
        return self._reported + self._since_report

    def take(self, kind: bytes, connection: socket.socket) -> bool:
        """Take a connection, or return False if its socket is full."""
        if not send(self._connections, kind, connection):
            return False
        self._since_report += 1
        return True

    def send(self, message: ToProcess) -> None:
        """Send a message to the process."""
        self._channel.send(message)

    def move_nats(self, urls: Sequence[str]) -> None:
        """Send the addresses of NATS, unless the process has them: from its boot message, or sent later."""
        if list(urls) != self._nats_urls:
            self._nats_urls = list(urls)
            self.send(NatsMoved(self._nats_urls))

    def tick(self) -> bool:
        """Count a second without a heartbeat; return whether the process has just become silent. Kill a hung process.

        Seconds are counted by the supervisor's own timer, so a suspended machine counts none.
        """
        if not self._is_open:
            return False
        self._silent += 1
        if self._silent == HUNG_TICKS:
            log.error("process.hung", process=self.boot.number, pid=self.pid, silent_s=HUNG_TICKS)
            self.kill()
        return self._silent == SILENT_TICKS

    # --- its end ---------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Drain and end the process: it gets no more connections. A process still starting ends at once."""
        self._is_open = False
        if self.ended.is_set():
            return
        if self.ready.is_set():
            self._connections.close()
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process. Acknowledged messages are stored."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    @property
    def end(self) -> str:
        """The cause of its end, in words."""
        if self.refused is not None:
            return self.refused.problem
        status = self._process.returncode
        if status is None:
            return "it runs"
        if status >= 0:
            return f"exit status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"killed by {name}" + (" (is the machine's memory used up?)" if -status == signal.SIGKILL else "")
