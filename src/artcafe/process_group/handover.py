"""Accepted connections, handed from the supervisor to its server processes as descriptors (`SCM_RIGHTS`, unix(7)).

The supervisor alone listens and accepts. So a port is taken or free as for one process, each connection goes to the process that
has the fewest, none is lost while a process is replaced, and it works where SO_REUSEPORT does not balance (macOS). Decision
record 36 has the alternatives and what each connection costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from artcafe.observe.logs import ThrottledEvent, log
from artcafe.resources import Adopt

REST: Final = b"r"
GATEWAY: Final = b"g"
"""The byte sent with each descriptor: the listener of the connection."""

AT_ONCE: Final = 64
"""Connections accepted, or received, in one turn of the event loop: about 3 ms."""
RETRY_S: Final = 0.01
PAUSE_S: Final = 0.2
"""Pause before the next accept when the process has no file descriptor left."""


class Taker(Protocol):
    """A process to hand connections to."""

    @property
    def load(self) -> int:
        """Number of its open connections."""
        ...

    def take(self, kind: bytes, connection: socket.socket) -> bool:
        """Take a connection, or return False if its socket is full."""
        ...


class Acceptor:
    """Accept on one listener, and hand each connection to the process with the fewest.

    While no process serves it accepts nothing: clients wait in the kernel's queue (4,096), as for a single process during its
    start.
    """

    def __init__(self, kind: bytes, listener: socket.socket, takers: Callable[[], Iterable[Taker]]) -> None:
        """`takers` returns the serving processes."""
        self._kind, self._listener, self._takers = kind, listener, takers
        self._listener.setblocking(False)
        self._held: socket.socket | None = None
        """An accepted connection no process could take yet."""
        self._is_accepting = self._is_closed = False
        self._refused = ThrottledEvent("process.not_accepted")

    def resume(self) -> None:
        """Accept again if a process serves. To be called whenever a process becomes ready."""
        if self._is_closed or self._is_accepting:
            return
        held, self._held = self._held, None
        if held is not None and not self._place(held):
            return
        if any(True for _ in self._takers()):
            self._is_accepting = True
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more, and close the listener. May be repeated."""
        self._pause()
        self._is_closed = True
        self._listener.close()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._refused.warn(problem=str(exc))
                self._retry(PAUSE_S if exc.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM} else RETRY_S)
                return
            if not self._place(connection):
                return

    def _place(self, connection: socket.socket) -> bool:
        """Hand the connection over and return True; or hold it, pause, and return False."""
        for taker in sorted(self._takers(), key=lambda each: each.load):
            if taker.take(self._kind, connection):
                connection.close()
                return True
        self._held = connection
        self._retry(RETRY_S)
        return False

    def _retry(self, after_s: float) -> None:
        self._pause()
        asyncio.get_running_loop().call_later(after_s, self.resume)


def send(channel: socket.socket, kind: bytes, connection: socket.socket) -> bool:
    """Send a connection, or return False if the other end's buffer is full or the other end is gone. `channel` must not block."""
    try:
        return socket.send_fds(channel, [kind], [connection.fileno()]) > 0
    except OSError:
        return False


class Receiver:
    """A server process's end: it hands each incoming connection to its listener."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._channel.setblocking(False)
        self.ended = asyncio.Event()
        """Set when the supervisor closes its end, to drain this process, or has died."""
        self._adopt: dict[bytes, Adopt] = {}
        self._group: asyncio.TaskGroup | None = None
        self._lost = ThrottledEvent("process.connection_lost")

    async def run(self, rest: Adopt, gateway: Adopt) -> None:
        """Hand each connection to its listener, until cancelled or the supervisor closes its end."""
        self._adopt = {REST: rest, GATEWAY: gateway}
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as self._group:
                loop.add_reader(self._channel.fileno(), self._receive)
                await self.ended.wait()
        finally:
            loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                kind, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
            except BlockingIOError:
                return
            except OSError:
                kind, descriptors = b"", []
            if not kind:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                self.ended.set()
                return
            if not descriptors:  # The kernel dropped it: this process has no descriptor left.
                self._lost.warn(problem="no descriptor is left")
                continue
            assert self._group is not None, "run adds the reader"
            self._group.create_task(self._give(kind, socket.socket(fileno=descriptors[0])))

    async def _give(self, kind: bytes, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._adopt[kind](connection)
        except (OSError, TimeoutError) as exc:  # It has ended already, or its TLS failed.
            log.debug("process.connection_ended", problem=str(exc))
            with contextlib.suppress(OSError):
                connection.close()
